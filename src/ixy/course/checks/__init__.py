"""What judges the labs, a file each; `trials.py` runs them."""
