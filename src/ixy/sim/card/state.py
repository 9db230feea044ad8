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
    TAIL,  # and the tail of that queue, as it was checked: software may write another one meanwhile
    PENDING,  # what is to be done at the end of the card's turn
    PAUSED_UNTIL,  # the partner has asked to send nothing before this moment
    XOFF_AGAIN,  # the partner was asked so, and is to be asked again at this moment; 0: it may send
    BUFFERED,  # bytes of the frames that wait in the packet buffer, with their check sequences,
    BUFFER_HEAD,  # where the first of them begins
    BUFFER_TAIL,  # and where the next one goes
    CLOCK_SINCE,  # the system time at this moment is in the next two words,
    CLOCK_LOW,
    CLOCK_HIGH,
    CLOCK_PERIOD,  # and each time this has passed, in tenths of a nanosecond,
    CLOCK_STEP,  # it has grown by this
    FIVE_FIELDS,  # how many filters by five fields are to be looked at, up to the last that is enabled
    FIRST,  # first descriptor of the packet that is being gathered, if it has several
    USUAL,  # what the descriptor of a packet looks like about which there is nothing to say; 0: each is looked at
    FUNCTIONS,  # how many virtual functions there are
    POOL_SHIFT,  # two to this are the queues of a pool
    FUNCTION,  # which function is at work, as a row of the rack's `functions`,
    REFUSED_BEFORE,  # and how many DMA accesses had been refused when it began
    CARD_WORDS,
) = range(35)

# Columns of `functions`, of the virtual functions of a card and, behind those, of its physical one. What BUS_MASTER,
# ROOT_TABLE and REQUESTER are while the function is at work, and what it has done.
(
    FUNCTION_MASTER,
    FUNCTION_ROOT,
    FUNCTION_REQUESTER,
    FUNCTION_REFUSED,  # DMA accesses
    FUNCTION_SPOOFED,  # frames that were not sent
    FUNCTION_MULTICAST,  # frames that it received
    FUNCTION_WORDS,
) = range(7)
PHYSICAL = 64  # the row of the physical function

UNTIL_RESET = (  # a reset makes them 0
    *(TX_QUEUES, RX_QUEUES, STAGED, OFFLOAD, PENDING, PAUSED_UNTIL, XOFF_AGAIN, BUFFERED),
    *(CLOCK_LOW, CLOCK_HIGH, CLOCK_PERIOD, CLOCK_STEP),
)

# Bits of the word FEATURES: what is enabled on a card beyond plain receiving and sending. The rare is tested at once,
# and its kernels are in their slots (`slots.py`) before it is enabled.
(
    CLASSIFY,
    CHECK_VLAN,
    STRIP_VLAN,
    LOOPBACK,
    INTERRUPT,
    FORMATS,
    KEEP_CRC,
    REPORT,
    COALESCE,
    FILTER,
    POOLS,
    CONTROL,  # MAC control frames mean something,
    BUFFER,  # and frames wait in the packet buffer
    STAMP,  # PTP messages are stamped when they arrive,
    STAMP_SENT,  # and when they leave
    LIMIT,  # the rate of some transmit queue is limited
    VIRTUAL,  # there are virtual functions, or frames go from pool to pool
) = (1 << bit for bit in range(17))
# Those for which the card has the turns of one that looks at the time, also where frames take none
BY_TIME = BUFFER | LIMIT | VIRTUAL

NO_POOL = -1  # in the place of a pool's number, without virtualisation

# What became of a frame that kernels of FORMATS or COALESCE were to place: nothing, as it is a plain one; it is part of
# a packet that is not complete; it was written; it is lost, as no descriptor was left for it
PLAIN, JOINED, WRITTEN, NO_ROOM = 0, 1, 2, -1

# Bits of the word PENDING: descriptors are done and not written back, packets are being coalesced
REPORTING, COALESCING = 1, 2

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
    RX_LOST_BYTES,  # of the frames in these two
    RX_KEPT_BYTES,  # of check sequences that are counted with good frames, as they are kept
    TX_BROADCAST,
    TX_MULTICAST,
    DMA_REFUSED,
    DMA_ADDRESS,
    XON_SENT,
    XOFF_SENT,
    XON_RECEIVED,
    XOFF_RECEIVED,
    FLOW_MATCHES,
    FLOW_MISSES,
    FLOW_DROPS,
    SPOOFED,  # frames of pools that are counted when they are kept from being sent
    TX_LOOPED_BYTES,  # of the frames that went from pool to pool and did not leave
    RX_SIZES,  # six columns: good frames of up to 64, 127, 255, 511, 1023 bytes, and longer ones
) = range(24)
TX_SIZES = RX_SIZES + 6
BREACHES = TX_SIZES + 6  # two columns for each rule below: how often it was broken, and where first

# The rules for drivers (`driver_rules.py`) that are found broken by kernels
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
COUNTERS = BREACHES + 2 * KERNEL_RULES

# Columns of `queues`: what each queue has counted, how many of its transmit descriptors are to be written back, and of
# one with a limited rate
(
    QUEUE_RX,
    QUEUE_RX_BYTES,
    QUEUE_TX,
    QUEUE_TX_BYTES,
    QUEUE_DROPPED,
    QUEUE_UNREPORTED,
    QUEUE_UNREPORTED_FROM,  # the first of them is at this index of the ring
    QUEUE_FACTOR,  # how many times, in 2**-14, it is slower than the link; 0: it is not limited
    QUEUE_DUE,  # when it may send again, in nanoseconds,
    QUEUE_REST,  # and so many parts of one later
    QUEUE_WORDS,
) = range(11)
QUEUE_UNTIL_RESET = [QUEUE_UNREPORTED, QUEUE_FACTOR, QUEUE_DUE, QUEUE_REST]  # a reset makes them 0

# Words of `flows`, the flow director's table: the first filter of each bucket, then the words of filters, whose names
# are in `flow_director`
BUCKETS, FILTER_WORDS = 1 << 15, 8
FLOW_WORDS = BUCKETS * (1 + FILTER_WORDS)

# Bits that software does not see in registers where they are reserved, so that who looks at the register sees them too:
# in RXDCTL and TXDCTL, the queue hangs, and what it receives is spoilt; in RXCTRL and DMATXCTL, no packet has room; in
# FDIRCTRL, packets lie where its table should be
HUNG, SPOILT = 1 << 31, 1 << 29
RX_CLOSED, TX_CLOSED = 1 << 31, 1 << 15
OVERWRITTEN = 1 << 15

# Where things lie in a card's slot of the tape: a packet on its way out, one of its segments, a frame without its VLAN
# tag or with its check sequence, what is written into EVENT, a pause frame, a queue's head on its way to memory, the
# flows of which packets are being coalesced, a frame that is spoilt, and the packet buffer
STAGE = 0
STAGE_SIZE = 256 << 10  # PAYLEN has 18 bits
SEGMENT = STAGE + STAGE_SIZE
STRIPPED = SEGMENT + (64 << 10)
NOTICE = STRIPPED + (32 << 10)
PAUSE_FRAME = NOTICE + 64
HEAD = NOTICE + (4 << 10)
FLOWS = HEAD + (4 << 10)
SPOILING = FLOWS + (32 << 10)
PACKET_BUFFER = SPOILING + (32 << 10)
PACKET_BUFFER_SIZE = 640 << 10  # for 512 KiB of frames: each has a word besides, and begins with one
PART_SIZE = PACKET_BUFFER + PACKET_BUFFER_SIZE

# Words from the registers of one receive queue to those of the next, and how many more those of queues from 64 on are
# away (8.2.3.8). Queue n's lie n * RX_STRIDE + (n >> RX_LOWER_BITS) * RX_JUMP behind queue 0's.
RX_STRIDE = reg.RDBAL.stride // 4
RX_LOWER_BITS = LOWER.bit_length() - 1
RX_JUMP = (reg.RDBAL.offsets[LOWER] - reg.RDBAL.offset) // 4 - LOWER * RX_STRIDE
