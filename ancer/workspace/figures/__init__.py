"""The paper's figures from rows and theta."""
