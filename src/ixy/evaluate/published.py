"""Figures that others published, to stand beside those of the machine at hand."""

from __future__ import annotations

THESIS = "S. Ellmann, Writing Network Drivers in Rust (2018)"
LANGUAGES = "P. Emmerich et al., The Case for Writing Network Drivers in High-Level Programming Languages (ANCS 2019)"

# Forwarding 64-byte packets both ways between two 82599 ports, one byte touched, on one core of a Xeon E3-1230 v2 at
# 3.3 GHz; Mpps by batch size, of 29.76 that the wires carry.
BATCHES = (1, 8, 32, 256)
MPPS = {
    "C": (8.33, 26.0, 27.4, 27.4),
    "Rust": (5.9, 23.4, 27.6, 27.4),
    "Go": (3.3, 15.0, 20.6, 24.8),
    "C#": (2.5, 14.3, 23.0, 27.0),
    "Java": (5.1, 11.4, 12.3, 12.7),
    "OCaml": (3.26, 9.4, 10.9, 11.4),
    "Haskell": (4.0, 8.4, 9.6, 9.8),
    "Swift": (1.7, 4.1, 4.8, 5.1),
    "JavaScript": (2.11, 4.2, 4.95, 4.9),
    "Python (ixy.py)": (0.08, 0.12, 0.14, 0.16),
}

# Latency of forwarding 1 Mpps, in µs.
PERCENTILES = ("p50", "p99", "p99.99", "max")
LATENCY = {
    "C": (3.8, 3.9, 5.6, 23.0),
    "Rust": (3.7, 4.0, 5.7, 24.0),
    "Go": (3.9, 4.2, 6.5, 30.0),
    "C#": (4.0, 10.4, 32.0, 68.0),
    "JavaScript": (5.0, 116.0, 262.0, 359.0),
}

# Table 6.1 of the thesis: cycles per packet at batch size 32 and 1.6 GHz, by perf: receive, transmit, forwarding,
# memory management.
PROFILE = {"Rust (thesis)": (43.8, 33.5, 21.3, 7.0), "C (thesis)": (39.8, 16.9, 22.0, 21.0)}

# Table 6.2 of the thesis: speed, lines of code, lines of unsafe code.
UNSAFE = {
    "ixy.rs (thesis)": ("10 Gbit/s", 1306, 125),
    "e1000 (Redox, thesis)": ("1 Gbit/s", 393, 140),
    "rtl8168 (Redox, thesis)": ("1 Gbit/s", 362, 144),
}
