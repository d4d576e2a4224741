"""The backends there are."""

from __future__ import annotations

from collections.abc import Mapping

AUTO = "auto"
BACKENDS: Mapping[str, tuple[str, ...]] = {
    "tensorrt": ("fp16", "fp32", "int8"),
    "tensorrt_rtx": ("fp16", "fp32"),  # its INT8 convolutions give FP32, and are slower than those in FP16
    "openvino": ("fp32", "bf16", "int8"),
    "onnxruntime": ("fp32", "int8"),
}
"""By their Python modules, the best first, and the precisions that each has; its first one is what AUTO means there."""
TENSORRT = ("tensorrt", "tensorrt_rtx")
ON_CPU = tuple(backend for backend in BACKENDS if backend not in TENSORRT)
PRECISIONS = tuple(dict.fromkeys(precision for precisions in BACKENDS.values() for precision in precisions))
PACKAGES: Mapping[str, str] = {
    "tensorrt": "tensorrt (10.3 or later; JetPack has it) 'cuda-bindings>=12.9.1'",
    "tensorrt_rtx": "tensorrt-rtx-cu13 'cuda-bindings>=12.9.1'",
    "openvino": "openvino",
    "onnxruntime": "onnxruntime",
}
"""What to install."""
INT8_SCHEME = "unsigned activations, 7-bit weights, of dense convolutions"
"""How INT8 files for CPUs are quantised. Processors without VNNI add two products of 8 bits in 16, which overflow: with
8-bit weights 11 to 14 % of a mask's pixels were wrong there. Those of 7 bits cannot, whatever runs the file."""
MAX_BATCH = 4
"""Frames that an engine is built for, unless more are asked for."""
