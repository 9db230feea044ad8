"""Formats of files and frames: pcap, and the frames that we make."""
