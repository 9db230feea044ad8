"""Benchmarks: what the driver costs beside the same algorithm in C, and what rates it and plain Python reach."""
