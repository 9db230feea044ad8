"""Packets as lines of text, as tcpdump prints them with -n: word for word, so that who reads one reads the other.

`printer.Printer` is the way in. A protocol is a file with a function that prints it from a place in the packet on, and
calls the one of what it carries, by EtherType or protocol number (`line.ETHER_TYPES`, `line.PROTOCOLS`). A packet may
be cut anywhere, and its lengths may be wrong: each byte is read by way of `line.Line`, which knows where it ends.

Printed are Ethernet with VLAN tags, ARP, IPv4, IPv6 with its extension headers, ICMP, ICMPv6, TCP and UDP. What they
carry is not: it is printed as what tcpdump has no printer for.
"""

from ixy.dissect import arp, icmp, icmp6, ipv4, ipv6, tcp, udp

__all__ = ["arp", "icmp", "icmp6", "ipv4", "ipv6", "tcp", "udp"]  # each registers what it prints
