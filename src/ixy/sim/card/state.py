"""Where a simulated card keeps what it is doing: columns of the rack's arrays, and its part of the tape."""

from __future__ import annotations

from ixy.registers import LOWER
from ixy.registers import i82599 as reg

# Columns of `cards`
(
    TX_QUEUES,  # how many queues the rack has to look at
    RX_QUEUES,
    BUS_MASTER,  # whether the configuration space allows DMA
    FEATURES,
    STAGED,  # bytes of the packet that is being gathered
    STAGING,  # the queue that it comes from
    OFFLOAD,  # its first descriptor, if it asks for an offload
    EVENT,  # file descriptor that tells the card's owner of something to interrupt for, or OWN_THREAD
    RAISED,  # whether there is
    ROOT_TABLE,  # address of the IOMMU's root table; 0: no IOMMU translates
    REQUESTER,  # bus, device and function, by which the IOMMU knows the card
    QUEUE,  # for the frame that arrives, once it is classified
    WORD_0,  # what its descriptor says of it
    WORD_1,
    TAG_WORD,  # what it says of the tag that was stripped
    FIRST,  # first descriptor of the packet that is being gathered, if it has several
    USUAL,  # what the descriptor of a packet looks like about which there is nothing to say; 0: each is looked at
    CARD_WORDS,
) = range(18)

# Bits of the word FEATURES: what is enabled on a card beyond plain receiving and sending. The rare is tested at once,
# and its kernels are in their slots (`slots.py`) before it is enabled.
CLASSIFY, CHECK_VLAN, STRIP_VLAN, LOOPBACK, INTERRUPT = 1, 2, 4, 8, 16

# Columns of `counters`: what a card has counted since it was made. The register file turns them, with those of queues,
# into the datasheet's read-clear statistics (8.2.3.23). A frame that goes its usual way is counted in few places.
(
    RX_BROADCAST,
    RX_MULTICAST,
    RX_UNDERSIZE,
    RX_OVERSIZE,
    RX_FILTERED,
    RX_REFUSED_BYTES,  # of the frames in these three
    RX_MISSED,
    RX_NO_DESCRIPTOR,
    RX_LOST_BYTES,  # of the frames in these two, and of tags that were stripped
    TX_BROADCAST,
    TX_MULTICAST,
    DMA_REFUSED,
    DMA_ADDRESS,
    RX_SIZES,  # six columns: good frames of up to 64, 127, 255, 511, 1023 bytes, and longer ones
) = range(14)
TX_SIZES = RX_SIZES + 6
BROKEN = TX_SIZES + 6  # two columns for each rule below: how often it was broken, and where first

# The rules for drivers (`rules.py`) that are found broken by kernels
(
    PAYLEN,
    DEXT,
    DTYP,
    MSS,
    RS,
    IFCS,
    TXCRCEN,
    TXPADEN,
    TX_TAIL,
    RX_TAIL,
    NO_SNOOP,
    KERNEL_RULES,
) = range(12)
COUNTERS = BROKEN + 2 * KERNEL_RULES

# Columns of `queues`: what each queue has counted
QUEUE_RX, QUEUE_RX_BYTES, QUEUE_TX, QUEUE_TX_BYTES, QUEUE_DROPPED, QUEUE_COUNTERS = range(6)

# Bits that software does not see in registers where they are reserved, so that who looks at the register sees them too:
# in RXDCTL and TXDCTL, the queue hangs, and what it receives is spoilt; in RXCTRL and DMATXCTL, no packet has room
HUNG, SPOILT = 1 << 31, 1 << 29
RX_CLOSED, TX_CLOSED = 1 << 31, 1 << 15

# Where things lie in a card's slot of the tape: a packet on its way out, one of its segments, a frame without its VLAN
# tag, what is written into EVENT, and a frame that is spoilt
STAGE = 0
STAGE_SIZE = 256 << 10  # PAYLEN has 18 bits
SEGMENT = STAGE + STAGE_SIZE
STRIPPED = SEGMENT + (64 << 10)
NOTICE = STRIPPED + (32 << 10)
SPOILING = NOTICE + (4 << 10)
PART_SIZE = SPOILING + (32 << 10)

# Words from the registers of one receive queue to those of the next, and how many more those of queues from 64 on are
# away (8.2.3.8). Queue n's lie n * RX_STRIDE + (n >> RX_LOWER_BITS) * RX_JUMP behind queue 0's.
RX_STRIDE = reg.RDBAL.stride // 4
RX_LOWER_BITS = LOWER.bit_length() - 1
RX_JUMP = (reg.RDBAL.offsets[LOWER] - reg.RDBAL.offset) // 4 - LOWER * RX_STRIDE
