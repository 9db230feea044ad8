"""The simulated 82599: the other side of the bus."""
