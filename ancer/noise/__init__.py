"""Noise laws: Gaussian for l2, uniform and splitting for l1."""
