"""What happens to pictures, and how far a region covers it."""
