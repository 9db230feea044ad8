"""VirtIO network devices: on PCI, modern and legacy, and across vhost-user.

`features` says what is negotiated, `device` initialises and controls the device, `rings` lays the rings out in memory,
`split` and `packed` are the data path. A device is reached through a transport: `pci_modern`, `pci_legacy`,
`vhost_user`, or `inprocess` for a model in the same process.
"""
