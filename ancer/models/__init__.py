"""Networks, and their checkpoints: ours, and those that others published."""
