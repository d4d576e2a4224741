"""Frames through segmenter, refinement and restoration. Knows no ROS; knows engines only by their interface."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.contracts import CONTRACTS, QUARTER, STAGES, Bundle, network_size
from coop_perception.engines import Engine, Tensor, TensorSpec, close_all
from coop_perception.model.bundle import BundleError
from coop_perception.model.conditions import Conditions
from coop_perception.views import scene_view, sensor_view

OUTPUTS = ("mask_raw", "mask", "confidence", "restored", "condition")
_OF_REFINEMENT = ("mask", "confidence", "condition")
_CONDITION = ("presence", "strength", "familiarity")
_BETWEEN = ("probabilities", "refined_probabilities")
_OF_THE_SCENE = ("image", "refined_probabilities")
MOST_SIZES = 64
"""Of frames, that are remembered."""
USUAL = ((480, 640), (720, 1280))
"""Heights and widths of frames for which engines are made ready before the first one comes."""

Decide: TypeAlias = Callable[[int, Conditions], Conditions | None]
"""What restoration is conditioned on, by a frame's number and its own estimate; None: the frame stays as it is. Asked
on the way, as what lies in a GPU's memory between the networks is there only until frames of another size come."""


def outputs_of(stages: Collection[str]) -> set[str]:
    """Which of OUTPUTS there are when only these stages are in use; see `Pipeline.run`."""
    if "refinement" not in stages:
        return {"mask_raw", "mask"}
    return {"mask_raw", *_OF_REFINEMENT, *(("restored",) if "restoration" in stages else ())}


class FrameError(ValueError):
    """A frame that the pipeline cannot take; the message says what was found and what is expected."""


@dataclass(slots=True)
class Result:
    """What the networks say of one frame, at the frame's own size; None where it was not wanted.

    mask_raw, mask uint8 [h,w] class ids; confidence uint8 [h,w], 255 = certain; restored uint8 [h,w,3] RGB.
    """

    mask_raw: NDArray[np.uint8] | None = None
    mask: NDArray[np.uint8] | None = None
    confidence: NDArray[np.uint8] | None = None
    restored: NDArray[np.uint8] | None = None
    condition: Conditions | None = None
    """As estimated of this frame."""
    used: Conditions | None = None
    """What restoration was conditioned on; None where it did not run for this frame."""
    stages_ms: dict[str, float] = field(default_factory=dict)
    """Wall time of each network that ran, for the whole batch this frame was in."""


@dataclass(slots=True)
class _Run:
    """A batch on its way, of frames of one size: the networks' image is `size`. Tensors by name, what is estimated of
    each frame, what its restoration is conditioned on, and how long each network took."""

    frames: Sequence[NDArray[np.uint8]]
    size: tuple[int, int]
    values: dict[str, Tensor] = field(default_factory=dict)
    conditions: list[Conditions] = field(default_factory=list)
    used: list[Conditions | None] = field(default_factory=list)
    restored: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    """By place in the batch."""
    stages_ms: dict[str, float] = field(default_factory=dict)


class Pipeline:
    """The networks of a bundle, loaded. As many threads may use it at once as its engines allow.

    Args:
        bundle: checked manifest.
        engines: by network, all of STAGES.

    Raises:
        BundleError: a graph's tensors do not agree with the contract or with the bundle's classes or sizes.
    """

    def __init__(self, bundle: Bundle, engines: Mapping[str, Engine]) -> None:
        self.bundle = bundle
        self.engines = engines
        self._met: set[tuple[tuple[int, ...], tuple[int, int]]] = set()
        """Shapes of frames, and sizes of the networks' image, that restoration has run for."""
        for name, engine in engines.items():
            check_engine(bundle, name, engine)

    def warm_up(self, largest: int = 1, network_height: int = 0) -> None:
        """Run every engine once, as the first run allocates memory; those on a GPU with each batch of up to `largest`
        frames of USUAL sizes, as they prepare for each of them: the largest first, which the others then fit in."""
        on_gpu = any(engine.on_gpu for engine in self.engines.values())
        for height, width in USUAL[::-1] if on_gpu else USUAL[:1]:
            for number in range(largest, 0, -1) if on_gpu else (1,):
                frames = np.zeros((number, height, width, 3), np.uint8)
                self.run(list(frames), OUTPUTS, network_height=network_height)
                for engine in self.engines.values():
                    engine.prepare()

    def close(self) -> None:
        """Free the engines. Raises EngineError as `close_all`."""
        close_all(self.engines)

    def run(
        self,
        frames: Sequence[NDArray[np.uint8]],
        wanted: Collection[str],
        stages: Collection[str] = STAGES,
        network_height: int = 0,
        decide: Decide | None = None,
    ) -> list[Result]:
        """Frames through the networks that the wanted outputs need; those of one size together, as one batch.

        Without refinement `mask` is `mask_raw`, and there is no more than that: restoration is conditioned on
        refinement's estimate.

        Args:
            frames: uint8 [h,w,3] RGB each, of any sizes.
            wanted: names out of OUTPUTS; those that the stages do not give are left out.
            stages: which of STAGES to use; the segmenter always is.
            network_height: of the networks' image, in pixels; 0: the bundle's.
            decide: is asked for each frame that is to be restored. Without it restoration is conditioned on the
                frame's own estimate.

        Returns:
            One result per frame, in order.

        Raises:
            FrameError: a frame's type or shape is wrong.
            EngineError: a network failed.
        """
        wanted = {output for output in wanted if output in outputs_of(stages)}
        refine = "refinement" in stages and not wanted.isdisjoint(("restored", *_OF_REFINEMENT))
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, frame in enumerate(frames):
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
                raise FrameError(f"frame is {frame.dtype} {frame.shape}, expected uint8 [H, W, 3] RGB")
            groups.setdefault(frame.shape, []).append(index)
        results: dict[int, Result] = {}
        for shape, members in groups.items():
            size = network_size(self.bundle.input, shape[0], shape[1], network_height)
            run = _Run([frames[index] for index in members], size)
            if wanted:
                self._segment(run, wanted, refine)
            if "restored" in wanted:
                self._restore(run, members, decide)
            results |= {index: _result(run, place, wanted) for place, index in enumerate(members)}
        return [results[index] for index in range(len(frames))]

    def _segment(self, run: _Run, wanted: set[str], refine: bool) -> None:
        image = _stacked([scene_view(frame, run.size) for frame in run.frames])
        # Once for all three.
        run.values["image"] = self.engines["segmenter"].place("image", image)
        if not refine:
            self._stage(run, "segmenter", ["mask_raw"])
            if "mask" in wanted:
                run.values["mask"] = run.values["mask_raw"]
            return
        self._stage(run, "segmenter", [*(["mask_raw"] if "mask_raw" in wanted else []), "probabilities"])
        run.values["sensor"] = _stacked([sensor_view(frame, self.bundle.input.sensor) for frame in run.frames])
        outputs = [output for output in CONTRACTS["refinement"].outputs if output in wanted]
        outputs += _CONDITION if not wanted.isdisjoint(("condition", "restored")) else ()
        outputs += ["refined_probabilities"] if "restored" in wanted else []
        self._stage(run, "refinement", outputs)
        if "presence" in run.values:
            presence, strength, familiarity = (np.asarray(run.values[name], np.float32) for name in _CONDITION)
            run.conditions = [
                Conditions(presence[place], strength[place], float(familiarity[place]))
                for place in range(len(run.frames))
            ]

    def _restore(self, run: _Run, members: Sequence[int], decide: Decide | None) -> None:
        """The frames of a batch that need it, and the first of any sizes: engines that prepare for these shall not do
        so when the weather changes."""
        own = run.conditions
        run.used = list(own) if decide is None else [decide(i, one) for i, one in zip(members, own, strict=True)]
        places = needing = [place for place, one in enumerate(run.used) if one is not None]
        sizes = (run.frames[0].shape, run.size)
        if not needing and sizes in self._met:
            return
        if len(self._met) >= MOST_SIZES:
            self._met.clear()
        self._met.add(sizes)
        on_host = all(isinstance(run.values[name], np.ndarray) for name in _OF_THE_SCENE)
        if not needing or not on_host:  # a batch in a GPU's memory stays together
            places = list(range(len(run.frames)))
        if len(places) < len(run.frames):
            run.values |= {name: run.values[name][places] for name in _OF_THE_SCENE}
        nothing = Conditions(np.zeros_like(own[0].presence), np.zeros_like(own[0].strength), 0.0)
        conditions = [run.used[place] or nothing for place in places]
        run.values |= {
            "frame": _stacked([run.frames[place] for place in places]),
            "presence": np.stack([one.presence for one in conditions]).astype(np.float32),
            "strength": np.stack([one.strength for one in conditions]).astype(np.float32),
            "familiarity": np.array([one.familiarity for one in conditions], np.float32),
        }
        self._stage(run, "restoration", ["restored"])
        if not needing:
            del run.stages_ms["restoration"]  # which was no frame's
            return
        restored = np.asarray(run.values["restored"], np.uint8)
        run.restored = {place: restored[row] for row, place in enumerate(places) if run.used[place] is not None}

    def _stage(self, run: _Run, name: str, outputs: Sequence[str]) -> None:
        begun = time.perf_counter()
        engine = self.engines[name]
        feeds = {key: run.values[key] for key in engine.inputs}
        run.values.update(engine.run(feeds, outputs, self._between(run, engine, outputs)))
        run.stages_ms[name] = (time.perf_counter() - begun) * 1e3

    def _between(self, run: _Run, engine: Engine, outputs: Sequence[str]) -> dict[str, Tensor]:
        """Memory for what only other engines read."""
        shape = (len(run.frames), len(self.bundle.classes), *(side // QUARTER for side in run.size))
        return {name: engine.allocate(name, shape) for name in outputs if name in _BETWEEN}


def _stacked(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """uint8 [N,...]; a single frame is passed on without a copy."""
    return np.ascontiguousarray(frames[0])[None] if len(frames) == 1 else np.stack(frames)


def _result(run: _Run, place: int, wanted: Collection[str]) -> Result:
    """What the networks say of the frame at this place in the batch, at its own size."""
    frame, values = run.frames[place], run.values
    size = (frame.shape[1], frame.shape[0])

    def at_own_size(name: str, interpolation: int) -> NDArray[np.uint8] | None:
        if name not in wanted:
            return None
        value = np.asarray(values[name][place], np.uint8)
        if value.shape[1::-1] == size:
            return value
        return np.asarray(cv2.resize(value, size, interpolation=interpolation), np.uint8)

    # INTER_NEAREST_EXACT maps pixel centres to pixel centres; INTER_NEAREST would shift masks by half a pixel.
    return Result(
        mask_raw=at_own_size("mask_raw", cv2.INTER_NEAREST_EXACT),
        mask=at_own_size("mask", cv2.INTER_NEAREST_EXACT),
        confidence=at_own_size("confidence", cv2.INTER_LINEAR),
        restored=run.restored.get(place, frame) if "restored" in wanted else None,
        condition=run.conditions[place] if "condition" in wanted else None,
        used=run.used[place] if run.used else None,
        stages_ms=run.stages_ms,
    )


def check_engine(bundle: Bundle, name: str, engine: Engine) -> None:
    """Compare a loaded graph's tensors with the contract and the bundle's classes, conditions and sizes.

    Raises:
        BundleError: naming the file, the tensor, what was found and what is expected.
    """
    path = bundle.networks[name].path
    classes, conditions, side = len(bundle.classes), len(bundle.conditions), bundle.input.sensor
    expected: dict[str, tuple[type[np.generic], tuple[int | None, ...]]] = {
        "image": (np.uint8, (None, None, None, 3)),
        "sensor": (np.uint8, (None, side, side, 3)),
        "frame": (np.uint8, (None, None, None, 3)),
        "probabilities": (np.float32, (None, classes, None, None)),
        "refined_probabilities": (np.float32, (None, classes, None, None)),
        "mask_raw": (np.uint8, (None, None, None)),
        "mask": (np.uint8, (None, None, None)),
        "confidence": (np.uint8, (None, None, None)),
        "presence": (np.float32, (None, conditions)),
        "strength": (np.float32, (None, conditions)),
        "familiarity": (np.float32, (None,)),
        "restored": (np.uint8, (None, None, None, 3)),
    }
    contract = CONTRACTS[name]
    for side_name, names, specs in (
        ("input", contract.inputs, engine.inputs),
        ("output", contract.outputs, engine.outputs),
    ):
        missing = [tensor for tensor in names if tensor not in specs]
        if missing:
            raise BundleError(
                f"{path}: the {name} has no {side_name} {missing[0]!r}; its {side_name}s are {sorted(specs)}"
            )
        unknown = sorted(set(specs) - set(names))
        if unknown and side_name == "input":
            raise BundleError(f"{path}: the {name} wants an input {unknown[0]!r}; expected {', '.join(names)} alone")
        for tensor in names:
            dtype, shape = expected[tensor]
            spec = specs[tensor]
            if spec.dtype != dtype or not _fits(spec, shape):
                raise BundleError(
                    f"{path}: {side_name} {tensor!r} is {spec.dtype} {_words(spec.shape)}, expected {np.dtype(dtype)} "
                    f"{_words(shape)} for {classes} classes, {conditions} conditions and a sensor view of {side} pixels"
                )


def _fits(spec: TensorSpec, shape: tuple[int | None, ...]) -> bool:
    """What the contract leaves open must be open; where the graph leaves open what the contract does not, it agrees."""
    if len(spec.shape) != len(shape):
        return False
    return all(found is None or found == want for found, want in zip(spec.shape, shape, strict=True))


def _words(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("any" if d is None else str(d) for d in shape) + "]"
