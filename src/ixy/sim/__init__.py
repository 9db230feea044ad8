"""A model of Intel's 82599, and the wires that can be plugged into it.

The model stands on the other side of the bus: with the driver it shares the map of the registers and nothing else.
`rack.py` is its state, `nic.py` the part of a card that works on packets, `wires.py` what is plugged into its port:
these are kernels and run as a thread of compiled code. `card.py` is the part that software talks to, register by
register, in plain Python; `machine.py` holds the cards together.
"""
