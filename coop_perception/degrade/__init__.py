"""The degrade node: clean camera images in, adverse ones out."""
