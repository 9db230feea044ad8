"""Memory for packets and rings: DMA memory, mempools, batches."""
