"""What a run has finished, kept on disk so that a kill loses nothing."""
