"""How far restoration is to be trusted: fitted to what it did to images, whether mended or spoilt.

Takes frames of the configuration's data and of other cameras, which need no labels, clear, under its conditions, and
changed otherwise (`unknown`), restores them, and fits the estimate's further networks to the outcomes. The result is a
checkpoint for coop-export.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from coop_perception.arguments import command_parser, positive
from coop_perception.contracts import InputSizes
from coop_perception.documents import read_yaml
from coop_perception.image_files import DatasetError, image_files, read_image
from coop_perception.model.bundle import MANIFEST, BundleError
from coop_perception.replacing import open_results
from coop_training.bundle_weights import load_bundle_weights
from coop_training.checkpoint import CheckpointError, load_weights, save_weights
from coop_training.config import ConfigError, TrainConfig, load_config
from coop_training.data import random_view
from coop_training.estimator import cutout
from coop_training.frames import load_frames, unlabelled
from coop_training.layouts.frame import LabelledFrame, scaled_image
from coop_training.mixtures import other_camera
from coop_training.model import Cooperative
from coop_training.networks.estimate import Estimator, trust
from coop_training.observed import (
    NoEstimateError,
    Pixels,
    adverse,
    observe,
    refinement_of,
    wholly_changed,
)
from coop_training.record import commit
from coop_training.results import HARM_DB
from coop_training.unknown import unknown

CLEAR, UNKNOWN, BOTH = 0.12, 0.38, 0.1
"""Shares of samples; the rest are under conditions. BOTH: first changed otherwise, then under conditions."""
OTHER_CAMERAS = 0.5
"""Share of samples from other cameras, where there are any."""
LARGEST_DB, LEAST_DB = 6.0, -12.0
"""What a sample counts for at most and at least, in dB gained."""
AVERSION = 15.0
"""How much heavier a loss weighs than a gain: never worse than the input comes before better."""
PRICE_DB = 0.15
"""What a whole change has to gain to be made: a change that mends next to nothing can still spoil."""
LARGEST_HEIGHT = 720
"""Pixels: of other cameras' frames that are restored."""
CHANGED_DB, OF_A_CHANGE = 45.0, 1 / 3
"""A clear image that comes back at less than this is spoilt: by a third of what it is below."""
LEAST_ERROR = 1e-7
"""Mean squared error, below which nothing is gained: 70 dB."""
HELD_OUT = 10
"""One of so many samples is not fitted to."""
STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY, JITTER = 4000, 128, 1e-3, 0.1, 0.05


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Of N frames: statistics [N,S], presence and strength [N,K] by them, and how far restoration is `wanted` by these
    [N]; means over pixels, values in 0..1, of the squared error before it, when colours are laid onto each other
    already, of error times change, and of the squared change that it makes as a whole [N]. With a weight w on the
    change the error is error - 2·w·common + w²·change.
    """

    statistics: Tensor
    presence: Tensor
    strength: Tensor
    wanted: Tensor
    error: Tensor
    common: Tensor
    change: Tensor


def main() -> int:
    parser = command_parser(
        "python -m coop_training.familiarity",
        __doc__,
        "python -m coop_training.familiarity --checkpoint out/train/street/restoration.safetensors "
        "--config training/configs/street.yaml --cameras out/data/comma10k --out out/train/street/familiar.safetensors",
    )
    networks = parser.add_argument_group("the networks")
    frames = parser.add_argument_group("the frames that they are tried on")
    written = parser.add_argument_group("what is written")
    source = networks.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", metavar="FILE", type=Path, help="a stage's, whose networks restore")
    source.add_argument("--bundle", metavar="DIR", type=Path, help="or a bundle")
    networks.add_argument("--config", metavar="FILE", type=Path, required=True, help="that they were trained with")
    networks.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="overrides of the config")
    frames.add_argument(
        "--cameras", metavar="DIR", type=Path, nargs="*", default=[], help="folders of other cameras' clear images"
    )
    frames.add_argument(
        "--samples", metavar="N", type=positive, default=3000, help="how many are restored (default: %(default)s)"
    )
    written.add_argument("--out", metavar="FILE", type=Path, required=True, help="checkpoint to write")
    written.add_argument("--force", action="store_true", help="replace a file at --out")
    arguments = parser.parse_args()
    if arguments.samples < HELD_OUT:
        parser.error(f"--samples {arguments.samples}: expected {HELD_OUT} at least, one of which is held out")
    console = Console(stderr=True, markup=False)
    try:
        open_results(arguments.out.parent, [arguments.out.name], arguments.force)
        config = load_config(arguments.config, arguments.set)
        torch.manual_seed(config.seed)
        model = Cooperative(config).eval()
        facts = _read(arguments.bundle, arguments.checkpoint, model, config)
        estimator = refinement_of(model).estimator
        own = load_frames(config.data, config.conditions)
        others = [path for folder in arguments.cameras for path in sorted(image_files(folder))]
        found = collect(model, own, others, config, arguments.samples, console)
        report = fit(estimator, found, STEPS)
        console.print(report)
        save_weights(arguments.out, model.parts(), facts)
    except (BundleError, CheckpointError, ConfigError, DatasetError, NoEstimateError, OSError) as error:
        print(f"familiarity: {error}", file=sys.stderr)
        return 1
    return 0


def _read(bundle: Path | None, checkpoint: Path | None, model: Cooperative, config: TrainConfig) -> dict[str, str]:
    """Weights into the model; the facts of the checkpoint, as it is or as it was before it became the bundle."""
    if bundle is None:
        assert checkpoint is not None
        return load_weights(checkpoint, model.parts())
    load_bundle_weights(bundle, model, config)
    record = {"stages": read_yaml(bundle / MANIFEST)["training"]["stages"]}
    return {
        "stage": "familiarity",
        "config": config.model_dump_json(),
        "commit": commit(),
        "record": json.dumps(record),
    }


def collect(
    model: Cooperative,
    own: Sequence[LabelledFrame],
    others: Sequence[Path],
    config: TrainConfig,
    samples: int,
    console: Console,
) -> Outcomes:
    """Restore samples of the data's own frames and of other cameras' images. Sample i depends on the seed and i alone.

    Raises:
        DatasetError: an image cannot be read.
    """
    rows = []
    for index in track(range(samples), "restoring samples", console=console):
        rng = np.random.default_rng((config.seed, index))
        rows.append(outcome(model, *sample(own, others, config, rng), config.input.sizes))
    return stacked(rows)


def outcome(model: Cooperative, clear: Pixels, degraded: Pixels, sizes: InputSizes) -> Outcomes:
    """Of one frame: what restoration makes of it as a whole."""
    seen = observe(model, degraded, sizes)
    with torch.no_grad():
        estimate = refinement_of(model).estimator.estimate(seen.statistics)
    images = (*wholly_changed(model, seen, estimate), clear)
    before, after, truth = (image.astype(np.float64) / 255 for image in images)
    error, change = truth - before, after - before
    means = [torch.tensor([float(product.mean())]) for product in (error**2, error * change, change**2)]
    return Outcomes(seen.statistics, estimate.presence, estimate.strength, estimate.wanted, *means)


def stacked(rows: Sequence[Outcomes]) -> Outcomes:
    """Several as one."""
    return Outcomes(*(torch.cat([getattr(row, field.name) for row in rows]) for field in fields(Outcomes)))


def sample(
    own: Sequence[LabelledFrame], others: Sequence[Path], config: TrainConfig, rng: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """A clear frame, and what has become of it."""
    if others and rng.random() < OTHER_CAMERAS:
        image = _at_most(read_image(others[int(rng.integers(len(others)))]), rng)
        frame = unlabelled(cutout(image, rng) if rng.random() < 0.5 else image)  # not every scene is a street
    else:
        frame = own[int(rng.integers(len(own)))]
    frame = random_view(frame, (1, 1), (1.0, 1.0), rng)
    frame = replace(frame, image=other_camera(frame.image, rng))
    clear, kind = frame.image, rng.random()
    if kind < CLEAR:
        return clear, clear
    if kind < CLEAR + UNKNOWN:
        return clear, unknown(clear, rng)
    if kind < CLEAR + UNKNOWN + BOTH:
        frame = replace(frame, image=unknown(clear, rng))
    reflected = own[int(rng.integers(len(own)))].image
    return clear, adverse(frame, reflected, config.conditions, config.mixtures, rng)[0]


def _at_most(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Higher ones than LARGEST_HEIGHT are scaled to any height from half of it on: what counts is that cameras differ,
    and full resolution takes its time."""
    height, width = image.shape[:2]
    if height <= LARGEST_HEIGHT:
        return image
    lower = int(rng.integers(LARGEST_HEIGHT // 2, LARGEST_HEIGHT + 1))
    return scaled_image(image, lower, round(width * lower / height))


def gained(outcomes: Outcomes, weight: Tensor) -> Tensor:
    """dB nearer to the clear image with so much of the change, of a clear image minus what it is spoilt by. [N]"""
    after = outcomes.error - 2 * weight * outcomes.common + weight**2 * outcomes.change
    gain = 10 * (outcomes.error.clamp(min=LEAST_ERROR) / after.clamp(min=LEAST_ERROR)).log10()
    kept = -10 * after.clamp(min=LEAST_ERROR).log10()
    spoilt = OF_A_CHANGE * (kept - CHANGED_DB).clamp(max=0)
    return torch.where(outcomes.error > 0, gain, spoilt)


def loss(estimator: Estimator, outcomes: Outcomes) -> Tensor:
    """Minus the mean gain, losses AVERSION times, and the price of the change, mean of the members, each of which
    decides alone. Scalar."""
    noise = JITTER * torch.randn_like(outcomes.statistics) * estimator.spread
    logits = estimator.outcomes(outcomes.statistics + noise, outcomes.presence, outcomes.strength)
    losses = []
    for logit in logits.unbind(1):
        weight = outcomes.wanted * torch.sigmoid(logit)  # as `trust` about 0, and beyond it has a slope
        gain = gained(outcomes, weight).clamp(LEAST_DB, LARGEST_DB)
        losses.append((PRICE_DB * weight - torch.where(gain > 0, gain, AVERSION * gain)).mean())
    return torch.stack(losses).mean()


def drawn(outcomes: Outcomes, among: Tensor, number: int) -> Outcomes:
    """So many at random of those with these indices."""
    chosen = among[torch.randint(len(among), (number,))]
    return Outcomes(*(getattr(outcomes, field.name)[chosen] for field in fields(Outcomes)))


def fit(estimator: Estimator, outcomes: Outcomes, steps: int) -> str:
    """Fit `familiar`, from nothing, so that restoration gains most and spoils least. Returns a line about it, on the
    samples held out."""
    held = torch.arange(len(outcomes.error)) % HELD_OUT == 0
    fitted = (~held).nonzero().squeeze(1)
    estimator.requires_grad_(False)
    estimator.familiar.requires_grad_(True).train()
    for layer in estimator.familiar.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.reset_parameters()
    optimizer = AdamW(estimator.familiar.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(estimator, drawn(outcomes, fitted, BATCH)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    estimator.eval()
    with torch.no_grad():
        familiarity = trust(estimator.outcomes(outcomes.statistics, outcomes.presence, outcomes.strength).amin(1))
    return "; ".join(
        f"{words} {gain[held].mean():.2f} dB gained, {(gain[held] < -HARM_DB).float().mean():.1%} worse by more than "
        f"{HARM_DB} dB, at worst {gain[held].min():.1f}"
        for words, gain in (
            (f"{int(held.sum())} samples held out: wholly trusted", gained(outcomes, outcomes.wanted)),
            ("by familiarity", gained(outcomes, outcomes.wanted * familiarity)),
        )
    )


if __name__ == "__main__":
    cv2.setNumThreads(1)
    sys.exit(main())
