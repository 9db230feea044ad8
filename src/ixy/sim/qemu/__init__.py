"""A simulated device as a PCI function of a virtual machine.

`Proxy` speaks to QEMU, `Endpoint` is the function's PCI side (configuration space, interrupts), `GuestMemory` is what
the device reads and writes by itself, `Qtest` is the way of its interrupts. The device proper is any `Device`.
"""
