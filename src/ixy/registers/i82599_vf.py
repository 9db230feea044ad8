"""The registers of a virtual function of Intel's 82599, as it sees them in its own BAR 0, 16 KiB.

Offsets, modes and sections are those of the Intel 82599 10 GbE Controller Datasheet, revision 3.3, chapter 8.3, which
Linux's and DPDK's drivers bear out; the X540's are the same. Rings and descriptors are those of the physical function's
queues (`i82599.py`): a register of a queue means here what the one with its name means there, and row n is that of the
function's own queue n.
"""

from functools import partial

from ixy.registers import Mode, Register, Reset, register
from ixy.registers import i82599 as physical

RO, RW, RC, WO = Mode.RO, Mode.RW, Mode.RC, Mode.WO

BAR0_SIZE = 0x4000
QUEUES = 8  # each way at most: as many as the physical function has given to a pool, 2, 4 or 8
VECTORS = 3  # of MSI-X
MAILBOX_WORDS = 16

rx_queue = partial(register, stride=0x40, count=QUEUES)
tx_queue = partial(register, stride=0x40, count=QUEUES)

# General control
VFCTRL = register("VFCTRL", 0x00000, WO, "8.3", RST=26)
VFSTATUS = register("VFSTATUS", 0x00008, RO, "8.3", LAN_ID=(2, 3), LINKUP=7)
VFLINKS = register("VFLINKS", 0x00010, RO, "8.3", LINK_SPEED=(28, 29), LINK_UP=30)
VFFRTIMER = register("VFFRTIMER", 0x00048, RO, "8.3", MICROSECONDS=(0, 31))
VFMAILBOX = register(
    "VFMAILBOX",
    0x002FC,
    RW,
    "8.3",
    on_read="clears PFSTS, PFACK and RSTD",
    REQ=0,
    ACK=1,
    VFU=2,
    PFU=3,
    PFSTS=4,
    PFACK=5,
    RSTI=6,
    RSTD=7,
)
VFMBMEM = register("VFMBMEM", 0x00200, RW, "8.3", count=MAILBOX_WORDS, WORD=(0, 31))
VFRXMEMWRAP = register("VFRXMEMWRAP", 0x03190, RO, "8.3", WRAP_AND_EMPTY=(0, 31))

# Interrupts
VTEICR = register("VTEICR", 0x00100, RC, "8.3", CAUSES=(0, 2))
VTEICS = register("VTEICS", 0x00104, WO, "8.3", CAUSES=(0, 2))
VTEIMS = register("VTEIMS", 0x00108, RW, "8.3", MASK=(0, 2))
VTEIMC = register("VTEIMC", 0x0010C, WO, "8.3", MASK=(0, 2))
VTEIAC = register("VTEIAC", 0x00110, RW, "8.3", writable=7, AUTO_CLEAR=(0, 2))
VTEIAM = register("VTEIAM", 0x00114, RW, "8.3", writable=7, AUTO_MASK=(0, 2))
VTEITR = register("VTEITR", 0x00820, RW, "8.3", count=VECTORS, INTERVAL=(3, 11), CNT_WDIS=31)
VTIVAR = register(
    "VTIVAR",
    0x00120,
    RW,
    "8.3",
    count=QUEUES // 2,
    writable=0x83838383,
    RX_EVEN=(0, 7),
    TX_EVEN=(8, 15),
    RX_ODD=(16, 23),
    TX_ODD=(24, 31),
)
VTIVAR_MISC = register("VTIVAR_MISC", 0x00140, RW, "8.3", writable=0x83, MAILBOX=(0, 7))
VTRSCINT = register("VTRSCINT", 0x00180, RW, "8.3", count=QUEUES, RSCEN=0)

# Receive
VFPSRTYPE = register("VFPSRTYPE", 0x00300, RW, "8.3", TYPES=(0, 15), RQPL=(29, 31))
VFRDBAL = rx_queue("VFRDBAL", 0x01000, RW, "8.3", ADDRESS=(7, 31))
VFRDBAH = rx_queue("VFRDBAH", 0x01004, RW, "8.3", ADDRESS=(0, 31))
VFRDLEN = rx_queue("VFRDLEN", 0x01008, RW, "8.3", writable=physical.RDLEN.writable, LEN=(0, 19))
VFRDH = rx_queue("VFRDH", 0x01010, RW, "8.3", HEAD=(0, 15))
VFRDT = rx_queue("VFRDT", 0x01018, RW, "8.3", TAIL=(0, 15))
VFRXDCTL = rx_queue("VFRXDCTL", 0x01028, RW, "8.3", writable=physical.RXDCTL.writable, ENABLE=25, VME=30)
VFSRRCTL = rx_queue(
    "VFSRRCTL",
    0x01014,
    RW,
    "8.3",
    reset=physical.SRRCTL.reset,
    BSIZEPACKET=(0, 4),
    BSIZEHEADER=(8, 13),
    DESCTYPE=(25, 27),
    DROP_EN=28,
)
VFRSCCTL = rx_queue("VFRSCCTL", 0x0102C, RW, "8.3", RSCEN=0, MAXDESC=(2, 3))
VFDCA_RXCTRL = rx_queue("VFDCA_RXCTRL", 0x0100C, RW, "8.3", reset=physical.DCA_RXCTRL.reset, MUST_BE_ZERO=12)

# Transmit
VFTDBAL = tx_queue("VFTDBAL", 0x02000, RW, "8.3", ADDRESS=(7, 31))
VFTDBAH = tx_queue("VFTDBAH", 0x02004, RW, "8.3", ADDRESS=(0, 31))
VFTDLEN = tx_queue("VFTDLEN", 0x02008, RW, "8.3", writable=physical.TDLEN.writable, LEN=(0, 19))
VFTDH = tx_queue("VFTDH", 0x02010, RW, "8.3", HEAD=(0, 15))
VFTDT = tx_queue("VFTDT", 0x02018, RW, "8.3", TAIL=(0, 15))
VFTXDCTL = tx_queue(
    "VFTXDCTL",
    0x02028,
    RW,
    "8.3",
    writable=physical.TXDCTL.writable,
    PTHRESH=(0, 6),
    HTHRESH=(8, 14),
    WTHRESH=(16, 22),
    ENABLE=25,
    SWFLSH=26,
)
VFTDWBAL = tx_queue("VFTDWBAL", 0x02038, RW, "8.3", survives=Reset.FUNCTION, HEAD_WB_EN=0, ADDRESS=(2, 31))
VFTDWBAH = tx_queue("VFTDWBAH", 0x0203C, RW, "8.3", survives=Reset.FUNCTION, ADDRESS=(0, 31))
VFDCA_TXCTRL = tx_queue("VFDCA_TXCTRL", 0x0200C, RW, "8.3", CPUID=(24, 31))

# Statistics: they wrap around, and no read clears them
VFGPRC = register("VFGPRC", 0x0101C, RO, "8.3", COUNT=(0, 31))
VFGPTC = register("VFGPTC", 0x0201C, RO, "8.3", COUNT=(0, 31))
VFGORC_LSB = register("VFGORC_LSB", 0x01020, RO, "8.3", COUNT=(0, 31))
VFGORC_MSB = register("VFGORC_MSB", 0x01024, RO, "8.3", COUNT=(0, 3))
VFGOTC_LSB = register("VFGOTC_LSB", 0x02020, RO, "8.3", COUNT=(0, 31))
VFGOTC_MSB = register("VFGOTC_MSB", 0x02024, RO, "8.3", COUNT=(0, 3))
VFMPRC = register("VFMPRC", 0x01034, RO, "8.3", COUNT=(0, 31))

ROWS = tuple(row for row in tuple(vars().values()) if isinstance(row, Register))
"""All rows, in the order of the datasheet's sections."""

# Messages of the mailbox, in its first word; facts of Linux's and DPDK's ixgbe (mbx.h), which all drivers keep to.
# The answer to one is its first word with a verdict. CTS says that the function may ask on: without it, it has to be
# reset first.
ACK, NACK, CTS = 1 << 31, 1 << 30, 1 << 29
INFO_SHIFT, INFO_MASK = 16, 0xFF << 16
RESET, SET_MAC_ADDR, SET_MULTICAST, SET_VLAN, SET_LPE, SET_MACVLAN = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
API_NEGOTIATE = 0x08
GET_QUEUES = 0x09  # API 1.1
GET_RETA, GET_RSS_KEY, UPDATE_XCAST_MODE = 0x0A, 0x0B, 0x0C  # API 1.2
GET_LINK_STATE = 0x10  # API 1.2
CONTROL = 0x0100  # from the physical function: look at the link, and whether CTS is set
API_10, API_20, API_11, API_12, API_13, API_14 = range(6)  # versions, as API_NEGOTIATE numbers them
# Words of the answer to GET_QUEUES
QUEUES_TX, QUEUES_RX, QUEUES_TRANS_VLAN, QUEUES_DEFAULT = 1, 2, 3, 4
XCAST_NONE, XCAST_MULTI, XCAST_ALLMULTI, XCAST_PROMISC = range(4)  # modes of UPDATE_XCAST_MODE; the last from 1.3 on
MULTICAST_HASHES = 30  # of SET_MULTICAST, 12 bits each in 16
