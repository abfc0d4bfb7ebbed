"""What each stage computes: one function a notebook calls, resumed where a killed run stopped."""
