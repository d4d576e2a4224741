"""A model: its bundle on disk, and frames through its networks."""
