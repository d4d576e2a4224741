"""A segmenter that exists already, any ONNX file, put to use by a description of it instead of code."""

from coop_training.adapters.description import Adapter, AdapterError, load_adapter
from coop_training.adapters.onnx_segmenter import OnnxSegmenter

__all__ = ["Adapter", "AdapterError", "OnnxSegmenter", "load_adapter"]
