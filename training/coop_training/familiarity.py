"""How far restoration is to be trusted: fitted to what it did to images, whether mended or spoilt.

Takes frames of the configuration's data and of other cameras, which need no labels, clear, under its conditions, and
changed otherwise (`unknown`), restores them, and fits the estimate's third network to the outcomes. The result is a
checkpoint for coop-export.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from coop_perception.contracts import InputSizes
from coop_perception.documents import read_yaml
from coop_perception.image_files import DatasetError, image_files, read_image
from coop_perception.metrics import psnr
from coop_perception.model.bundle import MANIFEST, BundleError
from coop_perception.replacing import open_results
from coop_training.arguments import command_parser, positive
from coop_training.bundle_weights import load_bundle_weights
from coop_training.checkpoint import CheckpointError, load_weights, save_weights
from coop_training.config import ConfigError, TrainConfig, load_config
from coop_training.data import random_view
from coop_training.frames import load_frames, unlabelled
from coop_training.layouts.frame import LabelledFrame, scaled_image
from coop_training.mixtures import other_camera
from coop_training.model import Cooperative
from coop_training.networks.estimate import Estimator
from coop_training.observed import (
    NoEstimateError,
    Pixels,
    adverse,
    observe,
    refinement_of,
    restored,
    trusted,
)
from coop_training.record import commit
from coop_training.unknown import unknown

CLEAR, UNKNOWN, BOTH = 0.12, 0.38, 0.1
"""Shares of samples; the rest are under conditions. BOTH: first changed otherwise, then under conditions."""
OTHER_CAMERAS = 0.5
"""Share of samples from other cameras, where there are any."""
LARGEST_DB = 3.0
"""What a sample weighs at most, in dB gained or lost."""
AVERSION = 5.0
"""How much heavier a loss weighs than a gain: never worse than the input comes before better."""
LARGEST_HEIGHT = 720
"""Pixels: of other cameras' frames that are restored."""
SPOILT_DB = 0.1
CHANGED_DB = 45.0
"""A clear image that comes back at less than this is spoilt."""
STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY, JITTER = 4000, 128, 1e-3, 0.1, 0.05


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Of N frames: statistics [N,S], presence and strength [N,K] by them, and dB that restoration gained [N]."""

    statistics: Tensor
    presence: Tensor
    strength: Tensor
    gains: Tensor


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
    source.add_argument("--checkpoint", type=Path, help="a stage's, whose networks restore")
    source.add_argument("--bundle", type=Path, help="or a bundle")
    networks.add_argument("--config", type=Path, required=True, help="that they were trained with")
    networks.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="overrides of the config")
    frames.add_argument("--cameras", type=Path, nargs="*", default=[], help="folders of other cameras' clear images")
    frames.add_argument("--samples", type=positive, default=3000, help="how many are restored (default: %(default)s)")
    written.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    written.add_argument("--force", action="store_true", help="replace a file at --out")
    arguments = parser.parse_args()
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
    """Of one frame: what restoration makes of it by an estimate that is trusted wholly."""
    seen = observe(model, degraded, sizes)
    with torch.no_grad():
        estimate = trusted(refinement_of(model).estimator.estimate(seen.statistics))
    gain = gained(clear, degraded, restored(model, seen, estimate))
    return Outcomes(seen.statistics, estimate.presence, estimate.strength, torch.tensor([gain]))


def stacked(rows: Sequence[Outcomes]) -> Outcomes:
    """Several as one."""
    return Outcomes(
        torch.cat([row.statistics for row in rows]),
        torch.cat([row.presence for row in rows]),
        torch.cat([row.strength for row in rows]),
        torch.cat([row.gains for row in rows]).float(),
    )


def sample(
    own: Sequence[LabelledFrame], others: Sequence[Path], config: TrainConfig, rng: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """A clear frame, and what has become of it."""
    if others and rng.random() < OTHER_CAMERAS:
        frame = unlabelled(_at_most(read_image(others[int(rng.integers(len(others)))]), rng))
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


def gained(clear: Pixels, degraded: Pixels, result: Pixels) -> float:
    """dB nearer to the clear image; of one that was clear, minus what it has been changed by above CHANGED_DB."""
    if np.array_equal(clear, degraded):
        change = CHANGED_DB - psnr(degraded, result)
        return -change / 3 if change > 0 else LARGEST_DB / 10
    return psnr(clear, result) - psnr(clear, degraded)


def loss(estimator: Estimator, outcomes: Outcomes, chosen: Tensor) -> Tensor:
    """Cross-entropy of whether restoration spoilt the frames chosen, each as heavy as it gained or lost, losses
    AVERSION times. Scalar."""
    good = (outcomes.gains[chosen] > -SPOILT_DB).float()
    weights = outcomes.gains[chosen].abs().clamp(max=LARGEST_DB) + SPOILT_DB
    seen = outcomes.statistics[chosen]
    noise = JITTER * torch.randn_like(seen) * estimator.spread
    logits = estimator.outcome(seen + noise, outcomes.presence[chosen], outcomes.strength[chosen])
    terms = F.binary_cross_entropy_with_logits(logits, good, reduction="none")
    return (terms * torch.where(good > 0, weights, AVERSION * weights)).mean()


def fit(estimator: Estimator, outcomes: Outcomes, steps: int) -> str:
    """Fit `familiar`, from nothing, to whether restoration spoilt frames. Returns a line about it, on a tenth of the
    samples held out."""
    held = torch.arange(len(outcomes.gains)) % 10 == 0
    fitted = (~held).nonzero().squeeze(1)
    estimator.requires_grad_(False)
    estimator.familiar.requires_grad_(True).train()
    for layer in estimator.familiar:
        if isinstance(layer, torch.nn.Linear):
            layer.reset_parameters()
    optimizer = AdamW(estimator.familiar.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(estimator, outcomes, fitted[torch.randint(len(fitted), (BATCH,))]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    estimator.eval()
    with torch.no_grad():
        familiarity = estimator.estimate(outcomes.statistics[held]).familiarity
    gains = outcomes.gains[held]
    spoilt = gains <= -SPOILT_DB
    return (
        f"{int(held.sum())} samples held out: of {int(spoilt.sum())} that restoration spoilt familiarity is "
        f"{familiarity[spoilt].mean():.2f}, of the others {familiarity[~spoilt].mean():.2f}; mean gain "
        f"{gains.mean():.2f} dB, weighted by it {(familiarity * gains).mean():.2f}"
    )


if __name__ == "__main__":
    cv2.setNumThreads(1)
    sys.exit(main())
