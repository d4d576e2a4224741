"""A bundle's graphs in the precision that engines are built in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from coop_perception.contracts import Bundle, HalfGraph
from coop_perception.engines import EngineError
from coop_perception.engines.calibration import CalibrationFrames, calibration_frames, network_feeds
from coop_perception.engines.frame_pass import Feed

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Graph:
    """A network's serialised ONNX model."""

    data: bytes
    kept: int | None = None
    """Nodes that compute in float32 among float16 ones; None where nothing is float16."""


class Graphs:
    """A bundle's graphs in one precision: as the bundle has them, else converted when they are first asked for.

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

    def source(self, name: str) -> tuple[Path, str]:
        """The bundle's file that a network's graph is made of, and its sha256."""
        network = self.bundle.networks[name]
        half = self._stored(name)
        return (network.path, network.sha256) if half is None else (half.path, half.sha256)

    def rests_on(self, name: str) -> str | None:
        """What a network's precision was chosen by here; None where nothing was."""
        return None if self.precision == "fp32" or self._stored(name) is not None else self.frames.source

    def graph(self, name: str) -> Graph:
        """A network in the precision.

        Raises:
            DatasetError: as `frames`.
            EngineError: the conversion needs the package onnx, which is missing, or does not take the graph; or one of
                the bundle's graphs does not run.
        """
        if name not in self._converted:
            path, half = self.bundle.networks[name].path, self._stored(name)
            if half is not None:
                self._converted[name] = Graph(half.path.read_bytes(), half.float32_nodes)
            elif self.precision == "fp32":
                self._converted[name] = Graph(path.read_bytes())
            else:
                self._converted[name] = self._convert(path, self._feeds[name])
        return self._converted[name]

    def on_a_cpu(self, name: str) -> bytes:
        """A network in the precision as ONNX Runtime's CPU runs it truly, serialised.

        Raises:
            DatasetError, EngineError: as `graph`; or there is no package onnx.
        """
        data = self.graph(name).data
        if self.precision == "fp32" or not self._for_tensorrt:
            return data
        with _needs_onnx(self.precision):
            import onnx

            from coop_perception.engines.half import rounded
        serialised: bytes = rounded(onnx.load_from_string(data)).SerializeToString()
        return serialised

    def _stored(self, name: str) -> HalfGraph | None:
        """The bundle's own FP16 graph, where it is what is wanted: not by images of a user's."""
        wanted = self.precision == "fp16" and self._for_tensorrt and self._images is None
        return self.bundle.networks[name].half if wanted else None

    @cached_property
    def _feeds(self) -> dict[str, list[Feed]]:
        return network_feeds(self.bundle, self.frames.calibrating)

    def _convert(self, path: Path, feeds: Sequence[Feed]) -> Graph:
        with _needs_onnx(self.precision):
            from coop_perception.engines.half import beyond_half, to_half
            from coop_perception.engines.int8 import quantize
            from coop_perception.engines.onnx_graphs import load_graph
        try:
            model = load_graph(path)
            # Every second frame: each condition at its strongest, or half of the images.
            kept = beyond_half(model, feeds[::2]) if self._for_tensorrt else set()
            if self.precision == "int8":
                model = quantize(model, feeds, symmetric=self._for_tensorrt)
            if not self._for_tensorrt:
                return Graph(model.SerializeToString())
            model, full = to_half(model, kept)
            return Graph(model.SerializeToString(), full)
        except Exception as error:  # those of onnx and ONNX Runtime share no public base class
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise EngineError(f"{path}: cannot be converted to {self.precision}: {reason[0]}") from error


@contextmanager
def _needs_onnx(precision: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise EngineError(
            f"precision {precision} needs the Python package onnx: {error}; pip install onnx, or build the engines "
            "elsewhere"
        ) from error
