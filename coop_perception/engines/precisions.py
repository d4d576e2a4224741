"""A bundle's graphs in the precision that engines are built in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from coop_perception.contracts import Bundle
from coop_perception.engines import EngineError
from coop_perception.engines.calibration import CalibrationFrames, calibration_frames, network_feeds
from coop_perception.engines.frame_pass import Feed

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Graph:
    """A network's serialised ONNX model, and the same as ONNX Runtime's CPU runs it truly."""

    data: bytes
    shown: bytes
    kept: int | None = None
    """Nodes that compute in float32 among float16 ones; None where nothing is float16."""


class Graphs:
    """A bundle's graphs in one precision, each converted when it is first asked for.

    Args:
        bundle: checked.
        precision: one of PRECISIONS.
        for_tensorrt: INT8 as TensorRT takes it, the rest of such graphs FP16; otherwise as CPUs run it fast.
        images: folder to calibrate on; None: sample drives.
    """

    def __init__(self, bundle: Bundle, precision: str, for_tensorrt: bool, images: Path | None = None) -> None:
        self.bundle = bundle
        self.precision = precision
        self._for_tensorrt = for_tensorrt
        self._images = images
        self._converted: dict[str, Graph] = {}

    @cached_property
    def frames(self) -> CalibrationFrames:
        """What the precision is calibrated on and checked with.

        Raises:
            DatasetError: there are no images in the folder, or one cannot be read.
        """
        return calibration_frames(self._images)

    @property
    def calibration(self) -> str | None:
        """What the precision has to rest on; None where that does not matter, or any will do."""
        return self.frames.source if self.precision != "fp32" and self._images is not None else None

    def graph(self, name: str) -> Graph:
        """A network in the precision.

        Raises:
            DatasetError: as `frames`.
            EngineError: the conversion needs the package onnx, which is missing, or does not take the graph; or one of
                the bundle's graphs does not run.
        """
        if name not in self._converted:
            path = self.bundle.networks[name].path
            if self.precision == "fp32":
                self._converted[name] = Graph(path.read_bytes(), path.read_bytes())
            else:
                self._converted[name] = self._convert(path, self._feeds[name])
        return self._converted[name]

    @cached_property
    def _feeds(self) -> dict[str, list[Feed]]:
        return network_feeds(self.bundle, self.frames.calibrating)

    def _convert(self, path: Path, feeds: Sequence[Feed]) -> Graph:
        try:
            from coop_perception.engines.half import beyond_half, rounded, to_half
            from coop_perception.engines.int8 import quantize
            from coop_perception.engines.onnx_graphs import load_graph
        except ImportError as error:
            raise EngineError(
                f"precision {self.precision} needs the Python package onnx: {error}; pip install onnx, or build the "
                "engines elsewhere"
            ) from error
        try:
            model = load_graph(path)
            # Every second frame: each condition at its strongest, or half of the images.
            kept = beyond_half(model, feeds[::2]) if self._for_tensorrt else set()
            if self.precision == "int8":
                model = quantize(model, feeds, symmetric=self._for_tensorrt)
            if not self._for_tensorrt:
                return Graph(model.SerializeToString(), model.SerializeToString())
            model, full = to_half(model, kept)
            return Graph(model.SerializeToString(), rounded(model).SerializeToString(), full)
        except Exception as error:  # those of onnx and ONNX Runtime share no public base class
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise EngineError(f"{path}: cannot be converted to {self.precision}: {reason[0]}") from error
