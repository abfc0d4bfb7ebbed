"""What params.yaml may hold, how it is read and checked, and the page that lists it."""
