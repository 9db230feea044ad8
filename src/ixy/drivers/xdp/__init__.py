"""The driver of a kernel's interface by AF_XDP: an XDP program takes packets from the kernel."""
