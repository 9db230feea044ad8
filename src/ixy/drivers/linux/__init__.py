"""What drivers of the kernel's network interfaces share."""
