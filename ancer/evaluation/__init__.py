"""How a network is run: one arithmetic, its identity, one image at a time."""
