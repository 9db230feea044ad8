"""The driver of a kernel's interface by an AF_PACKET socket: packets are copied, and the kernel keeps its own."""
