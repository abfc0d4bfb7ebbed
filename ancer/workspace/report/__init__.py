"""The report: a profile's results as pages for a browser."""
