"""Certified regions, their volume, and the memory that keeps their answers consistent."""
