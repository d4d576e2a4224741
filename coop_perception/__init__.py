"""Cooperative semantic segmentation and image restoration for cameras in adverse conditions: the vehicle's side."""

import os

# ONNX Runtime decides when it is imported, which nothing does before this: with telemetry it would leave a device's id
# and a database of events below the home directory, and send them.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
