"""Frames through segmenter, refinement and restoration. Knows no ROS; knows engines only by their interface."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.contracts import CONTRACTS, FUSED, STAGES, Bundle
from coop_perception.engines import Engine, Tensor, TensorSpec
from coop_perception.model.bundle import BundleError

OUTPUTS = ("mask_raw", "mask", "confidence", "restored", "condition")
_OF_REFINEMENT = ("mask", "confidence", "condition")
_BETWEEN = ("probabilities", "refined_probabilities")


def outputs_of(stages: Collection[str]) -> set[str]:
    """Which of OUTPUTS there are when only these stages are in use; see `Pipeline.run`."""
    without_restoration = {"mask_raw", "mask"} | (set(_OF_REFINEMENT) if "refinement" in stages else set())
    return without_restoration | ({"restored"} if "restoration" in stages else set())


class FrameError(ValueError):
    """A frame that the pipeline cannot take; the message says what was found and what is expected."""


@dataclass(slots=True)
class Result:
    """What the networks say of one frame, at the frame's own size; None where it was not wanted.

    mask_raw, mask uint8 [H,W] class ids; confidence uint8 [H,W], 255 = certain; restored uint8 [H,W,3] RGB; condition
    float32 [K] probabilities in the bundle's order; strength 0..1.
    """

    mask_raw: NDArray[np.uint8] | None = None
    mask: NDArray[np.uint8] | None = None
    confidence: NDArray[np.uint8] | None = None
    restored: NDArray[np.uint8] | None = None
    condition: NDArray[np.float32] | None = None
    strength: float | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)
    """Wall time of each network that ran, or of the fused one, for the whole batch this frame was in."""


Memory: TypeAlias = dict[tuple[str, int], Tensor]
"""Of what passes between engines, by output and batch size."""


@dataclass(slots=True)
class _Run:
    """A batch of `size` frames on its way: tensors by name, the memory it may use, and how long each network took."""

    size: int
    values: dict[str, Tensor]
    memory: Memory
    stages_ms: dict[str, float] = field(default_factory=dict)


class Pipeline:
    """The networks of a bundle, loaded. As many threads may use it at once as its engines allow.

    Args:
        bundle: checked manifest.
        engines: by network, of those in STAGES; with that of FUSED too, frames that need all three run through it.

    Raises:
        BundleError: a graph's tensors do not agree with the contract or with the bundle's classes or size.
    """

    def __init__(self, bundle: Bundle, engines: Mapping[str, Engine]) -> None:
        self.bundle = bundle
        self.engines = engines
        self._spare: list[Memory] = []
        for name, engine in engines.items():
            check_engine(bundle, name, engine)

    def warm_up(self, largest: int = 1) -> None:
        """Run every engine once, as the first run allocates memory; those on a GPU with each batch of up to `largest`
        frames, as they prepare for each of them."""
        on_gpu = any(engine.on_gpu for engine in self.engines.values())
        for size in range(1, largest + 1) if on_gpu else (1,):
            frames = np.zeros((size, self.bundle.height, self.bundle.width, 3), np.uint8)
            self.run(list(frames), OUTPUTS)
            if FUSED in self.engines:
                with self._begun(frames) as run:
                    self._staged(run, set(OUTPUTS), refine=True)
            for engine in self.engines.values():
                engine.prepare()

    def close(self) -> None:
        """Free the engines."""
        self._spare.clear()
        for engine in self.engines.values():
            engine.close()

    def run(
        self, frames: Sequence[NDArray[np.uint8]], wanted: Collection[str], stages: Collection[str] = STAGES
    ) -> list[Result]:
        """One batch through the networks that the wanted outputs need.

        Without refinement `mask` is `mask_raw`, there is neither confidence nor condition, and restoration is guided
        by the segmenter's own probabilities. Without restoration there is no restored frame.

        Args:
            frames: uint8 [H,W,3] RGB each, of any sizes.
            wanted: names out of OUTPUTS; those that the stages do not give are left out.
            stages: which of STAGES to use; the segmenter always is.

        Returns:
            One result per frame, in order.

        Raises:
            FrameError: a frame's type or shape is wrong.
            EngineError: a network failed.
        """
        wanted = {output for output in wanted if output in outputs_of(stages)}
        refine = "refinement" in stages and not wanted.isdisjoint(("restored", *_OF_REFINEMENT))
        batch = self._batch(frames)
        with self._begun(batch) as run:
            if FUSED in self.engines and refine and "restored" in wanted:
                self._stage(run, FUSED, self._given(FUSED, wanted))
            elif wanted:
                self._staged(run, wanted, refine)
            return [
                _result(frame, batch[index], index, run.values, run.stages_ms) for index, frame in enumerate(frames)
            ]

    @contextmanager
    def _begun(self, batch: NDArray[np.uint8]) -> Iterator[_Run]:
        """A batch's way through the networks, with memory that no other thread uses meanwhile."""
        try:
            memory = self._spare.pop()
        except IndexError:
            memory = {}
        try:
            yield _Run(len(batch), {"image": batch}, memory)
        finally:
            self._spare.append(memory)

    def _staged(self, run: _Run, wanted: set[str], refine: bool) -> None:
        values = run.values
        # Once for all three. A single network copies it as part of its run.
        values["image"] = self.engines["segmenter"].place("image", values["image"])
        restore = "restored" in wanted
        if refine:
            self._stage(run, "segmenter", [*self._given("segmenter", wanted), "probabilities"])
            outputs = self._given("refinement", wanted) + (["refined_probabilities"] if restore else [])
            self._stage(run, "refinement", outputs)
        else:
            outputs = ["mask_raw"] if not wanted.isdisjoint(("mask_raw", "mask")) else []
            outputs += ["probabilities"] if restore else []
            self._stage(run, "segmenter", outputs)
            if "mask" in wanted:
                values["mask"] = values["mask_raw"]
            if restore:
                values["refined_probabilities"] = values["probabilities"]
        if restore:
            self._stage(run, "restoration", ["restored"])

    def _given(self, network: str, wanted: set[str]) -> list[str]:
        """Which of a network's outputs serve the wanted ones."""
        asked = wanted | ({"strength"} if "condition" in wanted else set())
        return [output for output in CONTRACTS[network].outputs if output in asked]

    def _stage(self, run: _Run, name: str, outputs: Sequence[str]) -> None:
        begun = time.perf_counter()
        engine = self.engines[name]
        feeds = {key: run.values[key] for key in engine.inputs}
        run.values.update(engine.run(feeds, outputs, _between(run, engine, outputs)))
        run.stages_ms[name] = (time.perf_counter() - begun) * 1e3

    def _batch(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """uint8 [N,H,W,3] at the network's size; a single frame of that size is passed on without a copy."""
        size = (self.bundle.width, self.bundle.height)
        fitted = []
        for frame in frames:
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
                raise FrameError(f"frame is {frame.dtype} {frame.shape}, expected uint8 [H, W, 3] RGB")
            if frame.shape[1::-1] != size:
                shrinks = frame.shape[0] > size[1] or frame.shape[1] > size[0]
                interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
                frame = np.asarray(cv2.resize(frame, size, interpolation=interpolation), np.uint8)
            fitted.append(frame)
        return np.ascontiguousarray(fitted[0])[None] if len(fitted) == 1 else np.stack(fitted)


def _result(
    frame: NDArray[np.uint8],
    given: NDArray[np.uint8],
    index: int,
    values: Mapping[str, Tensor],
    stages_ms: dict[str, float],
) -> Result:
    """What the networks say of a frame, at its own size. `given`: the frame as they received it; `index`: its place in
    the batch."""
    size = (frame.shape[1], frame.shape[0])

    def at_own_size(name: str, interpolation: int) -> NDArray[np.uint8] | None:
        if name not in values:
            return None
        value = np.asarray(values[name][index], np.uint8)
        if value.shape[1::-1] == size:
            return value
        return np.asarray(cv2.resize(value, size, interpolation=interpolation), np.uint8)

    # INTER_NEAREST_EXACT maps pixel centres to pixel centres; INTER_NEAREST would shift masks by half a pixel.
    return Result(
        mask_raw=at_own_size("mask_raw", cv2.INTER_NEAREST_EXACT),
        mask=at_own_size("mask", cv2.INTER_NEAREST_EXACT),
        confidence=at_own_size("confidence", cv2.INTER_LINEAR),
        restored=changed(frame, given, np.asarray(values["restored"][index], np.uint8))
        if "restored" in values
        else None,
        condition=np.asarray(values["condition"][index], np.float32) if "condition" in values else None,
        strength=float(values["strength"][index]) if "strength" in values else None,
        stages_ms=stages_ms,
    )


def changed(frame: NDArray[np.uint8], given: NDArray[np.uint8], restored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame with the change that restoration made at the networks' size, scaled to the frame's: its detail stays, and
    a frame in which nothing was changed is itself, byte for byte.

    Args:
        frame: uint8 [H,W,3] RGB.
        given: uint8 [h,w,3], the frame as the networks received it.
        restored: uint8 [h,w,3], what they made of it.

    Returns:
        uint8 [H,W,3].
    """
    if restored.shape == frame.shape:
        return restored
    change = cv2.subtract(restored, given, dtype=cv2.CV_16S)
    larger = cv2.resize(change, (frame.shape[1], frame.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.add(frame, larger, dtype=cv2.CV_8U), np.uint8)


def _between(run: _Run, engine: Engine, outputs: Sequence[str]) -> dict[str, Tensor]:
    """Memory for what only other engines read, where its size is known: the same for each batch of that size."""
    between = [name for name in outputs if name in _BETWEEN and None not in engine.outputs[name].shape[1:]]
    for name in between:
        if (name, run.size) not in run.memory:
            run.memory[name, run.size] = engine.allocate(name, engine.outputs[name].sized(run.size))
    return {name: run.memory[name, run.size] for name in between}


def check_engine(bundle: Bundle, name: str, engine: Engine) -> None:
    """Compare a loaded graph's tensors with the contract, the bundle's classes, conditions and input size.

    Raises:
        BundleError: naming the file, the tensor, what was found and what is expected.
    """
    path = bundle.networks[name].path
    size, classes = (bundle.height, bundle.width), len(bundle.classes)
    expected: dict[str, tuple[type[np.generic], tuple[int | None, ...]]] = {
        "image": (np.uint8, (None, *size, 3)),
        "probabilities": (np.float32, (None, classes, None, None)),
        "refined_probabilities": (np.float32, (None, classes, None, None)),
        "mask_raw": (np.uint8, (None, *size)),
        "mask": (np.uint8, (None, *size)),
        "confidence": (np.uint8, (None, *size)),
        "restored": (np.uint8, (None, *size, 3)),
        "condition": (np.float32, (None, len(bundle.conditions))),
        "strength": (np.float32, (None,)),
    }
    contract = CONTRACTS[name]
    for side, names, specs in (("input", contract.inputs, engine.inputs), ("output", contract.outputs, engine.outputs)):
        missing = [tensor for tensor in names if tensor not in specs]
        if missing:
            raise BundleError(f"{path}: the {name} has no {side} {missing[0]!r}; its {side}s are {sorted(specs)}")
        unknown = sorted(set(specs) - set(names))
        if unknown and side == "input":
            raise BundleError(f"{path}: the {name} wants an input {unknown[0]!r}; expected {', '.join(names)} alone")
        for tensor in names:
            dtype, shape = expected[tensor]
            spec = specs[tensor]
            if spec.dtype != dtype or not _fits(spec, shape):
                raise BundleError(
                    f"{path}: {side} {tensor!r} is {spec.dtype} {_words(spec.shape)}, expected {np.dtype(dtype)} "
                    f"{_words(shape)} for {classes} classes, {len(bundle.conditions)} conditions and "
                    f"{size[1]}x{size[0]} input"
                )


def _fits(spec: TensorSpec, shape: tuple[int | None, ...]) -> bool:
    """Dimensions that either side leaves open agree with anything, but for the batch, which must be open."""
    if len(spec.shape) != len(shape) or spec.shape[0] is not None:
        return False
    return all(found is None or want is None or found == want for found, want in zip(spec.shape, shape, strict=True))


def _words(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("any" if d is None else str(d) for d in shape) + "]"
