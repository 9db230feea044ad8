"""The simulated 82599: what software sees of it, and what it does with packets."""
