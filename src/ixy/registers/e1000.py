"""The registers and descriptors of Intel's gigabit cards that the driver uses: of the 82574 and of the older 8254x.

Offsets, modes and sections are those of the Intel 82574 GbE Controller Family Datasheet, revision 3.4, chapter 10.2;
the descriptors are in chapter 7. Most registers are the same in the older cards, which the PCI/PCI-X Family of Gigabit
Ethernet Controllers Software Developer's Manual describes: general ones, receive and transmit in 13.4, filters in 13.5,
statistics in 13.7; the descriptors are in chapter 3. What only one of them has is in `ONLY_82574` or `ONLY_8254X`, and
a section that begins with SDM is that manual's. Where Linux (its e1000e driver) knows more, `source` says so.
"""

from functools import partial

from ixy.registers import Mode, Register, register

RO, RW, RC, RW1C, WO = Mode.RO, Mode.RW, Mode.RC, Mode.RW1C, Mode.WO

QUEUES = 2  # of an 82574; older cards have one
VECTORS = 5  # of MSI-X, on an 82574

_NEXT_QUEUE = 0x100
of_queue = partial(register, stride=_NEXT_QUEUE, count=QUEUES)

# 10.2.2 General control
CTRL = register(
    "CTRL",
    0x00000,
    RW,
    "10.2.2",
    FD=0,
    GIO_MASTER_DISABLE=2,
    ASDE=5,
    SLU=6,
    SPEED=(8, 9),
    FRCSPD=11,
    FRCDPLX=12,
    RST=26,
    RFCE=27,
    TFCE=28,
    VME=30,
    PHY_RST=31,
)
STATUS = register(
    "STATUS", 0x00008, RO, "10.2.2", FD=0, LU=1, LAN_ID=(2, 3), TXOFF=4, SPEED=(6, 7), GIO_MASTER_ENABLE=19
)
SPEEDS = (10, 100, 1000, 1000)  # Mbit/s, by STATUS.SPEED
EEC = register("EEC", 0x00010, RW, "10.2.2", EE_REQ=6, EE_GNT=7, EE_PRES=8, AUTO_RD=9)
EERD = register("EERD", 0x00014, RW, "10.2.2", START=0, DONE=1, ADDR=(2, 15), DATA=(16, 31))
EERD_8254X = register("EERD", 0x00014, RW, "SDM 13.4.4", START=0, DONE=4, ADDR=(8, 15), DATA=(16, 31))
CTRL_EXT = register(
    "CTRL_EXT",
    0x00018,
    RW,
    "10.2.2",
    source="Linux: bits 22 and 23",
    MUST_BE_ONE=22,
    MUST_BE_ZERO=23,
    EIAME=24,
    IAME=27,
    DRV_LOAD=28,
    PBA_SUPPORT=31,
)
MDIC = register(
    "MDIC", 0x00020, RW, "10.2.2", DATA=(0, 15), REGADD=(16, 20), PHYADD=(21, 25), OP=(26, 27), READY=28, ERROR=30
)
MDIC_WRITE, MDIC_READ = 1, 2
PHY = 1  # its address on the management bus
VET = register("VET", 0x00038, RW, "10.2.2", VET=(0, 15))
EXTCNF_CTRL = register("EXTCNF_CTRL", 0x00F00, RW, "10.2.2", MDIO_SW=5, MDIO_HW=6, MDIO_MNG=7)
LEDCTL = register("LEDCTL", 0x00E00, RW, "10.2.2")
PBA = register("PBA", 0x01000, RW, "10.2.2", RXA=(0, 15), TXA=(16, 31))

# The PHY's control register (IEEE 802.3, 22.2.4.1)
BMCR = 0
BMCR_RESTART, BMCR_POWER_DOWN, BMCR_AUTONEG = 1 << 9, 1 << 11, 1 << 12

# 10.2.3 PCI Express, semaphores
GCR = register("GCR", 0x05B00, RW, "10.2.3", source="Linux: bit 22", MUST_BE_ONE=22)
SWSM = register("SWSM", 0x05B50, RW, "10.2.3", on_read="takes the semaphore", SMBI=0, SWESMBI=1)
FWSM = register("FWSM", 0x05B54, RO, "10.2.3", FW_MODE=(1, 3), FW_VAL=15)
GCR2 = register("GCR2", 0x05B64, RW, "10.2.3", source="Linux: bit 0", MUST_BE_ONE=0)

# 10.2.4 Interrupts
causes = partial(register, TXDW=0, TXQE=1, LSC=2, RXDMT0=4, RXO=6, RXT0=7, RXQ0=20, RXQ1=21, TXQ0=22, TXQ1=23, OTHER=24)
CAUSE_RXT0, CAUSE_RXQ0 = 1 << 7, 1 << 20
ICR = causes("ICR", 0x000C0, RC, "10.2.4.1")
ITR = register("ITR", 0x000C4, RW, "10.2.4.2", INTERVAL=(0, 15))
EITR = register("EITR", 0x000E8, RW, "10.2.4.3", count=VECTORS, INTERVAL=(0, 15))
ICS = causes("ICS", 0x000C8, WO, "10.2.4.4")
IMS = causes("IMS", 0x000D0, RW, "10.2.4.5")
IMC = register("IMC", 0x000D8, WO, "10.2.4.6", MASK=(0, 31))
EIAC = register("EIAC", 0x000DC, RW, "10.2.4.7", AUTO_CLEAR=(20, 24))
IAM = register("IAM", 0x000E0, RW, "10.2.4.8", AUTO_MASK=(0, 31))
IVAR = register("IVAR", 0x000E4, RW, "10.2.4.9", RXQ0=(0, 3), RXQ1=(4, 7), TXQ0=(8, 11), TXQ1=(12, 15), OTHER=(16, 19))
IVAR_VALID = 8  # in each of the fields; else there is no interrupt

# 10.2.5 Receive
RCTL = register(
    "RCTL",
    0x00100,
    RW,
    "10.2.5",
    EN=1,
    SBP=2,
    UPE=3,
    MPE=4,
    LPE=5,
    LBM=(6, 7),
    RDMTS=(8, 9),
    DTYP=(10, 11),
    MO=(12, 13),
    BAM=15,
    BSIZE=(16, 17),
    VFE=18,
    BSEX=25,
    SECRC=26,
)
FCRTL = register("FCRTL", 0x02160, RW, "10.2.5", RTL=(3, 15), XONE=31)
FCRTH = register("FCRTH", 0x02168, RW, "10.2.5", RTH=(3, 15))
RDBAL = of_queue("RDBAL", 0x02800, RW, "10.2.5")
RDBAH = of_queue("RDBAH", 0x02804, RW, "10.2.5")
RDLEN = of_queue("RDLEN", 0x02808, RW, "10.2.5", LEN=(0, 19))
RDH = of_queue("RDH", 0x02810, RW, "10.2.5", HEAD=(0, 15))
RDT = of_queue("RDT", 0x02818, RW, "10.2.5", TAIL=(0, 15))
RDTR = register("RDTR", 0x02820, RW, "10.2.5", DELAY=(0, 15), FPD=31)
RXDCTL = of_queue("RXDCTL", 0x02828, RW, "10.2.5", PTHRESH=(0, 5), HTHRESH=(8, 13), WTHRESH=(16, 21), GRAN=24)
RADV = register("RADV", 0x0282C, RW, "10.2.5", DELAY=(0, 15))
RXCSUM = register("RXCSUM", 0x05000, RW, "10.2.5", PCSS=(0, 7), IPOFLD=8, TUOFLD=9, IPPCSE=12, PCSD=13)
RFCTL = register("RFCTL", 0x05008, RW, "10.2.5", NFSW_DIS=6, NFSR_DIS=7, IPV6_DIS=10, IPV6_XSUM_DIS=11, EXSTEN=15)
MTA = register("MTA", 0x05200, RW, "10.2.5", count=128)
RAL = register("RAL", 0x05400, RW, "10.2.5", stride=8, count=16, ADDRESS=(0, 31))
RAH = register("RAH", 0x05404, RW, "10.2.5", stride=8, count=16, ADDRESS=(0, 15), AV=31)
VFTA = register("VFTA", 0x05600, RW, "10.2.5", count=128)
MRQC = register("MRQC", 0x05818, RW, "10.2.5", MRQE=(0, 1), TCP_IPV4=16, IPV4=17, TCP_IPV6=18, IPV6_EX=19, IPV6=20)
MRQE_RSS = 1
RETA = register("RETA", 0x05C00, RW, "10.2.5", count=32)
RETA_ENTRIES = 4 * 32
RETA_QUEUE = 0x80  # in an entry: queue 1
RSSRK = register("RSSRK", 0x05C80, RW, "10.2.5", count=10)

# 10.2.6 Transmit
TCTL = register("TCTL", 0x00400, RW, "10.2.6", EN=1, PSP=3, CT=(4, 11), COLD=(12, 21), RTLC=24)
TIPG = register("TIPG", 0x00410, RW, "10.2.6", IPGT=(0, 9), IPGR1=(10, 19), IPGR2=(20, 29))
TDBAL = of_queue("TDBAL", 0x03800, RW, "10.2.6")
TDBAH = of_queue("TDBAH", 0x03804, RW, "10.2.6")
TDLEN = of_queue("TDLEN", 0x03808, RW, "10.2.6", LEN=(0, 19))
TDH = of_queue("TDH", 0x03810, RW, "10.2.6", HEAD=(0, 15))
TDT = of_queue("TDT", 0x03818, RW, "10.2.6", TAIL=(0, 15))
TIDV = register("TIDV", 0x03820, RW, "10.2.6", DELAY=(0, 15), FPD=31)
TXDCTL = of_queue(
    "TXDCTL",
    0x03828,
    RW,
    "10.2.6",
    source="Linux: bit 22, which an 82574 wants",
    PTHRESH=(0, 5),
    HTHRESH=(8, 13),
    WTHRESH=(16, 21),
    COUNT_DESC=22,
    GRAN=24,
)
TADV = register("TADV", 0x0382C, RW, "10.2.6", DELAY=(0, 15))
TARC = of_queue("TARC", 0x03840, RW, "10.2.6", source="Linux: bit 26", COUNT=(0, 6), ENABLE=10, MUST_BE_ONE=26)

# 10.2.7 Statistics
count_of = partial(register, mode=RC, section="10.2.7")
CRCERRS = count_of("CRCERRS", 0x04000)
ALGNERRC = count_of("ALGNERRC", 0x04004)
SYMERRS = register("SYMERRS", 0x04008, RC, "SDM 13.7.3")
RXERRC = count_of("RXERRC", 0x0400C)
MPC = count_of("MPC", 0x04010)
SCC = count_of("SCC", 0x04014)
ECOL = count_of("ECOL", 0x04018)
MCC = count_of("MCC", 0x0401C)
LATECOL = count_of("LATECOL", 0x04020)
COLC = count_of("COLC", 0x04028)
DC = count_of("DC", 0x04030)
TNCRS = count_of("TNCRS", 0x04034)
SEC = register("SEC", 0x04038, RC, "SDM 13.7.13")
CEXTERR = count_of("CEXTERR", 0x0403C)
RLEC = count_of("RLEC", 0x04040)
XONRXC = count_of("XONRXC", 0x04048)
XONTXC = count_of("XONTXC", 0x0404C)
XOFFRXC = count_of("XOFFRXC", 0x04050)
XOFFTXC = count_of("XOFFTXC", 0x04054)
FCRUC = count_of("FCRUC", 0x04058)
PRC = count_of("PRC", 0x0405C, count=6)  # by length
GPRC = count_of("GPRC", 0x04074)
BPRC = count_of("BPRC", 0x04078)
MPRC = count_of("MPRC", 0x0407C)
GPTC = count_of("GPTC", 0x04080)
GORCL = count_of("GORCL", 0x04088)
GORCH = count_of("GORCH", 0x0408C)
GOTCL = count_of("GOTCL", 0x04090)
GOTCH = count_of("GOTCH", 0x04094)
RNBC = count_of("RNBC", 0x040A0)
RUC = count_of("RUC", 0x040A4)
RFC = count_of("RFC", 0x040A8)
ROC = count_of("ROC", 0x040AC)
RJC = count_of("RJC", 0x040B0)
MGTPRC = count_of("MGTPRC", 0x040B4)
MGTPDC = count_of("MGTPDC", 0x040B8)
MGTPTC = count_of("MGTPTC", 0x040BC)
TORL = count_of("TORL", 0x040C0)
TORH = count_of("TORH", 0x040C4)
TOTL = count_of("TOTL", 0x040C8)
TOTH = count_of("TOTH", 0x040CC)
TPR = count_of("TPR", 0x040D0)
TPT = count_of("TPT", 0x040D4)
PTC = count_of("PTC", 0x040D8, count=6)
MPTC = count_of("MPTC", 0x040F0)
BPTC = count_of("BPTC", 0x040F4)
TSCTC = count_of("TSCTC", 0x040F8)
TSCTFC = count_of("TSCTFC", 0x040FC)
IAC = count_of("IAC", 0x04100)

EEPROM_MAC = 0  # the station's address, in three words (6.1; SDM 5.6.1)
EEPROM_VERSION = 5  # of the image, in a word (6.1)

# Descriptors are two words of 64 bits. Those for receiving begin with the buffer's address; the second word is the
# card's. An extended one (7.1.4) has there from bit 0 on status and errors, from bit 32 the length, from bit 48 the
# VLAN tag; a legacy one (7.1.3; SDM 3.2.3) the same fields elsewhere.
DESCRIPTOR_BYTES, DESCRIPTOR_WORDS = 16, 2
RX_DD, RX_EOP, RX_IXSM, RX_VP = 1 << 0, 1 << 1, 1 << 2, 1 << 3
RX_UDPCS, RX_TCPCS, RX_IPCS = 1 << 4, 1 << 5, 1 << 6
RX_TCPE, RX_IPE = 1 << 29, 1 << 30
RX_DAMAGED = 1 << 24 | 1 << 25 | 1 << 26 | 1 << 28 | 1 << 31  # CE, SE, SEQ, CXE, RXE: only where RCTL.SBP lets it in
RX_TYPE_SHIFT, RX_TYPE_MASK = 16, 0xF  # the kind of packet (7.1.4.2)
RX_TYPE_IPV4, RX_TYPE_IPV4_L4, RX_TYPE_IPV6, RX_TYPE_IPV6_L4 = 1, 2, 5, 6
RX_LENGTH_SHIFT, RX_VLAN_SHIFT = 32, 48
RX_RSS_TYPE, RX_HASH_SHIFT = 0xF, 32  # in an extended descriptor's first word, …
RX_RESERVED = 0xFFFFE0F0  # … where these bits are 0
RX_LEGACY_STATUS_SHIFT, RX_LEGACY_ERRORS_SHIFT, RX_ERRORS_SHIFT = 32, 40, 24

# Those for sending: a legacy one (7.2.10; SDM 3.3.3) has in its second word from bit 0 on the length, and commands; a
# data descriptor (SDM 3.3.7) besides what is to be done to the packet, by the context (SDM 3.3.6) that came before it.
TX_EOP, TX_IFCS, TX_RS, TX_DEXT, TX_VLE = 1 << 24, 1 << 25, 1 << 27, 1 << 29, 1 << 30
TX_DATA, TX_TSE = 1 << 20, 1 << 26
TX_DD = 1 << 32
TX_IXSM, TX_TXSM = 1 << 40, 1 << 41
TX_VLAN_SHIFT = 48
CONTEXT_IPCSO_SHIFT, CONTEXT_IPCSE_SHIFT = 8, 16  # where IP's checksum goes, and where its header ends, from bit 0 on
CONTEXT_TUCSS_SHIFT, CONTEXT_TUCSO_SHIFT = 32, 40  # where TCP or UDP begins, and where its checksum goes
CONTEXT_TCP, CONTEXT_IP = 1 << 24, 1 << 25
CONTEXT_HDRLEN_SHIFT, CONTEXT_MSS_SHIFT = 40, 48

_ROWS = [row for row in globals().values() if isinstance(row, Register)]
ONLY_82574 = [
    *(EERD, EXTCNF_CTRL, GCR, SWSM, FWSM, GCR2, EITR, EIAC, IAM, IVAR),
    *(RFCTL, MRQC, RETA, RSSRK, TARC),
]
ONLY_8254X = [EERD_8254X, SYMERRS, SEC]


def rows(*, newer: bool) -> list[Register]:
    """The registers that an 82574 has, if it is `newer`, or an older card; those of one queue, if that has but one."""
    absent = ONLY_8254X if newer else ONLY_82574
    return [
        row if newer or row.stride != _NEXT_QUEUE else row[0]
        for row in _ROWS
        if not any(row is other for other in absent)
    ]
