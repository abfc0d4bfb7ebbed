"""Commands of the command line that need no profile."""
