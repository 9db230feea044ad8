"""What carries a VirtIO device: PCI, modern or legacy, vhost-user, or a model in the same process."""
