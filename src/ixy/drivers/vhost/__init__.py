"""The device's end of vhost-user: another process, as a virtual machine, has a VirtIO network device, and we are it.

`server` waits at a socket for a front end and hears what it says, `memory` maps the memory that it shares. The rings
lie there. `datapath` has the kernels that copy packets between it and our buffers, whichever kind of ring there is, and
`split` and `packed` are what the two kinds differ in. `device` is the driver that an application sees.
"""
