"""How far restoration is to be trusted: fitted to what it did to images, whether mended or spoilt.

    python -m coop_training.familiarity --bundle models/street --config training/configs/street.yaml \\
        --cameras DIR... --out out/street/familiar.safetensors

takes frames of the configuration's data and of other cameras, which need no labels, clear, under its conditions, and
changed otherwise (`unknown`), restores them by the bundle, and fits the estimate's third network to the outcomes. The
result is a checkpoint for coop-export.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from coop_perception.camera import Intrinsics
from coop_perception.classes import IGNORE_ID
from coop_perception.degradations.depth import ground_plane_depth
from coop_perception.documents import read_yaml
from coop_perception.image_files import DatasetError, image_files, read_image
from coop_perception.metrics import psnr
from coop_perception.model.bundle import MANIFEST, BundleError
from coop_perception.replacing import open_results
from coop_training.bundle_weights import load_bundle_weights
from coop_training.checkpoint import CheckpointError, save_weights
from coop_training.config import ConfigError, TrainConfig, load_config
from coop_training.data import LabelledFrame, degrade_randomly, load_frames, random_view
from coop_training.guidance import degraded_segmentation, to_image
from coop_training.layouts.frame import scaled_image
from coop_training.model import Cooperative
from coop_training.networks.condition import Estimate, Estimator, trust
from coop_training.networks.refinement import Refinement
from coop_training.record import commit
from coop_training.unknown import unknown

CLEAR, UNKNOWN, BOTH = 0.12, 0.42, 0.08
"""Shares of samples; the rest are under one condition. BOTH: first changed otherwise, then under a condition."""
OTHER_CAMERAS = 0.5
"""Share of samples from other cameras, where there are any."""
LARGEST_DB = 3.0
"""What a sample weighs at most, in dB gained or lost."""
AVERSION = 3.0
"""How much heavier a loss weighs than a gain: never worse than the input comes before better."""
SPOILT_DB = 0.1
CHANGED_DB = 45.0
"""A clear image that comes back at less than this is spoilt."""
STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY, JITTER = 4000, 128, 1e-3, 0.1, 0.05


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Of N images: statistics [N,S], the estimate by them, and dB that restoration gained [N]."""

    statistics: Tensor
    estimate: Estimate
    gains: Tensor


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m coop_training.familiarity", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True, help="that the bundle was trained with")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="overrides of the config")
    parser.add_argument("--cameras", type=Path, nargs="*", default=[], help="folders of other cameras' clear images")
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--force", action="store_true", help="replace a file at --out")
    arguments = parser.parse_args()
    console = Console(stderr=True, markup=False)
    try:
        open_results(arguments.out.parent, [arguments.out.name], arguments.force)
        config = load_config(arguments.config, arguments.set)
        torch.manual_seed(config.seed)
        model = Cooperative(config).eval()
        load_bundle_weights(arguments.bundle, model, config)
        if not isinstance(model.refinement, Refinement):
            raise ConfigError(f"{arguments.config}: variant {config.variant} estimates no condition")
        own = load_frames(config.data, config.conditions)
        others = [path for folder in arguments.cameras for path in sorted(image_files(folder))]
        found = collect(model, own, others, config, arguments.samples, console)
        report = fit(model.refinement.estimator, found)
        console.print(report)
        facts = {"stage": "familiarity", "config": config.model_dump_json(), "commit": commit()}
        facts["record"] = json.dumps({"stages": _stages(arguments.bundle)})
        save_weights(arguments.out, model.parts(), facts)
    except (BundleError, CheckpointError, ConfigError, DatasetError, OSError) as error:
        print(f"familiarity: {error}", file=sys.stderr)
        return 1
    return 0


def _stages(bundle: Path) -> object:
    return read_yaml(bundle / MANIFEST)["training"]["stages"]


@torch.no_grad()
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
    assert isinstance(model.refinement, Refinement)
    statistics, posteriors, strengths, gains = [], [], [], []
    for index in track(range(samples), "restoring samples", console=console):
        rng = np.random.default_rng((config.seed, index))
        clear, degraded = sample(own, others, config, rng)
        image = to_image(torch.from_numpy(np.ascontiguousarray(degraded.transpose(2, 0, 1)))[None])
        refined = model.refine(image, degraded_segmentation(model, image))[0]
        found = model.refinement.statistics(image, refined)
        estimate = replace(model.refinement.estimator.estimate(found), familiarity=None)
        restored = model.restore(image, refined, estimate)[0][0].clamp(0, 1)
        pixels = np.rint(255 * restored.numpy()).astype(np.uint8).transpose(1, 2, 0)
        statistics.append(found)
        posteriors.append(estimate.posterior)
        strengths.append(estimate.strength)
        gains.append(gained(clear, degraded, pixels))
    return Outcomes(
        torch.cat(statistics), Estimate(torch.cat(posteriors), torch.cat(strengths)), torch.tensor(gains).float()
    )


def sample(
    own: Sequence[LabelledFrame], others: Sequence[Path], config: TrainConfig, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A clear image of the configuration's size, and what has become of it."""
    size = (config.height, config.width)
    if others and rng.random() < OTHER_CAMERAS:
        image = scaled_image(read_image(others[rng.integers(len(others))]), *size)
        intrinsics = Intrinsics.from_fov(size[1], size[0])
        depth = ground_plane_depth(intrinsics).astype(np.float16)
        frame = LabelledFrame(image, np.full(size, IGNORE_ID, np.uint8), depth, intrinsics)
    else:
        frame = own[rng.integers(len(own))]
    frame = random_view(frame, size, (1.0, 1.0), rng)
    frame = replace(
        frame,
        image=frame.image[: size[0], : size[1]],
        mask=frame.mask[: size[0], : size[1]],
        depth=frame.depth[: size[0], : size[1]],
        intrinsics=replace(frame.intrinsics, width=size[1], height=size[0]),
    )
    clear, kind = frame.image, rng.random()
    if kind < CLEAR:
        return clear, clear
    if kind < CLEAR + UNKNOWN:
        return clear, unknown(clear, rng)
    if kind < CLEAR + UNKNOWN + BOTH:
        frame = replace(frame, image=unknown(clear, rng))
    name = config.conditions[rng.integers(len(config.conditions))]
    return clear, degrade_randomly(frame, name, rng)[0]


def gained(clear: NDArray[np.uint8], degraded: NDArray[np.uint8], restored: NDArray[np.uint8]) -> float:
    """dB nearer to the clear image; of one that was clear, minus what it has been changed by above CHANGED_DB."""
    if np.array_equal(clear, degraded):
        change = CHANGED_DB - psnr(degraded, restored)
        return -change / 3 if change > 0 else LARGEST_DB / 10
    return psnr(clear, restored) - psnr(clear, degraded)


def fit(estimator: Estimator, outcomes: Outcomes) -> str:
    """Fit `familiar` to whether restoration spoilt images, each as heavy as it gained or lost, losses
    AVERSION times. Returns a line about it, on a tenth of the samples held out."""
    good = (outcomes.gains > -SPOILT_DB).float()
    weights = outcomes.gains.abs().clamp(max=LARGEST_DB) + SPOILT_DB
    weights = torch.where(good > 0, weights, AVERSION * weights)
    held = torch.arange(len(good)) % 10 == 0
    fitted = (~held).nonzero().squeeze(1)
    estimator.familiar.requires_grad_(True).train()
    for layer in estimator.familiar:
        if isinstance(layer, torch.nn.Linear):
            layer.reset_parameters()
    optimizer = AdamW(estimator.familiar.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        chosen = fitted[torch.randint(len(fitted), (BATCH,))]
        seen = outcomes.statistics[chosen]
        noise = JITTER * torch.randn_like(seen) * estimator.spread
        estimate = Estimate(outcomes.estimate.posterior[chosen], outcomes.estimate.strength[chosen])
        logits = estimator.outcome(seen + noise, estimate)
        loss = (F.binary_cross_entropy_with_logits(logits, good[chosen], reduction="none") * weights[chosen]).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    estimator.eval()
    with torch.no_grad():
        found = Estimate(outcomes.estimate.posterior[held], outcomes.estimate.strength[held])
        familiarity = trust(estimator.outcome(outcomes.statistics[held], found))
    gains, spoilt = outcomes.gains[held], good[held] == 0
    return (
        f"{int(held.sum())} samples held out: of {int(spoilt.sum())} that restoration spoilt familiarity is "
        f"{familiarity[spoilt].mean():.2f}, of the others {familiarity[~spoilt].mean():.2f}; mean gain "
        f"{gains.mean():.2f} dB, weighted by it {(familiarity * gains).mean():.2f}"
    )


if __name__ == "__main__":
    cv2.setNumThreads(1)
    sys.exit(main())
