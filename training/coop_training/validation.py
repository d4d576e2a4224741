"""What a stage's averaged networks are worth while it goes on: masks and restored frames of what is not trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coop_perception.contracts import QUARTER, InputSizes, network_size
from coop_perception.documents import parse_json
from coop_perception.metrics import confusion_matrix, mean_psnr, psnr, segmentation_scores
from coop_perception.views import scene_view
from coop_training.checkpoint import load_weights, read_facts, save_weights
from coop_training.data import Conditions, Degraded, DegradedFrames, planes
from coop_training.ema import WeightAverage
from coop_training.guidance import degraded_segmentation, to_image
from coop_training.model import Cooperative, evaluating
from coop_training.networks.estimate import Estimate
from coop_training.pixels import to_bytes, to_mask
from coop_training.run import Run
from coop_training.stages import Stage

BEST = "best.safetensors"
EVERY = 250
"""Steps."""
FRAMES = 24
"""Most that are scored."""
_WORDS = {
    "miou": "mIoU {} %",
    "miou_raw": "the segmenter's {} %",
    "psnr": "PSNR {} dB",
    "psnr_degraded": "the degraded frames' {} dB",
}


@dataclass(frozen=True, slots=True)
class Best:
    """The averaged networks that scored best: after how many steps, and their figures."""

    steps: int
    figures: Mapping[str, float]


class Validation:
    """Scores of one stage, and the best of its averaged networks, kept in `out`/best.safetensors.

    The first of several processes scores; the others go on to the next step and wait there.

    Args:
        run: what the stage is part of.
        name: the stage's.
        stage: what it trains.
        resumed: whether it goes on from progress, and with it from the best until then.
    """

    def __init__(self, run: Run, name: str, stage: Stage, resumed: bool) -> None:
        self.run, self.name, self.steps = run, name, run.settings(name).steps
        self.path, self.trained = run.out / BEST, stage.trained
        if run.fabric.is_global_zero and not resumed:
            self.path.unlink(missing_ok=True)
        drawn = DegradedFrames(
            run.validation, run.conditions(0.0) if stage.adverse else Conditions((), 1.0), (1.0, 1.0)
        )
        seed = run.config.seed  # each frame is the same in every stage and run of a configuration
        scored = len(run.validation) if run.fabric.is_global_zero else 0
        self.views = [drawn.draw(np.array([index]), np.random.default_rng((seed, index))) for index in range(scored)]

    def due(self, step: int) -> bool:
        """Whether this process has frames to score, and it is time to do so after this step."""
        return bool(self.views) and ((step + 1) % EVERY == 0 or step + 1 == self.steps)

    def scored(self, step: int, average: WeightAverage) -> tuple[dict[str, float], bool]:
        """The figures of the averaged networks, and whether they are the best so far, which are kept then."""
        with average.applied():
            figures = validate(self.run.model, self.views, self.trained, self.run.config.input.sizes)
            before = self.best()
            better = before is None or score(figures) > score(before.figures)
            if better:
                facts = {"stage": self.name, "steps": str(step + 1), "figures": json.dumps(figures)}
                save_weights(self.path, self._networks(), facts)
        return figures, better

    def best(self) -> Best | None:
        """The best so far; None where nothing was scored.

        Raises:
            CheckpointError: the file is damaged.
        """
        if not self.path.exists():
            return None
        facts = read_facts(self.path)
        return Best(int(facts["steps"]), parse_json(facts["figures"], f"{self.path}: its figures"))

    def take_best(self) -> Best | None:
        """Give the model, in every process, the weights of the best, where anything was scored."""
        self.run.fabric.barrier()
        best = self.best()
        if best is not None:
            load_weights(self.path, self._networks())
        return best

    def _networks(self) -> dict[str, torch.nn.Module]:
        return {name: network for name, network in self.run.model.parts().items() if name in self.trained}


def score(figures: Mapping[str, float]) -> float:
    """By which figures are compared: a point of mIoU counts as much as a decibel."""
    return figures.get("miou", 0.0) + figures.get("psnr", 0.0)


def in_words(figures: Mapping[str, float]) -> str:
    return ", ".join(words.format(f"{figures[name]:.1f}") for name, words in _WORDS.items() if name in figures)


@dataclass(frozen=True, slots=True)
class _Seen:
    """Of a frame: confusion matrices of the segmenter's mask and the refined one; PSNR before and after restoration."""

    raw: NDArray[np.int64]
    refined: NDArray[np.int64]
    psnr: tuple[float, float] = (np.nan, np.nan)


def validate(
    model: Cooperative, views: Sequence[Degraded], trained: Sequence[str], sizes: InputSizes
) -> dict[str, float]:
    """Figures of what is trained, in per cent (mIoU over the classes that the labels show) and dB.

    Of the segmenter `miou`; of refinement `miou`, and beside it `miou_raw`, the segmenter's; of restoration `psnr`, and
    beside it `psnr_degraded`, its input's. Restoration is conditioned on S_r and on the true conditions, for their
    estimate is fitted when a stage has ended.
    """
    with evaluating(model):
        seen = [_seen(model, view, trained, sizes) for view in views]
    raw = segmentation_scores(np.sum([one.raw for one in seen], 0)).miou
    refined = segmentation_scores(np.sum([one.refined for one in seen], 0)).miou
    figures = {}
    if "segmenter" in trained:
        figures |= {"miou": 100 * raw}
    if "refinement" in trained:
        figures |= {"miou_raw": 100 * raw, "miou": 100 * refined}
    if "restoration" in trained:
        before, after = zip(*(one.psnr for one in seen), strict=True)
        figures |= {"psnr_degraded": mean_psnr(before), "psnr": mean_psnr(after)}
    return {name: round(value, 3) for name, value in figures.items()}


def _seen(model: Cooperative, view: Degraded, trained: Sequence[str], sizes: InputSizes) -> _Seen:
    device = next(model.restoration.parameters()).device

    def tensor(image: NDArray[np.uint8]) -> Tensor:
        return to_image(planes(image)[None].to(device))

    def counts(probabilities: Tensor, stride: int) -> NDArray[np.int64]:
        mask = to_mask(probabilities, stride)[0][0].cpu().numpy()
        truth = cv2.resize(view.view.mask, mask.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        return confusion_matrix(np.asarray(truth), mask, model.classes)

    image = tensor(scene_view(view.image, network_size(sizes, *view.image.shape[:2])))
    given = degraded_segmentation(model, image)
    raw = counts(given, QUARTER)
    if "segmenter" in trained:
        return _Seen(raw, raw)
    probabilities = model.refinement(image, given)[0].float().softmax(1)
    refined = counts(probabilities, model.stride)
    if "restoration" not in trained:
        return _Seen(raw, refined)
    strengths = torch.from_numpy(view.strengths)[None].to(device)
    true = Estimate((strengths > 0).float(), strengths, torch.ones_like(strengths[:, 0]))
    restored = to_bytes(model.restore(tensor(view.image), image, probabilities, true))[0].cpu().numpy()
    return _Seen(raw, refined, (psnr(view.view.image, view.image), psnr(view.view.image, restored)))
