"""Stages switched off: what is computed, and from what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from toy_bundle import HEIGHT, WIDTH, write_toy_bundle

from coop_perception.contracts import STAGES
from coop_perception.engines.onnxruntime import OnnxRuntimeEngine
from coop_perception.model.bundle import load_bundle
from coop_perception.model.pipeline import OUTPUTS, Pipeline, changed, outputs_of

FRAME = np.random.default_rng(0).integers(0, 11, (HEIGHT, WIDTH, 3), dtype=np.uint8)


class Recording(OnnxRuntimeEngine):
    """Remembers what it was fed with."""

    def run(
        self, feeds: Mapping[str, Any], wanted: Sequence[str], into: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        self.feeds, self.wanted = dict(feeds), set(wanted)
        return super().run(feeds, wanted, into)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    bundle = load_bundle(write_toy_bundle(tmp_path_factory.mktemp("stages") / "toy"))
    return Pipeline(bundle, {name: Recording(bundle.networks[name].path) for name in STAGES})


@pytest.mark.parametrize("off", [(), ("refinement",), ("restoration",), ("refinement", "restoration")])
def test_each_combination_gives_the_outputs_that_it_promises(pipeline: Pipeline, off: tuple[str, ...]) -> None:
    stages = [stage for stage in STAGES if stage not in off]
    (result,) = pipeline.run([FRAME], OUTPUTS, stages)
    assert {name for name in OUTPUTS if getattr(result, name) is not None} == outputs_of(stages)
    assert list(result.stages_ms) == stages
    np.testing.assert_array_equal(result.mask_raw, FRAME[..., 0])
    np.testing.assert_array_equal(result.mask, FRAME[..., 0 if "refinement" in off else 1])
    if "restoration" not in off:
        np.testing.assert_array_equal(result.restored, 255 - FRAME)


def test_without_refinement_the_segmenters_probabilities_guide_restoration(pipeline: Pipeline) -> None:
    pipeline.run([FRAME], ["restored"], ["segmenter", "restoration"])
    given = pipeline.engines["restoration"].feeds["refined_probabilities"]
    np.testing.assert_array_equal(given.numpy()[0, 0], FRAME[..., 0])  # the toy segmenter's probabilities
    (result,) = pipeline.run([FRAME], ["mask"], ["segmenter"])
    np.testing.assert_array_equal(result.mask, FRAME[..., 0])


@pytest.mark.parametrize(("height", "width"), [(720, 1280), (1080, 1920), (240, 320), (370, 1224)])
def test_a_frame_that_nothing_is_changed_in_is_itself_at_any_size(height: int, width: int) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    given = np.asarray(cv2.resize(frame, (480, 360), interpolation=cv2.INTER_AREA), np.uint8)
    np.testing.assert_array_equal(changed(frame, given, given), frame)


def test_a_change_is_scaled_up_and_detail_stays() -> None:
    """Networks that brighten by 20 brighten every pixel of a larger frame by 20, as far as there is room."""
    frame = np.random.default_rng(1).integers(0, 256, (720, 960, 3), dtype=np.uint8)
    given = np.asarray(cv2.resize(frame, (480, 360), interpolation=cv2.INTER_AREA) // 2, np.uint8)
    restored = changed(frame, given, given + 20)
    np.testing.assert_array_equal(restored, np.minimum(frame.astype(int) + 20, 255))


def test_a_larger_frame_is_restored_by_the_networks_change(pipeline: Pipeline) -> None:
    """The toy's restored image is the negative."""
    large = np.repeat(np.repeat(FRAME, 2, 0), 2, 1)
    (result,) = pipeline.run([large], ["restored"])
    assert result.restored is not None
    inside = (slice(2, -2), slice(2, -2))
    expected = cv2.resize((255 - 2 * FRAME.astype(np.int16)), (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(result.restored[inside].astype(int), (large + expected)[inside].clip(0, 255), atol=1)
