"""Captures as arrays: the headers of all packets of a file, a column a field, for NumPy and Arrow."""
