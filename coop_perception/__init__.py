"""Cooperative semantic segmentation and image restoration for cameras in adverse conditions: the vehicle's side."""
