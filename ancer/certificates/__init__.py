"""What is proved of one image, and of many."""
