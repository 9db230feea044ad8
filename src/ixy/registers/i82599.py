"""The registers and descriptors of Intel's 82599 that the driver or the simulated card uses.

Offsets, modes and sections are those of the Intel 82599 10 GbE Controller Datasheet, revision 3.3, chapter 8.2.3; the
descriptors are in chapter 7. X540 and X550 share what is here; `ixy.drivers.ixgbe.cards` says where they differ.
Registers of receive queues 64 to 127 lie elsewhere (0x0D000); nothing here uses them. Registers that the 82599 shows at
a second, older place too are in `ALIASES`.
"""

from ixy.registers import Mode, register

RO, RW, RC, RW1C, WO = Mode.RO, Mode.RW, Mode.RC, Mode.RW1C, Mode.WO

BAR0_SIZE = 0x20000
QUEUES = 64

# 8.2.3.1 General control
CTRL = register("CTRL", 0x00000, RW, "8.2.3.1.1", PCIE_MASTER_DISABLE=2, LRST=3, RST=26)
STATUS = register("STATUS", 0x00008, RO, "8.2.3.1.2", LAN_ID=(2, 3), LINKUP=7, PCIE_MASTER_ENABLE=19, reset=0x80000)
CTRL_EXT = register("CTRL_EXT", 0x00018, RW, "8.2.3.1.3", NS_DIS=16, DRV_LOAD=28)
I2CCTL = register("I2CCTL", 0x00028, RW, "8.2.3.1.6", CLK_IN=0, CLK_OUT=1, DATA_IN=2, DATA_OUT=3, reset=0xF)

# 8.2.3.2 EEPROM
EEC = register("EEC", 0x10010, RW, "8.2.3.2.1", EE_REQ=6, EE_GNT=7, EE_PRES=8, AUTO_RD=9, EE_SIZE=(11, 14))
EERD = register("EERD", 0x10014, RW, "8.2.3.2.2", START=0, DONE=1, ADDR=(2, 15), DATA=(16, 31))

# 8.2.3.3 Flow control
FCRTH = register("FCRTH", 0x03260, RW, "8.2.3.3.4", count=8, RTH=(5, 18), FCEN=31)

# 8.2.3.4 PCIe, semaphores between software and firmware
SWSM = register("SWSM", 0x10140, RW, "8.2.3.4", SMBI=0, SWESMBI=1)
FWSM = register("FWSM", 0x10148, RW, "8.2.3.4", FW_MODE=(1, 3), FW_VAL=15, reset=0x8000)
SW_FW_SYNC = register("SW_FW_SYNC", 0x10160, RW, "8.2.3.4.11", SOFTWARE=(0, 4), FIRMWARE=(5, 9))
GCR_EXT = register("GCR_EXT", 0x11050, RW, "8.2.3.4.12", BUFFERS_CLEAR=30)

# 8.2.3.5 Interrupts
EICR = register("EICR", 0x00800, RC, "8.2.3.5.1", QUEUES=(0, 15), LSC=20)
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
MTA = register("MTA", 0x05200, RW, "8.2.3.7.7", count=128, BITS=(0, 31))
MCSTCTRL = register("MCSTCTRL", 0x05090, RW, "8.2.3.7.2", MO=(0, 1), MFE=2)
RXCSUM = register("RXCSUM", 0x05000, RW, "8.2.3.7.5", IPPCSE=12, PCSD=13)
VLNCTRL = register("VLNCTRL", 0x05088, RW, "8.2.3.7.2", VET=(0, 15), VFE=30, reset=0x8100)
VFTA = register("VFTA", 0x0A000, RW, "8.2.3.7.11", count=128, BITS=(0, 31))
RAL = register("RAL", 0x0A200, RW, "8.2.3.7.8", stride=8, count=128, ADDRESS=(0, 31))
RAH = register("RAH", 0x0A204, RW, "8.2.3.7.9", stride=8, count=128, ADDRESS=(0, 15), AV=31)

FTQF = register("FTQF", 0x0E600, RW, "8.2.3.7.19", count=128, QUEUE_ENABLE=31)
MRQC = register("MRQC", 0x0EC80, RW, "8.2.3.7.12", MRQE=(0, 3), FIELDS=(16, 31))
RETA = register("RETA", 0x0EB00, RW, "8.2.3.7.14", count=32, ENTRIES=(0, 31))
ERETA = register("ERETA", 0x0EE80, RW, "X550: extended redirection table", count=96, ENTRIES=(0, 31))  # not on others
RSSRK = register("RSSRK", 0x0EB80, RW, "8.2.3.7.15", count=10, KEY=(0, 31))

# 8.2.3.8 Receive: DMA
RDBAL = register("RDBAL", 0x01000, RW, "8.2.3.8.1", stride=0x40, count=QUEUES, ADDRESS=(7, 31))
RDBAH = register("RDBAH", 0x01004, RW, "8.2.3.8.2", stride=0x40, count=QUEUES, ADDRESS=(0, 31))
RDLEN = register("RDLEN", 0x01008, RW, "8.2.3.8.3", stride=0x40, count=QUEUES, LEN=(0, 19))
RDH = register("RDH", 0x01010, RW, "8.2.3.8.4", stride=0x40, count=QUEUES, HEAD=(0, 15))
RDT = register("RDT", 0x01018, RW, "8.2.3.8.5", stride=0x40, count=QUEUES, TAIL=(0, 15))
RXDCTL = register("RXDCTL", 0x01028, RW, "8.2.3.8.6", stride=0x40, count=QUEUES, ENABLE=25, VME=30)
SRRCTL = register(
    "SRRCTL", 0x01014, RW, "8.2.3.8.7", stride=0x40, count=QUEUES, BSIZEPACKET=(0, 4), DESCTYPE=(25, 27), DROP_EN=28
)
RDRXCTL = register("RDRXCTL", 0x02F00, RW, "8.2.3.8.8", CRC_STRIP=1, DMAIDONE=3)
RXPBSIZE = register("RXPBSIZE", 0x03C00, RW, "8.2.3.8.9", count=8, SIZE=(10, 19))
RXCTRL = register("RXCTRL", 0x03000, RW, "8.2.3.8.10", RXEN=0)
DCA_RXCTRL = register("DCA_RXCTRL", 0x0100C, RW, "8.2.3.11.1", stride=0x40, count=QUEUES, MUST_BE_ZERO=12, reset=0x1000)

# 8.2.3.9 Transmit
DMATXCTL = register("DMATXCTL", 0x04A80, RW, "8.2.3.9.2", TE=0)
DTXMXSZRQ = register("DTXMXSZRQ", 0x08100, RW, "8.2.3.9.1", MAX_BYTES_NUM_REQ=(0, 11))
TDBAL = register("TDBAL", 0x06000, RW, "8.2.3.9.5", stride=0x40, count=QUEUES, ADDRESS=(7, 31))
TDBAH = register("TDBAH", 0x06004, RW, "8.2.3.9.6", stride=0x40, count=QUEUES, ADDRESS=(0, 31))
TDLEN = register("TDLEN", 0x06008, RW, "8.2.3.9.7", stride=0x40, count=QUEUES, LEN=(0, 19))
TDH = register("TDH", 0x06010, RW, "8.2.3.9.8", stride=0x40, count=QUEUES, HEAD=(0, 15))
TDT = register("TDT", 0x06018, RW, "8.2.3.9.9", stride=0x40, count=QUEUES, TAIL=(0, 15))
TXDCTL = register(
    "TXDCTL",
    0x06028,
    RW,
    "8.2.3.9.10",
    stride=0x40,
    count=QUEUES,
    PTHRESH=(0, 6),
    HTHRESH=(8, 14),
    WTHRESH=(16, 22),
    ENABLE=25,
    SWFLSH=26,
)
TXPBSIZE = register("TXPBSIZE", 0x0CC00, RW, "8.2.3.9.13", count=8, SIZE=(10, 19))
TXPBTHRESH = register("TXPBTHRESH", 0x04950, RW, "8.2.3.9.16", count=8, THRESH=(0, 9))
RTTDCS = register("RTTDCS", 0x04900, RW, "8.2.3.10.2", ARBDIS=6)

# 8.2.3.12 Security: the receive path passes through it even when it does nothing
SECRXCTRL = register("SECRXCTRL", 0x08D00, RW, "8.2.3.12.5", RX_DIS=1)
SECRXSTAT = register("SECRXSTAT", 0x08D04, RO, "8.2.3.12.6", SECRX_RDY=0, OFF=1)
SECTXSTAT = register("SECTXSTAT", 0x08804, RO, "8.2.3.12.2", SECTX_RDY=0, OFF=1, reset=3)

# 8.2.3.21 Flow director
FDIRCTRL = register("FDIRCTRL", 0x0EE00, RW, "8.2.3.21.1", PBALLOC=(0, 1), INIT_DONE=3)
FDIRCMD = register("FDIRCMD", 0x0EE2C, RW, "8.2.3.21.22", CMD=(0, 1))

# 8.2.3.22 MAC
HLREG0 = register("HLREG0", 0x04240, RW, "8.2.3.22.8", TXCRCEN=0, RXCRCSTRP=1, JUMBOEN=2, TXPADEN=10, LPBK=15)
MSCA = register(
    "MSCA",
    0x0425C,
    RW,
    "8.2.3.22.11",
    ADDRESS=(0, 15),
    DEVICE=(16, 20),
    PORT=(21, 25),
    OPCODE=(26, 27),
    COMMAND=30,
)
MSRWD = register("MSRWD", 0x04260, RW, "8.2.3.22.12", WRITE=(0, 15), READ=(16, 31))
MAXFRS = register("MAXFRS", 0x04268, RW, "8.2.3.22.13", MFS=(16, 31), reset=1518 << 16)
AUTOC = register("AUTOC", 0x042A0, RW, "8.2.3.22.19", RESTART_AN=12, LMS=(13, 15), reset=3 << 13)
LINKS = register("LINKS", 0x042A4, RO, "8.2.3.22.20", LINK_SPEED=(28, 29), LINK_UP=30)
AUTOC2 = register("AUTOC2", 0x042A8, RW, "8.2.3.22.22", SERIAL_10G=(16, 17), reset=2 << 16)

ANLP1 = register("ANLP1", 0x042B0, RO, "8.2.3.22.24", AN_STATE=(16, 19), reset=0x10000)

# 8.2.3.23 Statistics
CRCERRS = register("CRCERRS", 0x04000, RC, "8.2.3.23", COUNT=(0, 31))
ILLERRC = register("ILLERRC", 0x04004, RC, "8.2.3.23", COUNT=(0, 31))
ERRBC = register("ERRBC", 0x04008, RC, "8.2.3.23", COUNT=(0, 31))
RLEC = register("RLEC", 0x04040, RC, "8.2.3.23", COUNT=(0, 31))
RXMPC = register("RXMPC", 0x03FA0, RC, "8.2.3.23", count=8, COUNT=(0, 31))
GPRC = register("GPRC", 0x04074, RC, "8.2.3.23.26", COUNT=(0, 31))
BPRC = register("BPRC", 0x04078, RC, "8.2.3.23", COUNT=(0, 31))
MPRC = register("MPRC", 0x0407C, RC, "8.2.3.23", COUNT=(0, 31))
GPTC = register("GPTC", 0x04080, RC, "8.2.3.23", COUNT=(0, 31))
GORCL = register("GORCL", 0x04088, RC, "8.2.3.23", COUNT=(0, 31))
GORCH = register("GORCH", 0x0408C, RC, "8.2.3.23", COUNT=(0, 3))
GOTCL = register("GOTCL", 0x04090, RC, "8.2.3.23", COUNT=(0, 31))
GOTCH = register("GOTCH", 0x04094, RC, "8.2.3.23", COUNT=(0, 3))
RUC = register("RUC", 0x040A4, RC, "8.2.3.23", COUNT=(0, 31))
RFC = register("RFC", 0x040A8, RC, "8.2.3.23", COUNT=(0, 31))
ROC = register("ROC", 0x040AC, RC, "8.2.3.23", COUNT=(0, 31))
RJC = register("RJC", 0x040B0, RC, "8.2.3.23", COUNT=(0, 31))
TPR = register("TPR", 0x040D0, RC, "8.2.3.23.59", COUNT=(0, 31))
TPT = register("TPT", 0x040D4, RC, "8.2.3.23", COUNT=(0, 31))
TORL = register("TORL", 0x040C0, RC, "8.2.3.23", COUNT=(0, 31))
TORH = register("TORH", 0x040C4, RC, "8.2.3.23", COUNT=(0, 3))
MPTC = register("MPTC", 0x040F0, RC, "8.2.3.23", COUNT=(0, 31))
BPTC = register("BPTC", 0x040F4, RC, "8.2.3.23", COUNT=(0, 31))
PRC64 = register("PRC64", 0x0405C, RC, "8.2.3.23", count=6, COUNT=(0, 31))  # and PRC127 … PRC1522
PTC64 = register("PTC64", 0x040D8, RC, "8.2.3.23", count=6, COUNT=(0, 31))  # and PTC127 … PTC1522
RQSMR = register("RQSMR", 0x02300, RW, "8.2.3.23.71", count=32, MAP=(0, 31))
TQSM = register("TQSM", 0x08600, RW, "8.2.3.23.73", count=32, MAP=(0, 31))
QPRC = register("QPRC", 0x01030, RC, "8.2.3.23", stride=0x40, count=16, COUNT=(0, 31))
QPRDC = register("QPRDC", 0x01430, RC, "8.2.3.23.75", stride=0x40, count=16, COUNT=(0, 31))
QBRCL = register("QBRCL", 0x01034, RC, "8.2.3.23", stride=0x40, count=16, COUNT=(0, 31))
QBRCH = register("QBRCH", 0x01038, RC, "8.2.3.23", stride=0x40, count=16, COUNT=(0, 3))
QPTC = register("QPTC", 0x08680, RC, "8.2.3.23", stride=4, count=16, COUNT=(0, 31))
QBTCL = register("QBTCL", 0x08700, RC, "8.2.3.23", stride=8, count=16, COUNT=(0, 31))
QBTCH = register("QBTCH", 0x08704, RC, "8.2.3.23", stride=8, count=16, COUNT=(0, 3))

# Where else a register can be found: its first place, its distance from one to the next, and how many of them
ALIASES = (
    (RAL, 0x05400, 8, 16),
    (RAH, 0x05404, 8, 16),
    (SRRCTL, 0x02100, 4, 16),
    (DCA_RXCTRL, 0x02200, 4, 16),
    (MRQC, 0x05818, 4, 1),
    (RETA, 0x05C00, 4, 32),
    (RSSRK, 0x05C80, 4, 10),
    (QPTC, 0x06030, 0x40, 16),
    (TQSM, 0x07300, 4, 8),
)

# Field values
SYNC_PHY0, SYNC_PHY1, SYNC_MAC = 1 << 1, 1 << 2, 1 << 3  # SW_FW_SYNC.SOFTWARE, and FIRMWARE: what is owned
MDI_ADDRESS, MDI_WRITE, MDI_READ = 0, 1, 3  # MSCA.OPCODE
LMS_10G_SERIAL = 3  # AUTOC.LMS: 10 Gbit/s over SFI, no auto-negotiation of the mode
SERIAL_10G_SFI = 2  # AUTOC2.SERIAL_10G
LINK_SPEEDS = {1: 100, 2: 1_000, 3: 10_000}  # LINKS.LINK_SPEED in Mbit/s
MRQE_RSS = 1  # MRQC.MRQE: receive-side scaling alone
RSS_FIELDS = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7  # MRQC.FIELDS: TCP, UDP and IP, versions 4 and 6
DESCTYPE_ADVANCED = 1  # SRRCTL.DESCTYPE: advanced descriptors, one buffer

# Descriptors are 16 bytes: two 64-bit words, little-endian.
DESCRIPTOR_WORDS = 2
DESCRIPTOR_BYTES = 16

# 7.1.6.2 Advanced receive descriptor, write-back: bits of the first word
RX_HASH_SHIFT = 32  # RSS hash
RX_TYPE_IPV4, RX_TYPE_IPV6, RX_TYPE_TCP, RX_TYPE_UDP = 1 << 4, 1 << 6, 1 << 8, 1 << 9  # packet type
RX_RSS_TYPE = 0xF  # which fields of the packet were hashed, one of
RSS_TCP_IPV4, RSS_IPV4, RSS_TCP_IPV6, RSS_IPV6, RSS_UDP_IPV4, RSS_UDP_IPV6 = 1, 2, 3, 5, 7, 8

# … bits of the second word
RX_DD = 1 << 0  # descriptor done
RX_EOP = 1 << 1  # last buffer of its packet
RX_VP = 1 << 3  # the packet had a VLAN tag
RX_UDPCS = 1 << 4  # UDP checksum checked
RX_L4CS = 1 << 5  # TCP or UDP checksum checked
RX_IPCS = 1 << 6  # IPv4 header checksum checked
RX_L4E = 1 << 30  # TCP or UDP checksum wrong
RX_IPE = 1 << 31  # IPv4 header checksum wrong
RX_LENGTH_SHIFT = 32  # PKT_LEN, 16 bits
RX_VLAN_SHIFT = 48  # VLAN tag, if it was stripped

# 7.2.3.2.4 Advanced transmit data descriptor: bits of the second word
TX_LENGTH_MASK = 0xFFFF  # DTALEN
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
