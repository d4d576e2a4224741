"""The perception node: camera images in, masks and restored images out."""
