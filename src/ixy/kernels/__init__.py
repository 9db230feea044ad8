"""Functions of the user's on their way into the data path: what they may be, and how they are compiled."""
