"""What a VirtIO network device and its driver share in memory and in registers.

Sections are those of the Virtual I/O Device specification, version 1.2. All fields are little-endian.
"""

from __future__ import annotations

# ---------------------------------------------------------------------------------------------------------------------
# Device status, 2.1

ACKNOWLEDGE = 1
DRIVER = 2
DRIVER_OK = 4
FEATURES_OK = 8
NEEDS_RESET = 64
FAILED = 128

# ---------------------------------------------------------------------------------------------------------------------
# Feature bits: 5.1.3 of the network device, 6 of the rings and transports, 5.1.3.2 and 6.3 of legacy devices

CSUM = 0
GUEST_CSUM = 1
CTRL_GUEST_OFFLOADS = 2
MTU = 3
MAC = 5
GSO = 6
GUEST_TSO4 = 7
GUEST_TSO6 = 8
GUEST_ECN = 9
GUEST_UFO = 10
HOST_TSO4 = 11
HOST_TSO6 = 12
HOST_ECN = 13
HOST_UFO = 14
MRG_RXBUF = 15
STATUS = 16
CTRL_VQ = 17
CTRL_RX = 18
CTRL_VLAN = 19
CTRL_RX_EXTRA = 20
GUEST_ANNOUNCE = 21
MQ = 22
CTRL_MAC_ADDR = 23
NOTIFY_ON_EMPTY = 24
ANY_LAYOUT = 27
INDIRECT_DESC = 28
EVENT_IDX = 29
VERSION_1 = 32
ACCESS_PLATFORM = 33
RING_PACKED = 34
IN_ORDER = 35
ORDER_PLATFORM = 36
SR_IOV = 37
NOTIFICATION_DATA = 38
NOTIF_CONFIG_DATA = 39
RING_RESET = 40
NOTF_COAL = 53
GUEST_USO4 = 54
GUEST_USO6 = 55
HOST_USO = 56
HASH_REPORT = 57
GUEST_HDRLEN = 59
RSS = 60
RSC_EXT = 61
STANDBY = 62
SPEED_DUPLEX = 63

# ---------------------------------------------------------------------------------------------------------------------
# Rings

DESCRIPTOR_BYTES = 16  # 2.7.5 and 2.8.13: two 64-bit words, the first of which is the buffer's address
MAX_RING_SIZE = 32768

# Split ring, 2.7. The second word of a descriptor is length, flags << 32, next << 48.
SPLIT_WRITE = 2 << 32  # the device writes the buffer
SPLIT_NEXT = 1 << 32
SPLIT_NEXT_SHIFT = 48
NO_INTERRUPT = 1  # 2.7.6: flags of the available ring
NO_NOTIFY = 1  # 2.7.8: flags of the used ring

# Packed ring, 2.8. The second word of a descriptor is length, id << 32, flags << 48; as a signed number.
PACKED_ID_SHIFT = 32
PACKED_NEXT = 1 << 48
PACKED_WRITE = 2 << 48
PACKED_AVAIL = 1 << 55
PACKED_USED = -(1 << 63)
# 2.8.14: event suppression, offset and wrap counter in one 16-bit field, then flags
EVENT_ENABLE = 0
EVENT_DISABLE = 1
EVENT_DESC = 2

# ---------------------------------------------------------------------------------------------------------------------
# The network device, 5.1

HEADER_BYTES = 12  # 5.1.6: before each frame
LEGACY_HEADER_BYTES = 10  # 5.1.6.1: without num_buffers, unless MRG_RXBUF is negotiated
HASH_HEADER_BYTES = 20  # with the hash, if HASH_REPORT is negotiated
# Offsets in the header; the hash and what it is of come behind
HEADER_FLAGS, GSO_TYPE, HEADER_LENGTH, GSO_SIZE, CSUM_START, CSUM_OFFSET = 0, 1, 2, 4, 6, 8
NUM_BUFFERS, HASH_VALUE, HASH_REPORTED = 10, 12, 16
NEEDS_CSUM, DATA_VALID = 1, 2  # bits of the header's first byte (5.1.6)
GSO_NONE, GSO_TCPV4, GSO_TCPV6 = 0, 1, 4  # what is to be cut, or was put together
GSO_ECN = 0x80  # besides: its TCP header has CWR (RFC 3168)
FRAMING = 22  # bytes of a frame besides the payload that an MTU counts: two addresses, two VLAN tags, a type

# 5.1.4: offsets of the device's configuration
CONFIG_MAC = 0
CONFIG_STATUS = 6
CONFIG_MAX_PAIRS = 8
CONFIG_MTU = 10
CONFIG_SPEED = 12
CONFIG_HASH_TYPES = 20
LINK_UP = 1  # in the status
MAX_PAIRS = 0x8000  # 5.1.4.1: of queues
UNKNOWN_SPEED = 0xFFFFFFFF
RSS_ENTRIES = 128  # 5.1.4.1: each device has room for a table of so many, and for a key of 40 bytes
HASH_TYPES = 0b111111  # 5.1.6.4.3.1: IPv4, IPv6, and TCP and UDP over either

# 5.1.6.5: control commands, class and command
CTRL_RX_PROMISC = (0, 0)
CTRL_MAC_TABLE_SET = (1, 0)
CTRL_MAC_ADDR_SET = (1, 1)
CTRL_VLAN_ADD = (2, 0)
CTRL_VLAN_DEL = (2, 1)
CTRL_MQ_PAIRS_SET = (4, 0)
CTRL_MQ_RSS_CONFIG = (4, 1)
CTRL_MQ_HASH_CONFIG = (4, 2)
CTRL_OK = 0

# ---------------------------------------------------------------------------------------------------------------------
# PCI, 4.1

VENDOR = 0x1AF4
TRANSITIONAL_NET = 0x1000
MODERN_NET = 0x1041

# 4.1.4: vendor-specific capabilities; offsets in such a capability, and its types
CAP_VENDOR = 0x09
CAP_TYPE, CAP_BAR, CAP_OFFSET, CAP_LENGTH, CAP_NOTIFY_MULTIPLIER = 3, 4, 8, 12, 16
CAP_COMMON, CAP_NOTIFY, CAP_ISR, CAP_DEVICE = 1, 2, 3, 4
NO_VECTOR = 0xFFFF
