"""What can be plugged into a simulated card's port, a file for each; `kinds.py` lists them."""
