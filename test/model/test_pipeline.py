"""Stages switched off: what is computed, and from what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from toy_bundle import HEIGHT, WIDTH, write_toy_bundle

from coop_perception.contracts import STAGES
from coop_perception.engines.onnxruntime import OnnxRuntimeEngine
from coop_perception.model.bundle import load_bundle
from coop_perception.model.pipeline import OUTPUTS, Pipeline, outputs_of

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
