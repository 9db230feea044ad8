"""What can be plugged into a simulated card's port."""
