"""The three networks: segmenter, refinement (G1) and restoration (G2)."""
