"""VirtIO network devices: on PCI, modern and legacy, and across vhost-user.

`features` says what is negotiated, `device` initialises and controls the device, and `control` sends it commands.
`rings/` lays the rings out in memory, and has the data path: `split` and `packed`. A device is reached through one of
`transports/`: `pci_modern`, `pci_legacy`, `vhost_user`, or `inprocess` for a model in the same process.
"""
