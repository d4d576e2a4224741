"""What is computed, from what, for which frames: sizes, stages switched off, and what restoration is conditioned on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from toy_bundle import HEIGHT, SENSOR, WIDTH, write_toy_bundle

from coop_perception.contracts import STAGES
from coop_perception.engines.onnxruntime import OnnxRuntimeEngine
from coop_perception.model.bundle import load_bundle
from coop_perception.model.conditions import Conditions
from coop_perception.model.pipeline import OUTPUTS, Pipeline, outputs_of
from coop_perception.views import scene_view, sensor_view

FRAME = np.random.default_rng(0).integers(0, 11, (HEIGHT, WIDTH, 3), dtype=np.uint8)
FOG = Conditions(np.array([0.9, 0], np.float32), np.array([0.5, 0], np.float32), 1.0)


class Recording(OnnxRuntimeEngine):
    """Remembers what it was fed with, and how often it ran."""

    runs = 0

    def run(
        self, feeds: Mapping[str, Any], wanted: Sequence[str], into: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        self.feeds, self.wanted, self.runs = dict(feeds), set(wanted), self.runs + 1
        return super().run(feeds, wanted, into)


@pytest.fixture
def pipeline(tmp_path: Any) -> Pipeline:
    bundle = load_bundle(write_toy_bundle(tmp_path / "toy"))
    return Pipeline(bundle, {name: Recording(bundle.networks[name].path) for name in STAGES})


def frame_of(height: int, width: int, seed: int = 1) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("off", [(), ("refinement",), ("restoration",), ("refinement", "restoration")])
def test_each_combination_gives_the_outputs_that_it_promises(pipeline: Pipeline, off: tuple[str, ...]) -> None:
    stages = [stage for stage in STAGES if stage not in off]
    (result,) = pipeline.run([FRAME], OUTPUTS, stages, decide=lambda _, __: FOG)
    assert {name for name in OUTPUTS if getattr(result, name) is not None} == outputs_of(stages)
    assert list(result.stages_ms) == (stages if "refinement" in stages else ["segmenter"])
    np.testing.assert_array_equal(result.mask_raw, FRAME[..., 0])
    np.testing.assert_array_equal(result.mask, FRAME[..., 0 if "refinement" in off else 1])
    if not off:
        np.testing.assert_array_equal(result.restored, 255 - FRAME)


@pytest.mark.parametrize(
    ("height", "width", "image"),
    [(360, 480, (32, 32)), (720, 1280, (32, 64)), (1080, 1920, (32, 64)), (370, 1224, (32, 96)), (333, 251, (32, 32))],
)
def test_networks_see_the_scene_and_pixels_and_restore_the_frame_itself(
    pipeline: Pipeline, height: int, width: int, image: tuple[int, int]
) -> None:
    frame = frame_of(height, width)
    (result,) = pipeline.run([frame], OUTPUTS)
    fed = pipeline.engines["refinement"].feeds  # type: ignore[attr-defined]
    np.testing.assert_array_equal(fed["image"], scene_view(frame, image)[None])
    np.testing.assert_array_equal(fed["sensor"], sensor_view(frame, SENSOR)[None])
    np.testing.assert_array_equal(result.restored, 255 - frame)
    assert result.mask is not None
    assert result.mask.shape == (height, width)


@pytest.mark.parametrize("size", [(720, 1280), (1080, 1920), (480, 640), (333, 251)])
def test_a_frame_without_any_condition_is_itself_byte_for_byte(pipeline: Pipeline, size: tuple[int, int]) -> None:
    frame = frame_of(*size) // 40 * np.array([0, 1, 0], np.uint8)  # the toy finds nothing where red and blue are absent
    (result,) = pipeline.run([frame], ["restored"])
    assert result.used is not None
    assert result.used.presence.max() == 0
    np.testing.assert_array_equal(result.restored, frame)
    (left,) = pipeline.run([frame_of(*size)], ["restored"], decide=lambda _, __: None)
    assert left.used is None
    assert "restoration" not in left.stages_ms
    np.testing.assert_array_equal(left.restored, frame_of(*size))


def test_restoration_is_conditioned_on_what_is_decided(pipeline: Pipeline) -> None:
    asked: list[Conditions] = []

    def decide(index: int, estimate: Conditions) -> Conditions:
        asked.append(estimate)
        return FOG

    (result,) = pipeline.run([FRAME], ["restored", "condition"], decide=decide)
    np.testing.assert_allclose(asked[0].presence, FRAME[..., ::2].mean((0, 1)) / 255, rtol=1e-5)
    fed = pipeline.engines["restoration"].feeds  # type: ignore[attr-defined]
    np.testing.assert_array_equal(fed["presence"], FOG.presence[None])
    assert fed["familiarity"] == [1.0]
    assert result.used is FOG
    assert result.condition is asked[0]


def test_frames_of_several_sizes_are_batches_of_one_size_each(pipeline: Pipeline) -> None:
    frames = [frame_of(48, 64, 1), frame_of(90, 160, 2), frame_of(48, 64, 3)]
    results = pipeline.run(frames, OUTPUTS)
    for frame, result in zip(frames, results, strict=True):
        (alone,) = pipeline.run([frame], OUTPUTS)
        np.testing.assert_array_equal(result.mask, alone.mask)
        np.testing.assert_array_equal(result.restored, 255 - frame)
    assert pipeline.engines["segmenter"].runs == 2 + 3  # type: ignore[attr-defined]


def test_one_clear_frame_of_a_batch_stays_itself(pipeline: Pipeline) -> None:
    frames = [frame_of(48, 64, seed) for seed in (1, 2, 3)]
    results = pipeline.run(frames, ["restored"], decide=lambda index, _: None if index == 1 else FOG)
    for index, (frame, result) in enumerate(zip(frames, results, strict=True)):
        np.testing.assert_array_equal(result.restored, frame if index == 1 else 255 - frame)
        assert (result.used is None) == (index == 1)


def test_restoration_meets_each_size_once_whatever_the_weather(pipeline: Pipeline) -> None:
    """Of frames, and of the networks' image."""
    runs = []
    for height, width, network_height in ((48, 64, 0), (48, 64, 0), (48, 64, 64), (48, 64, 64), (90, 160, 64)):
        frame = frame_of(height, width)
        (result,) = pipeline.run([frame], ["restored"], network_height=network_height, decide=lambda _, __: None)
        np.testing.assert_array_equal(result.restored, frame)
        assert result.used is None
        assert list(result.stages_ms) == ["segmenter", "refinement"]
        runs.append(pipeline.engines["restoration"].runs)  # type: ignore[attr-defined]
    assert runs == [1, 1, 2, 2, 3]


def test_restoration_runs_for_the_frames_that_need_it(pipeline: Pipeline) -> None:
    frames = [frame_of(48, 64, seed) for seed in range(8)]
    for needing in ({0}, {7}, {1, 2, 6}, set(range(8))):
        results = pipeline.run(
            frames, ["restored"], decide=lambda index, own, needing=needing: own if index in needing else None
        )
        fed = pipeline.engines["restoration"].feeds  # type: ignore[attr-defined]
        chosen = [frames[index] for index in sorted(needing)]
        np.testing.assert_array_equal(fed["frame"], chosen)
        np.testing.assert_array_equal(fed["image"], [scene_view(frame, (32, 32)) for frame in chosen])
        shares = [scene_view(frame, (32, 32))[..., 0].mean() / 255 for frame in chosen]
        np.testing.assert_allclose(fed["presence"][:, 0], shares, rtol=1e-5)
        assert [index for index, result in enumerate(results) if result.used is not None] == sorted(needing)
    assert pipeline.run([], OUTPUTS) == []


def test_the_networks_height_can_be_chosen(pipeline: Pipeline) -> None:
    frame = frame_of(360, 640)
    pipeline.run([frame], ["mask"], network_height=180)
    assert pipeline.engines["segmenter"].feeds["image"].shape == (1, 192, 352, 3)  # type: ignore[attr-defined]
