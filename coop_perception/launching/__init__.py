"""What launch files start, and with which settings."""
