"""Bounds on the probabilities of classes from votes, and when they are looked at."""
