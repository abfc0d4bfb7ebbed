"""The explorer: images, regions and perturbations to be moved by hand."""
