"""A driver of the physical function of a simulated card, for whoever opens its virtual functions only.

It sets the card up, as a physical function's driver of an operating system does, and answers the mailboxes. It has no
queues of its own.
"""

from __future__ import annotations

from ixy.sim.physical.driver import Physical

__all__ = ["Physical"]
