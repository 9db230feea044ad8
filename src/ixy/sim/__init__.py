"""A model of Intel's 82599, and the wires that can be plugged into it.

The model stands on the other side of the bus: with the driver it shares the map of the registers, and DMA memory.
`rack.py` is its state, `card/` a card: the part that works on packets and the part that software talks to; `wires/` is
what is plugged into its port, a file for each. `loop.py` gives them their turns, in a thread of compiled code.
`machine.py` holds the cards together, and `qemu/` makes them PCI functions of a virtual machine.
"""
