"""A UNIX socket by which a process tells of the devices that it has open, in the conventions of DPDK's telemetry.

A client that was made for DPDK, version 2 of its telemetry, reads it: `dpdk-telemetry.py -f ixy.4711`. `server.py` is
the socket, `commands.py` what can be asked; `places.py` is where sockets lie, and `client.py` asks them.

Source: The DPDK project, Programmer's Guide, "Telemetry Library", and lib/telemetry.
"""
