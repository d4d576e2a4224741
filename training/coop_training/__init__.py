"""Training, evaluation and export of cooperative segmentation and restoration networks."""
