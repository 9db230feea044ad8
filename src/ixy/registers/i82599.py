"""The registers and descriptors of Intel's 82599 that the driver or the simulated card uses.

Offsets, modes, sections and reset values are those of the Intel 82599 10 GbE Controller Datasheet, revision 3.3,
chapter 8.2.3; the descriptors are in chapter 7. X540 and X550 share what is here; `ixy.drivers.ixgbe.cards` says where
they differ. Registers that the 82599 shows at a second, older place too are in `ALIASES`.

Where a value is not taken from there, or where sources differ, the row's `source` says which was followed: Linux and
DPDK (their ixgbe drivers), klint (a description of the 82599's registers that programs are proved against), or X550
(its datasheet). What is "recalled" was not looked up.
"""

from functools import partial

from ixy.registers import Mode, Register, Reset, register

RO, RW, RC, RW1C, WO = Mode.RO, Mode.RW, Mode.RC, Mode.RW1C, Mode.WO

BAR0_SIZE = 0x20000
QUEUES = 128
VECTORS = 64  # of MSI-X

# What rows have in common: a table without reset values, which keeps its contents as long as there is power (4.2.1);
# registers of each receive queue, of which those from 64 on lie elsewhere, and of each transmit queue
table = partial(register, survives=Reset.FUNCTION, undefined=0xFFFFFFFF)
rx_queue = partial(register, stride=0x40, count=QUEUES, upper=0xC000)
tx_queue = partial(register, stride=0x40, count=QUEUES)

# 8.2.3.1 General control
CTRL = register("CTRL", 0x00000, RW, "8.2.3.1.1", writable=1 << 2, PCIE_MASTER_DISABLE=2, LRST=3, RST=26)
STATUS = register("STATUS", 0x00008, RO, "8.2.3.1.2", LAN_ID=(2, 3), LINKUP=7, PCIE_MASTER_ENABLE=19, reset=0x80000)
CTRL_EXT = register(
    "CTRL_EXT",
    0x00018,
    RW,
    "8.2.3.1.3",
    writable=1 << 16 | 1 << 17 | 1 << 26 | 1 << 28,
    survives=Reset.LINK,
    kept=1 << 26,
    PFRSTD=14,
    NS_DIS=16,
    RO_DIS=17,
    EXTENDED_VLAN=26,
    DRV_LOAD=28,
)
I2CCTL = register(
    "I2CCTL",
    0x00028,
    RW,
    "8.2.3.1.6",
    reset=0xF,
    survives=Reset.FUNCTION,
    CLK_IN=0,
    CLK_OUT=1,
    DATA_IN=2,
    DATA_OUT=3,
)

EXVET = register("EXVET", 0x05078, RW, "8.2.3.1.8", reset=0x8100 << 16, writable=0xFFFF << 16, VET_EXT=(16, 31))

# 8.2.3.2 EEPROM
EEC = register(
    "EEC",
    0x10010,
    RW,
    "8.2.3.2.1",
    reset=0x3FC310,
    writable=0x77,
    source="for an EEPROM of 256 Kbit",
    EE_BANG=(0, 2),
    FWE=(4, 5),
    EE_REQ=6,
    EE_GNT=7,
    EE_PRES=8,
    AUTO_RD=9,
    EE_SIZE=(11, 14),
    DONE=(15, 21),
    FLUDONE=26,  # of an X540
)
EERD = register("EERD", 0x10014, RW, "8.2.3.2.2", START=0, DONE=1, ADDR=(2, 15), DATA=(16, 31))

# 8.2.3.3 Flow control
PFCTOP = register("PFCTOP", 0x03008, RW, "8.2.3.3.1", reset=0x01018808, FCT=(0, 15), FCOP=(16, 31))
FCTTV = register("FCTTV", 0x03200, RW, "8.2.3.3.2", count=4, TTV_EVEN=(0, 15), TTV_ODD=(16, 31))
FCRTL = register("FCRTL", 0x03220, RW, "8.2.3.3.3", count=8, writable=0x8007FFF0, RTL=(5, 18), XONE=31)
FCRTH = register("FCRTH", 0x03260, RW, "8.2.3.3.4", count=8, writable=0x8007FFF0, RTH=(5, 18), FCEN=31)
FCRTV = register("FCRTV", 0x032A0, RW, "8.2.3.3.5", writable=0xFFFF, FC_REFRESH_TH=(0, 15))
FCCFG = register("FCCFG", 0x03D00, RW, "8.2.3.3.7", writable=0x18, TFCE=(3, 4))

# 8.2.3.4 PCIe, semaphores between software and firmware
SWSM = register(
    "SWSM",
    0x10140,
    RW,
    "8.2.3.4",
    writable=3,
    survives=Reset.FUNCTION,
    on_read="takes the semaphore (10.5.4)",
    SMBI=0,
    SWESMBI=1,
)
FWSM = register(
    "FWSM",
    0x10148,
    RO,
    "8.2.3.4.10",
    reset=0x8000,
    source="Linux, which wants valid firmware; 0 until firmware runs",
    FW_MODE=(1, 3),
    FW_VAL=15,
)
SW_FW_SYNC = register(
    "SW_FW_SYNC",
    0x10160,
    RW,
    "8.2.3.4.11",
    survives=Reset.FUNCTION,
    on_read="of an X540 takes the semaphore",
    SOFTWARE=(0, 4),
    FIRMWARE=(5, 9),
    REGSMP=31,  # of an X540
)
GCR_EXT = register("GCR_EXT", 0x11050, RW, "8.2.3.4.12", BUFFERS_CLEAR=30)

# 8.2.3.5 Interrupts
EICR = register("EICR", 0x00800, RC, "8.2.3.5.1", QUEUES=(0, 15), FLOW_DIRECTOR=16, LSC=20)
EICS = register("EICS", 0x00808, RW, "8.2.3.5.2", CAUSES=(0, 31))
EIMS = register("EIMS", 0x00880, RW, "8.2.3.5.3", MASK=(0, 31))
EIMC = register("EIMC", 0x00888, WO, "8.2.3.5.4", MASK=(0, 31))
EIAC = register("EIAC", 0x00810, RW, "8.2.3.5.5", AUTO_CLEAR=(0, 31))
EIAM = register("EIAM", 0x00890, RW, "8.2.3.5.6", AUTO_MASK=(0, 31))
EICS_EX = register("EICS_EX", 0x00A90, WO, "8.2.3.5.7", count=2, CAUSES=(0, 31))
EIMS_EX = register("EIMS_EX", 0x00AA0, RW, "8.2.3.5.8", count=2, MASK=(0, 31))
EIMC_EX = register("EIMC_EX", 0x00AB0, WO, "8.2.3.5.9", count=2, MASK=(0, 31))
EIAM_EX = register("EIAM_EX", 0x00AD0, RW, "8.2.3.5.10", count=2, AUTO_MASK=(0, 31))
EITR = register("EITR", 0x00820, RW, "8.2.3.5.12", count=24, INTERVAL=(3, 11), CNT_WDIS=31)
EITR_HIGH = register("EITR_HIGH", 0x12300, RW, "8.2.3.5.12", count=105, INTERVAL=(3, 11), CNT_WDIS=31)
IVAR = register(
    "IVAR",
    0x00900,
    RW,
    "8.2.3.5.16",
    count=64,
    RX_EVEN=(0, 7),
    TX_EVEN=(8, 15),
    RX_ODD=(16, 23),
    TX_ODD=(24, 31),
)
IVAR_MISC = register("IVAR_MISC", 0x00A00, RW, "8.2.3.5.17", TIMER=(0, 7), OTHER=(8, 15))
IVAR_VALID = 0x80  # in each of the fields; else there is no interrupt
GPIE = register("GPIE", 0x00898, RW, "8.2.3.5.18", MULTIPLE_MSIX=4, OCD=5, EIMEN=6, EIAME=30, PBA_SUPPORT=31)

# 8.2.3.7 Receive: filters
FCTRL = register("FCTRL", 0x05080, RW, "8.2.3.7.1", SBP=1, MPE=8, UPE=9, BAM=10)
RFCTL = register("RFCTL", 0x05008, RW, "8.2.3.7.6", RSC_DIS=5, NFSW_DIS=6, NFSR_DIS=7)
MTA = table("MTA", 0x05200, RW, "8.2.3.7.7", count=128, BITS=(0, 31))
MCSTCTRL = register("MCSTCTRL", 0x05090, RW, "8.2.3.7.2", writable=0x7, MO=(0, 1), MFE=2)
PSRTYPE = register(
    "PSRTYPE",
    0x0EA00,
    RW,
    "8.2.3.7.4",
    count=64,
    TCPHDR=4,
    UDPHDR=5,
    IPV4HDR=8,
    IPV6HDR=9,
    L2HDR=12,
    RQPL=(29, 31),
)
RXCSUM = register("RXCSUM", 0x05000, RW, "8.2.3.7.5", IPPCSE=12, PCSD=13)
VLNCTRL = register("VLNCTRL", 0x05088, RW, "8.2.3.7.2", VET=(0, 15), VFE=30, reset=0x8100)
VFTA = table("VFTA", 0x0A000, RW, "8.2.3.7.11", count=128, BITS=(0, 31))
RAL = table("RAL", 0x0A200, RW, "8.2.3.7.8", stride=8, count=128, ADDRESS=(0, 31))
RAH = register(
    "RAH",
    0x0A204,
    RW,
    "8.2.3.7.9",
    stride=8,
    count=128,
    writable=0x8000FFFF,
    survives=Reset.FUNCTION,
    kept=0xFFFF,
    undefined=0xFFFF,
    source="AV: 8.2.3.7.9 and X550, by which each reset clears it; by 4.2.1 the whole register survives",
    ADDRESS=(0, 15),
    AV=31,
)
MPSAR = table("MPSAR", 0x0A600, RW, "8.2.3.7.10", count=256, POOLS=(0, 31))

SAQF = table("SAQF", 0x0E000, RW, "8.2.3.7.16", count=128, ADDRESS=(0, 31))
DAQF = table("DAQF", 0x0E200, RW, "8.2.3.7.17", count=128, ADDRESS=(0, 31))
SDPQF = table("SDPQF", 0x0E400, RW, "8.2.3.7.18", count=128, SOURCE=(0, 15), DESTINATION=(16, 31))
FTQF = table(
    "FTQF",
    0x0E600,
    RW,
    "8.2.3.7.19",
    count=128,
    undefined=0x7FFFFFFF,
    source="QUEUE_ENABLE: Linux, which never clears it and finds no filter; by 8.2.3.7.19 it is undefined, too",
    PROTOCOL=(0, 1),
    PRIORITY=(2, 4),
    POOL=(8, 13),
    MASK=(25, 29),
    POOL_MASK=30,
    QUEUE_ENABLE=31,
)
L34TIMIR = table("L34TIMIR", 0x0E800, RW, "8.2.3.5.13", count=128, SIZE_BP=12, MUST_BE_64=(13, 19), RX_QUEUE=(21, 27))
SYNQF = register("SYNQF", 0x0EC30, RW, "8.2.3.7.20", writable=0x800000FF, QUEUE_ENABLE=0, RX_QUEUE=(1, 7), SYNQFP=31)
ETQF = register(
    "ETQF",
    0x05128,
    RW,
    "8.2.3.7.21",
    count=8,
    ETYPE=(0, 15),
    UP=(16, 18),
    UP_EN=19,
    POOL=(20, 25),
    POOL_ENABLE=26,
    TIMESTAMP=30,
    FILTER_ENABLE=31,
)
ETQS = register("ETQS", 0x0EC00, RW, "8.2.3.7.22", count=8, RX_QUEUE=(16, 22), QUEUE_ENABLE=31)
MRQC = register("MRQC", 0x0EC80, RW, "8.2.3.7.12", MRQE=(0, 3), FIELDS=(16, 31))
RETA = table("RETA", 0x0EB00, RW, "8.2.3.7.14", count=32, ENTRIES=(0, 31))
ERETA = register("ERETA", 0x0EE80, RW, "X550: extended redirection table", count=96, ENTRIES=(0, 31))  # not on others
RSSRK = table("RSSRK", 0x0EB80, RW, "8.2.3.7.15", count=10, KEY=(0, 31))
RTRUP2TC = register("RTRUP2TC", 0x03020, RW, "8.2.3.10.4", writable=0xFFFFFF, TRAFFIC_CLASSES=(0, 23))
PFVTCTL = register("PFVTCTL", 0x051B0, RW, "8.2.3.27.1", VT_ENA=0, DEF_PL=(7, 12), DIS_DEF_PL=29, RPL_EN=30)
PFVFRE = register("PFVFRE", 0x051E0, RW, "8.2.3.27.7", count=2, POOLS=(0, 31))
PFVML2FLT = register("PFVML2FLT", 0x0F000, RW, "8.2.3.27.14", count=64, AUPE=24, ROMPE=25, ROPE=26, BAM=27, MPE=28)
PFVLVF = table("PFVLVF", 0x0F100, RW, "8.2.3.27.15", count=64, VLAN_ID=(0, 11), VI_EN=31)
PFVLVFB = table("PFVLVFB", 0x0F200, RW, "8.2.3.27.16", count=128, POOLS=(0, 31))
PFUTA = table("PFUTA", 0x0F400, RW, "8.2.3.27.17", count=128, BITS=(0, 31))

# 8.2.3.8 Receive: DMA
RDBAL = rx_queue(
    "RDBAL",
    0x01000,
    RW,
    "8.2.3.8.1",
    writable=0xFFFFFF80,
    survives=Reset.FUNCTION,
    undefined=0xFFFFFFFF,
    ADDRESS=(7, 31),
)
RDBAH = rx_queue("RDBAH", 0x01004, RW, "8.2.3.8.2", survives=Reset.FUNCTION, undefined=0xFFFFFFFF, ADDRESS=(0, 31))
RDLEN = rx_queue("RDLEN", 0x01008, RW, "8.2.3.8.3", writable=0xFFF80, LEN=(0, 19))
RDH = rx_queue("RDH", 0x01010, RW, "8.2.3.8.4", writable=0xFFFF, HEAD=(0, 15))
RDT = rx_queue("RDT", 0x01018, RW, "8.2.3.8.5", writable=0xFFFF, TAIL=(0, 15))
RXDCTL = rx_queue("RXDCTL", 0x01028, RW, "8.2.3.8.6", writable=0x5FFFFFFF, ENABLE=25, VME=30)
SRRCTL = rx_queue(
    "SRRCTL",
    0x01014,
    RW,
    "8.2.3.8.7",
    reset=0x402,
    BSIZEPACKET=(0, 4),
    BSIZEHEADER=(8, 13),
    DESCTYPE=(25, 27),
    DROP_EN=28,
)
RSCCTL = rx_queue("RSCCTL", 0x0102C, RW, "8.2.3.8.13", RSCEN=0, MAXDESC=(2, 3))
RSCDBU = register("RSCDBU", 0x03028, RW, "8.2.3.8.12", RSCSMALDIS=(0, 6), RSCACKDIS=7)
RDRXCTL = register(
    "RDRXCTL",
    0x02F00,
    RW,
    "8.2.3.8.8",
    reset=0x108808,
    writable=0xFFFFFFFF & ~(1 << 3),
    source="bits 11 and 15, which are reserved: X550",
    CRC_STRIP=1,
    DMAIDONE=3,
    RSCFRSTSIZE=(17, 21),
    RSCACKC=25,
    FCOE_WRFIX=26,
)
RXPBSIZE = register("RXPBSIZE", 0x03C00, RW, "8.2.3.8.9", count=8, reset=512 << 10, writable=0xFFC00, SIZE=(10, 19))
RXCTRL = register("RXCTRL", 0x03000, RW, "8.2.3.8.10", writable=1, RXEN=0)
RXMEMWRAP = register("RXMEMWRAP", 0x03190, RO, "8.2.3.8.11", reset=0x88888888, WRAP_AND_EMPTY=(0, 31))
DCA_RXCTRL = rx_queue("DCA_RXCTRL", 0x0100C, RW, "8.2.3.11.1", reset=0xB200, MUST_BE_ZERO=12)

# 8.2.3.9 Transmit
DMATXCTL = register(
    "DMATXCTL", 0x04A80, RW, "8.2.3.9.2", reset=0x8100 << 16, writable=0xFFFF7FFF, TE=0, GDV=3, VT=(16, 31)
)
DTXTCPFLGL = register(
    "DTXTCPFLGL", 0x04A88, RW, "8.2.3.9.3", reset=0x0FF60FF6, writable=0x0FFF0FFF, FIRST=(0, 11), MIDDLE=(16, 27)
)
DTXTCPFLGH = register("DTXTCPFLGH", 0x04A8C, RW, "8.2.3.9.4", reset=0xF7F, writable=0xFFF, LAST=(0, 11))
DTXMXSZRQ = register("DTXMXSZRQ", 0x08100, RW, "8.2.3.9.1", reset=0x10, writable=0xFFF, MAX_BYTES_NUM_REQ=(0, 11))
TDBAL = tx_queue(
    "TDBAL",
    0x06000,
    RW,
    "8.2.3.9.5",
    writable=0xFFFFFF80,
    survives=Reset.FUNCTION,
    undefined=0xFFFFFFFF,
    ADDRESS=(7, 31),
)
TDBAH = tx_queue("TDBAH", 0x06004, RW, "8.2.3.9.6", survives=Reset.FUNCTION, undefined=0xFFFFFFFF, ADDRESS=(0, 31))
TDLEN = tx_queue("TDLEN", 0x06008, RW, "8.2.3.9.7", writable=0xFFF80, LEN=(0, 19))
TDH = tx_queue("TDH", 0x06010, RW, "8.2.3.9.8", writable=0xFFFF, HEAD=(0, 15))
TDT = tx_queue("TDT", 0x06018, RW, "8.2.3.9.9", writable=0xFFFF, TAIL=(0, 15))
TXDCTL = tx_queue(
    "TXDCTL",
    0x06028,
    RW,
    "8.2.3.9.10",
    writable=0x7FFFFFFF & ~(1 << 26),
    PTHRESH=(0, 6),
    HTHRESH=(8, 14),
    WTHRESH=(16, 22),
    ENABLE=25,
    SWFLSH=26,
)
TDWBAL = tx_queue("TDWBAL", 0x06038, RW, "8.2.3.9.11", HEAD_WB_EN=0, ADDRESS=(2, 31))
TDWBAH = tx_queue("TDWBAH", 0x0603C, RW, "8.2.3.9.12", ADDRESS=(0, 31))
TXPBSIZE = register(
    "TXPBSIZE",
    0x0CC00,
    RW,
    "8.2.3.9.13",
    count=8,
    reset=160 << 10,
    writable=0xFFC00,
    source="klint: all alike; those from 1 on have no meaning without DCB",
    SIZE=(10, 19),
)
TXPBTHRESH = register("TXPBTHRESH", 0x04950, RW, "8.2.3.9.16", count=8, first=0x96, writable=0x3FF, THRESH=(0, 9))
DCA_TXCTRL = tx_queue("DCA_TXCTRL", 0x0600C, RW, "8.2.3.11.2", reset=0x2A00, CPUID=(24, 31))
RTTDCS = register("RTTDCS", 0x04900, RW, "8.2.3.10.2", reset=0xC00000, ARBDIS=6, BDPM=22, BPBFSM=23)
RTTDQSEL = register("RTTDQSEL", 0x04904, RW, "8.2.3.10.8", writable=0x7F, TXDQ_IDX=(0, 6))
RTTBCNRM = register("RTTBCNRM", 0x04980, RW, "8.2.3.10.15", writable=0x7FF, MMW_SIZE=(0, 10))
RTTBCNRC = register("RTTBCNRC", 0x04984, RW, "8.2.3.10.16", writable=0x80FFFFFF, RF=(0, 23), RS_ENA=31)
RTTPCS = register("RTTPCS", 0x0CD00, RW, "8.2.3.10.3", reset=0x224 << 22, ARBD=(22, 31))

# 8.2.3.12 Security: the receive path passes through it even when it does nothing
SECTXCTRL = register("SECTXCTRL", 0x08800, RW, "8.2.3.12.1", reset=1, source="recalled", SECTX_DIS=0, TX_DIS=1)
SECTXSTAT = register(
    "SECTXSTAT",
    0x08804,
    RO,
    "8.2.3.12.2",
    reset=3,
    source="a card whose fuses switch security off, so that Linux offers none",
    SECTX_RDY=0,
    OFF=1,
)
SECTXBUFFAF = register("SECTXBUFFAF", 0x08808, RW, "8.2.3.12.3", reset=0x250, source="recalled", FULL_THRESH=(0, 9))
SECTXMINIFG = register("SECTXMINIFG", 0x08810, RW, "8.2.3.12.4", reset=0x1001, source="recalled", MINIFG=(0, 3))
SECRXCTRL = register("SECRXCTRL", 0x08D00, RW, "8.2.3.12.5", reset=1, SECRX_DIS=0, RX_DIS=1)
SECRXSTAT = register(
    "SECRXSTAT",
    0x08D04,
    RO,
    "8.2.3.12.6",
    reset=2,
    source="a card whose fuses switch security off, so that Linux offers none",
    SECRX_RDY=0,
    OFF=1,
)

# 8.2.3.21 Flow director
FDIRCTRL = register(
    "FDIRCTRL",
    0x0EE00,
    RW,
    "8.2.3.21.1",
    writable=0xFFFFFFFF & ~(1 << 3),
    PBALLOC=(0, 1),
    INIT_DONE=3,
    PERFECT_MATCH=4,
    REPORT_STATUS=5,
    REPORT_STATUS_ALWAYS=7,
    DROP_QUEUE=(8, 14),
    FLEX_OFFSET=(16, 20),
    MAX_LENGTH=(24, 27),
    FULL_THRESH=(28, 31),
)
FDIRSIPV6 = register("FDIRSIPV6", 0x0EE0C, RW, "8.2.3.21.16", count=3, ADDRESS=(0, 31))
FDIRIPSA = register("FDIRIPSA", 0x0EE18, RW, "8.2.3.21.17", ADDRESS=(0, 31))
FDIRIPDA = register("FDIRIPDA", 0x0EE1C, RW, "8.2.3.21.18", ADDRESS=(0, 31))
FDIRPORT = register("FDIRPORT", 0x0EE20, RW, "8.2.3.21.19", SOURCE=(0, 15), DESTINATION=(16, 31))
FDIRVLAN = register("FDIRVLAN", 0x0EE24, RW, "8.2.3.21.20", VLAN=(0, 15), FLEX=(16, 31))
FDIRHASH = register(
    "FDIRHASH", 0x0EE28, RW, "8.2.3.21.21", writable=0x7FFFFFFF, HASH=(0, 14), BUCKET_VALID=15, SW_INDEX=(16, 30)
)
FDIRCMD = register(
    "FDIRCMD",
    0x0EE2C,
    RW,
    "8.2.3.21.22",
    CMD=(0, 1),
    FILTER_VALID=2,
    FILTER_UPDATE=3,
    L4TYPE=(5, 6),
    IPV6=7,
    CLEARHT=8,
    DROP=9,
    LAST=11,
    COLLISION=12,
    QUEUE_EN=15,
    RX_QUEUE=(16, 22),
    POOL=(24, 29),
)
FDIRFREE = register(
    "FDIRFREE",
    0x0EE38,
    RW,
    "8.2.3.21.10",
    reset=0x8000,
    writable=0x7FFFFFFF,
    source="recalled; X550: 0, which has no table yet",
    FREE=(0, 15),
    COLL=(16, 30),
)
FDIRDIP4M = register("FDIRDIP4M", 0x0EE3C, RW, "8.2.3.21.4", IPM=(0, 31))
FDIRSIP4M = register("FDIRSIP4M", 0x0EE40, RW, "8.2.3.21.5", IPM=(0, 31))
FDIRTCPM = register("FDIRTCPM", 0x0EE44, RW, "8.2.3.21.6", SPORTM=(0, 15), DPORTM=(16, 31))
FDIRUDPM = register("FDIRUDPM", 0x0EE48, RW, "8.2.3.21.7", SPORTM=(0, 15), DPORTM=(16, 31))
FDIRLEN = register("FDIRLEN", 0x0EE4C, RC, "8.2.3.21.11", MAXLEN=(0, 5), BUCKET_LENGTH=(8, 13), MAXHASH=(16, 30))
FDIRUSTAT = register("FDIRUSTAT", 0x0EE50, RC, "8.2.3.21.12", ADD=(0, 15), REMOVE=(16, 31))
FDIRFSTAT = register("FDIRFSTAT", 0x0EE54, RC, "8.2.3.21.13", FADD=(0, 7), FREMOVE=(8, 15))
FDIRMATCH = register("FDIRMATCH", 0x0EE58, RC, "8.2.3.21.14", PCNT=(0, 31))
FDIRMISS = register("FDIRMISS", 0x0EE5C, RC, "8.2.3.21.15", PCNT=(0, 31))
FDIRHKEY = register("FDIRHKEY", 0x0EE68, RW, "8.2.3.21.2", reset=0x80000001, source="recalled, and X550", KEY=(0, 31))
FDIRSKEY = register("FDIRSKEY", 0x0EE6C, RW, "8.2.3.21.3", reset=0x80800101, source="X550", KEY=(0, 31))
FDIRM = register("FDIRM", 0x0EE70, RW, "8.2.3.21.9", writable=0x3F, VLANID=0, VLANP=1, POOL=2, L4P=3, FLEX=4, DIPV6=5)
FDIRIP6M = register("FDIRIP6M", 0x0EE74, RW, "8.2.3.21.8", SIPM=(0, 15), DIPM=(16, 31))

# 8.2.3.22 MAC
HLREG0 = register(
    "HLREG0",
    0x04240,
    RW,
    "8.2.3.22.8",
    reset=0x08010C0B,
    source="bit 3: klint, X550 has bits 4 to 9 too; bit 11: X550; RXLNGTHERREN: 8.2.3.22.8 and X550, klint has it not",
    TXCRCEN=0,
    RXCRCSTRP=1,
    JUMBOEN=2,
    TXPADEN=10,
    LPBK=15,
    MDCSPD=16,
    RXLNGTHERREN=27,
)
MSCA = register(
    "MSCA",
    0x0425C,
    RW,
    "8.2.3.22.11",
    writable=0x0FFFFFFF,
    ADDRESS=(0, 15),
    DEVICE=(16, 20),
    PORT=(21, 25),
    OPCODE=(26, 27),
    COMMAND=30,
)
MSRWD = register("MSRWD", 0x04260, RW, "8.2.3.22.12", WRITE=(0, 15), READ=(16, 31))
MFLCN = register("MFLCN", 0x04294, RW, "8.2.3.22.34", writable=0xF, PMCF=0, DPF=1, RPFCE=2, RFCE=3)
MAXFRS = register("MAXFRS", 0x04268, RW, "8.2.3.22.13", reset=1518 << 16, writable=0xFFFF0000, MFS=(16, 31))
AUTOC = register(
    "AUTOC",
    0x042A0,
    RW,
    "8.2.3.22.19",
    reset=3 << 13,
    writable=0xFFFFFFFF & ~(1 << 12),
    survives=Reset.SOFTWARE,
    source="the EEPROM of a card with SFP+",
    RESTART_AN=12,
    LMS=(13, 15),
)
LINKS = register("LINKS", 0x042A4, RO, "8.2.3.22.20", LINK_SPEED=(28, 29), LINK_UP=30)
AUTOC2 = register(
    "AUTOC2",
    0x042A8,
    RW,
    "8.2.3.22.22",
    reset=2 << 16,
    survives=Reset.SOFTWARE,
    source="the EEPROM of a card with SFP+",
    SERIAL_10G=(16, 17),
)
ANLP1 = register(
    "ANLP1", 0x042B0, RO, "8.2.3.22.24", reset=0x10000, source="Linux, which wants one not 0", AN_STATE=(16, 19)
)

# 8.2.3.23 Statistics
WITHOUT_CRC = "without frame check sequences while these are cut off: DPDK"
CRCERRS = register("CRCERRS", 0x04000, RC, "8.2.3.23", COUNT=(0, 31))
ILLERRC = register("ILLERRC", 0x04004, RC, "8.2.3.23", COUNT=(0, 31))
ERRBC = register("ERRBC", 0x04008, RC, "8.2.3.23", COUNT=(0, 31))
MSPDC = register("MSPDC", 0x04010, RC, "8.2.3.23", COUNT=(0, 31))
MLFC = register("MLFC", 0x04034, RC, "8.2.3.23", COUNT=(0, 31))
MRFC = register("MRFC", 0x04038, RC, "8.2.3.23", COUNT=(0, 31))
RLEC = register("RLEC", 0x04040, RC, "8.2.3.23", COUNT=(0, 31))
RXMPC = register("RXMPC", 0x03FA0, RC, "8.2.3.23", count=8, COUNT=(0, 31))
GPRC = register("GPRC", 0x04074, RC, "8.2.3.23.26", COUNT=(0, 31))
BPRC = register("BPRC", 0x04078, RC, "8.2.3.23", COUNT=(0, 31))
MPRC = register("MPRC", 0x0407C, RC, "8.2.3.23", COUNT=(0, 31))
GPTC = register("GPTC", 0x04080, RC, "8.2.3.23", COUNT=(0, 31))
GORCL = register("GORCL", 0x04088, RC, "8.2.3.23", source=WITHOUT_CRC, COUNT=(0, 31))
GORCH = register("GORCH", 0x0408C, RC, "8.2.3.23", COUNT=(0, 3))
GOTCL = register("GOTCL", 0x04090, RC, "8.2.3.23", COUNT=(0, 31))
GOTCH = register("GOTCH", 0x04094, RC, "8.2.3.23", COUNT=(0, 3))
RUC = register("RUC", 0x040A4, RC, "8.2.3.23", COUNT=(0, 31))
RFC = register("RFC", 0x040A8, RC, "8.2.3.23", COUNT=(0, 31))
ROC = register("ROC", 0x040AC, RC, "8.2.3.23", COUNT=(0, 31))
RJC = register("RJC", 0x040B0, RC, "8.2.3.23", COUNT=(0, 31))
TPR = register("TPR", 0x040D0, RC, "8.2.3.23.59", COUNT=(0, 31))
TPT = register("TPT", 0x040D4, RC, "8.2.3.23", COUNT=(0, 31))
TORL = register("TORL", 0x040C0, RC, "8.2.3.23", source="with all check sequences: DPDK", COUNT=(0, 31))
TORH = register("TORH", 0x040C4, RC, "8.2.3.23", COUNT=(0, 3))
MPTC = register("MPTC", 0x040F0, RC, "8.2.3.23", COUNT=(0, 31))
BPTC = register("BPTC", 0x040F4, RC, "8.2.3.23", COUNT=(0, 31))
PRC64 = register("PRC64", 0x0405C, RC, "8.2.3.23", count=6, COUNT=(0, 31))  # and PRC127 … PRC1522
PTC64 = register("PTC64", 0x040D8, RC, "8.2.3.23", count=6, COUNT=(0, 31))  # and PTC127 … PTC1522
XEC = register("XEC", 0x04120, RC, "8.2.3.23", COUNT=(0, 31))
MNGPRC = register("MNGPRC", 0x040B4, RC, "8.2.3.23", COUNT=(0, 31))
MNGPDC = register("MNGPDC", 0x040B8, RC, "8.2.3.23", COUNT=(0, 31))
MNGPTC = register("MNGPTC", 0x0CF90, RC, "8.2.3.23", COUNT=(0, 31))
PXONTXC = register("PXONTXC", 0x03F00, RC, "8.2.3.23", count=8, COUNT=(0, 15))
PXOFFTXC = register("PXOFFTXC", 0x03F20, RC, "8.2.3.23", count=8, COUNT=(0, 15))
PXONRXCNT = register("PXONRXCNT", 0x04140, RC, "8.2.3.23", count=8, COUNT=(0, 15))
PXOFFRXCNT = register("PXOFFRXCNT", 0x04160, RC, "8.2.3.23", count=8, COUNT=(0, 15))
LXONTXC = register("LXONTXC", 0x03F60, RC, "8.2.3.23", COUNT=(0, 15))
LXOFFTXC = register("LXOFFTXC", 0x03F68, RC, "8.2.3.23", COUNT=(0, 15))
LXONRXCNT = register("LXONRXCNT", 0x041A4, RC, "8.2.3.23", COUNT=(0, 15))
LXOFFRXCNT = register("LXOFFRXCNT", 0x041A8, RC, "8.2.3.23", COUNT=(0, 15))
RQSMR = register("RQSMR", 0x02300, RW, "8.2.3.23.71", count=32, MAP=(0, 31))
TQSM = register("TQSM", 0x08600, RW, "8.2.3.23.73", count=32, MAP=(0, 31))
QPRC = register("QPRC", 0x01030, RC, "8.2.3.23", stride=0x40, count=16, COUNT=(0, 31))
QPRDC = register("QPRDC", 0x01430, RC, "8.2.3.23.75", stride=0x40, count=16, COUNT=(0, 31))
QBRCL = register("QBRCL", 0x01034, RC, "8.2.3.23.74", stride=0x40, count=16, COUNT=(0, 31))
QBRCH = register("QBRCH", 0x01038, RC, "8.2.3.23", stride=0x40, count=16, COUNT=(0, 3))
QPTC = register("QPTC", 0x08680, RC, "8.2.3.23", stride=4, count=16, COUNT=(0, 31))
QBTCL = register("QBTCL", 0x08700, RC, "8.2.3.23", stride=8, count=16, COUNT=(0, 31))
QBTCH = register("QBTCH", 0x08704, RC, "8.2.3.23", stride=8, count=16, COUNT=(0, 3))

# 8.2.3.26 Time stamps
NEXT_STAMP = "lets the next packet be stamped"
TSYNCRXCTL = register("TSYNCRXCTL", 0x05188, RW, "8.2.3.26.1", writable=0x1E, RXTT=0, TYPE=(1, 3), EN=4)
RXSTMPL = register("RXSTMPL", 0x051E8, RO, "8.2.3.26.2", TIME=(0, 31))
RXSTMPH = register("RXSTMPH", 0x051A4, RO, "8.2.3.26.3", on_read=NEXT_STAMP, TIME=(0, 31))
RXSATRL = register("RXSATRL", 0x051A0, RO, "8.2.3.26.4", SOURCE_ID=(0, 31))
RXSATRH = register("RXSATRH", 0x051A8, RO, "8.2.3.26.5", SOURCE_ID=(0, 15), SEQUENCE_ID=(16, 31))
RXMTRL = register(
    "RXMTRL",
    0x05120,
    RW,
    "8.2.3.26.6",
    reset=319 << 16,
    source="the port of PTP's event messages (IEEE 1588)",
    CTRLT=(0, 7),
    MSGT=(8, 15),
    UDPT=(16, 31),
)
TSYNCTXCTL = register("TSYNCTXCTL", 0x08C00, RW, "8.2.3.26.7", writable=0x10, TXTT=0, EN=4)
TXSTMPL = register("TXSTMPL", 0x08C04, RO, "8.2.3.26.8", TIME=(0, 31))
TXSTMPH = register("TXSTMPH", 0x08C08, RO, "8.2.3.26.9", on_read=NEXT_STAMP, TIME=(0, 31))
SYSTIML = register("SYSTIML", 0x08C0C, RW, "8.2.3.26.10", on_read="holds SYSTIMH", TIME=(0, 31))
SYSTIMH = register("SYSTIMH", 0x08C10, RW, "8.2.3.26.11", TIME=(0, 31))
TIMINCA = register("TIMINCA", 0x08C14, RW, "8.2.3.26.12", IV=(0, 23), IP=(24, 31))
TIMADJL = register("TIMADJL", 0x08C18, RW, "8.2.3.26.13", OFFSET=(0, 31))
TIMADJH = register("TIMADJH", 0x08C1C, RW, "8.2.3.26.14", OFFSET=(0, 30), SIGN=31)
TSAUXC = register("TSAUXC", 0x08C20, RW, "8.2.3.26.15", EN_TT=(0, 1), EN_CLK=2, SYNCLK=3)
TRGTTIML = register("TRGTTIML", 0x08C24, RW, "8.2.3.26.16", stride=8, count=2, TIME=(0, 31))
TRGTTIMH = register("TRGTTIMH", 0x08C28, RW, "8.2.3.26.17", stride=8, count=2, TIME=(0, 31))

ROWS = tuple(row for row in tuple(vars().values()) if isinstance(row, Register))
"""All rows, in the order of the datasheet's sections."""

# Where else a register can be found: its first place, its distance from one to the next, and how many of them
ALIASES = (
    (CTRL, 0x00004, 4, 1),
    (RAL, 0x05400, 8, 16),
    (RAH, 0x05404, 8, 16),
    (SRRCTL, 0x02100, 4, 16),
    (DCA_RXCTRL, 0x02200, 4, 16),
    (PSRTYPE, 0x05480, 4, 16),
    (MRQC, 0x05818, 4, 1),
    (RETA, 0x05C00, 4, 32),
    (RSSRK, 0x05C80, 4, 10),
    (QPTC, 0x06030, 0x40, 16),
)  # TQSM's old place, 0x07300, is transmit queue 76's here

# Field values
# SW_FW_SYNC.SOFTWARE, and FIRMWARE: what is owned
SYNC_EEPROM, SYNC_PHY0, SYNC_PHY1, SYNC_MAC = 1 << 0, 1 << 1, 1 << 2, 1 << 3
# Words of the EEPROM with the id of its image, and a bit that says which of them is which: Linux (ixgbe_get_etk_id)
EEPROM_IMAGE, EEPROM_HIGH_FIRST = (0x2D, 0x2E), 0x8000
MDI_ADDRESS, MDI_WRITE, MDI_READ = 0, 1, 3  # MSCA.OPCODE
LMS_10G_SERIAL = 3  # AUTOC.LMS: 10 Gbit/s over SFI, no auto-negotiation of the mode
SERIAL_10G_SFI = 2  # AUTOC2.SERIAL_10G
STAMP_V2_PLAIN, STAMP_V1_UDP, STAMP_V2, STAMP_V2_EVENTS = 0, 1, 2, 5  # TSYNCRXCTL.TYPE: which messages of PTP
TFCE_LINK = 1  # FCCFG.TFCE: pause frames for the whole link (IEEE 802.3, annex 31B)
LINK_SPEEDS = {1: 100, 2: 1_000, 3: 10_000}  # LINKS.LINK_SPEED in Mbit/s
MRQE_RSS = 1  # MRQC.MRQE: receive-side scaling alone
MAXDESC_16 = 3  # RSCCTL.MAXDESC: a coalesced packet may have 16 descriptors
RSS_FIELDS = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7  # MRQC.FIELDS: TCP, UDP and IP, versions 4 and 6
# SRRCTL.DESCTYPE: legacy descriptors; advanced ones of one buffer, with headers split, with a header buffer always used
DESCTYPE_LEGACY, DESCTYPE_ADVANCED, DESCTYPE_SPLIT, DESCTYPE_SPLIT_ALWAYS = 0, 1, 2, 5

# Descriptors are 16 bytes: two 64-bit words, little-endian.
DESCRIPTOR_WORDS = 2
DESCRIPTOR_BYTES = 16

# 7.1.6.2 Advanced receive descriptor, write-back: bits of the first word
RX_HASH_SHIFT = 32  # RSS hash
RX_TYPE = 0x1FFF << 4  # packet type
RX_TYPE_IPV4, RX_TYPE_IPV6, RX_TYPE_TCP, RX_TYPE_UDP, RX_TYPE_SCTP = 1 << 4, 1 << 6, 1 << 8, 1 << 9, 1 << 10
RX_TYPE_IPV4E, RX_TYPE_IPV6E = 1 << 5, 1 << 7  # with IPv4 options, with IPv6 extension headers
RX_TYPE_ETQF, RX_TYPE_SHIFT = 1 << 15, 4  # instead: the number of the Ethertype filter that matches
RX_FRAGMENT_SHIFT = 48  # … or the sum of a fragment in its upper half
RX_SPH = 1 << 31  # the length of the headers was found,
RX_HDR_LEN_SHIFT = 21  # and is this, 10 bits
RX_RSCCNT_SHIFT = 17  # one more than the packets of a coalesced one that begin in its buffer, 4 bits; 0: it is not one
RX_RSS_TYPE = 0xF  # which fields of the packet were hashed, one of
RSS_TCP_IPV4, RSS_IPV4, RSS_TCP_IPV6, RSS_IPV6, RSS_UDP_IPV4, RSS_UDP_IPV6 = 1, 2, 3, 5, 7, 8
RSS_FLOW_DIRECTOR = 15  # … or that in the hash's place there is what the flow director says

# … bits of the second word
RX_DD = 1 << 0  # descriptor done
RX_EOP = 1 << 1  # last buffer of its packet
RX_FLM = 1 << 2  # the packet matches a flow director filter
RX_NEXTP_SHIFT = 4  # which descriptor follows, if it is not the last one, 16 bits
RX_VP = 1 << 3  # the packet had a VLAN tag
RX_UDPCS = 1 << 4  # UDP checksum checked
RX_L4CS = 1 << 5  # checksum of TCP, UDP or SCTP checked
RX_IPCS = 1 << 6  # IPv4 header checksum checked
RX_VEXT = 1 << 9  # the packet has an outer VLAN tag
RX_UDPV = 1 << 10  # the first fragment of a UDP datagram that has a checksum
RX_TS = 1 << 16  # the packet was stamped
RX_FDIR_LENGTH = 1 << 20  # the flow director's list is too long
RX_FDIR_DROP = 1 << 21  # … or else it would have dropped the packet
RX_FDIR_COLLISION = 1 << 22  # its filter was programmed twice
RX_HBO = 1 << 23  # the headers were longer than their buffer
RX_L4E = 1 << 30  # checksum of TCP, UDP or SCTP wrong
RX_IPE = 1 << 31  # IPv4 header checksum wrong
RX_LENGTH_SHIFT = 32  # PKT_LEN, 16 bits
RX_VLAN_SHIFT = 48  # VLAN tag, if it was stripped

# 7.1.5 Legacy receive descriptor, write-back: fields of the second word, of which the lowest is the length
RX_LEGACY_FRAGMENT_SHIFT = 16
RX_LEGACY_STATUS_SHIFT = 32  # the lowest byte of an advanced descriptor's status
RX_LEGACY_ERRORS_SHIFT = 40
RX_LEGACY_DD, RX_LEGACY_EOP = 1 << 32, 1 << 33

# 7.2.3.2.4 Advanced transmit data descriptor: bits of the second word
TX_LENGTH_MASK = 0xFFFF  # DTALEN
TX_TIMESTAMP = 1 << 19  # of MAC: stamp the packet
TX_DATA = 3 << 20  # DTYP: advanced data descriptor
TX_EOP = 1 << 24  # last buffer of its packet
TX_IFCS = 1 << 25  # insert the frame check sequence
TX_IC = 1 << 26  # legacy format: insert a checksum
TX_RS = 1 << 27  # report status: write DD back
TX_DEXT = 1 << 29  # descriptor extension: advanced format
TX_VLE = 1 << 30  # insert a VLAN tag
TX_TSE = 1 << 31  # segment a TCP packet
TX_DD = 1 << 32  # write-back, STA
TX_IDX = 1 << 36  # which of the queue's two contexts
TX_IXSM = 1 << 40  # insert the IPv4 header checksum
TX_TXSM = 1 << 41  # insert the TCP or UDP checksum
TX_PAYLEN_SHIFT = 46  # PAYLEN: length of the whole packet

# 7.2.3.2.2 Legacy transmit descriptor: fields of the second word
TX_CSO_SHIFT = 16  # where the checksum goes
TX_CSS_SHIFT = 40  # where its calculation starts
TX_VLAN_SHIFT = 48

# 7.2.3.2.3 Advanced transmit context descriptor: fields of the first word
CONTEXT_IPLEN_MASK = 0x1FF
CONTEXT_MACLEN_SHIFT = 9  # 7 bits
CONTEXT_VLAN_SHIFT = 16
# … of the second word
TX_CONTEXT = 2 << 20  # DTYP: advanced context descriptor
TX_DTYP = 15 << 20
CONTEXT_IPV4 = 1 << 10
CONTEXT_L4T_SHIFT = 11  # 2 bits
CONTEXT_L4LEN_SHIFT = 40
CONTEXT_MSS_SHIFT = 48
L4T_UDP, L4T_TCP, L4T_SCTP = 0, 1, 2
