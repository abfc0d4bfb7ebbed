"""Data sets by name or path: one split as a tensor of images in [0, 1], labels and numbers."""
