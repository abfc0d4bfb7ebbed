"""The measures and tables of the rows, and how they are written."""
