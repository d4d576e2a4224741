"""Training, evaluation and export of cooperative segmentation and restoration networks."""

import coop_perception  # noqa: F401 (first: it decides on ONNX Runtime's telemetry, see there)
