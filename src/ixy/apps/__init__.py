"""What the commands do. An application knows devices, queues and packets, and no driver."""
