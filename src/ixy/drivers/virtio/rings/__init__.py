"""The two kinds of rings that a VirtIO device has, and what their drivers share."""
