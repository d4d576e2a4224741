"""How far confidence is to be believed: fitted to how often masks of drives that are left out of training are right.

Takes labelled frames of the configuration's data set, by default those of the drives that it leaves out of training,
clear and under its conditions, and fits the calibration's temperature. The result is a checkpoint for coop-export.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam

from coop_perception.arguments import command_parser, positive
from coop_perception.classes import IGNORE_ID
from coop_perception.image_files import DatasetError
from coop_perception.metrics import calibration_errors
from coop_perception.replacing import open_results
from coop_training.checkpoint import CheckpointError, load_weights, save_weights
from coop_training.config import ConfigError, TrainConfig, load_config
from coop_training.frames import UnreadFrames, coarse_items, data_items
from coop_training.guidance import label_shares
from coop_training.layouts.frame import LabelledFrame
from coop_training.model import Cooperative
from coop_training.networks.calibration import Calibration
from coop_training.observed import NoEstimateError, adverse, observe, refinement_of
from coop_training.pixels import to_mask

PER_FRAME = 3
"""Times that each frame is put under conditions, beside once as it is."""
PIXELS = 2000
"""Of each image, drawn evenly from those with a label."""
STEPS, LEARNING_RATE, DECAY = 600, 0.05, 1e-3
"""DECAY: of the squared weights, which are few; conditions that frames seldom showed say little."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Of M pixels of N images: confidence [M] in 0..1, whether its class is right [M], the image [M] that it is of;
    presence [N,K]."""

    confidence: Tensor
    right: Tensor
    image: Tensor
    presence: Tensor


def main() -> int:
    parser = command_parser(
        "python -m coop_training.calibrate",
        __doc__,
        "python -m coop_training.calibrate --checkpoint out/train/street/familiar.safetensors "
        "--config training/configs/street.yaml --drives 0006R0 --out out/train/street/calibrated.safetensors",
    )
    networks = parser.add_argument_group("the networks")
    unseen = parser.add_argument_group("the frames that they are judged on")
    written = parser.add_argument_group("what is written")
    networks.add_argument(
        "--checkpoint", metavar="FILE", type=Path, required=True, help="of a stage, or of the fit of familiarity"
    )
    networks.add_argument("--config", metavar="FILE", type=Path, required=True, help="that it was trained with")
    networks.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="overrides of the config")
    unseen.add_argument(
        "--drives", nargs="+", metavar="PREFIX", help="what names of frames begin with (default: data.exclude's)"
    )
    unseen.add_argument(
        "--coarse", metavar="SPLIT", help="also this split of the coarsely labelled data sets (default: none)"
    )
    unseen.add_argument(
        "--frames", metavar="N", type=positive, default=200, help="most of each data set (default: %(default)s)"
    )
    written.add_argument("--out", metavar="FILE", type=Path, required=True, help="checkpoint to write")
    written.add_argument("--force", action="store_true", help="replace a file at --out")
    arguments = parser.parse_args()
    console = Console(stderr=True, markup=False)
    try:
        open_results(arguments.out.parent, [arguments.out.name], arguments.force)
        config = load_config(arguments.config, arguments.set)
        torch.manual_seed(config.seed)
        model = Cooperative(config).eval()
        trained = {name: part for name, part in model.parts().items() if part is not model.calibration}
        facts = load_weights(arguments.checkpoint, trained)
        frames = unseen_frames(config, tuple(arguments.drives or config.data.exclude), arguments.coarse)
        judged = collect(model, [_evenly(part, arguments.frames) for part in frames], config, console)
        console.print(fit(model.calibration, judged))
        save_weights(arguments.out, model.parts(), facts)
    except (CheckpointError, ConfigError, DatasetError, NoEstimateError, OSError) as error:
        print(f"calibrate: {error}", file=sys.stderr)
        return 1
    return 0


def unseen_frames(
    config: TrainConfig, drives: tuple[str, ...], coarse_split: str | None
) -> list[Sequence[LabelledFrame]]:
    """Frames of the data set whose names begin so, and of another split of each coarsely labelled one.

    Raises:
        ConfigError: no drive is named.
        DatasetError: a data set cannot be used, or has no such frame.
    """
    parts: list[Sequence[LabelledFrame]] = []
    if drives:
        everything = config.data.model_copy(update={"exclude": ()})
        items = [item for item in data_items(everything, config.conditions) if item.name.startswith(drives)]
        if not items:
            raise DatasetError(f"{config.data.root}: no frame of the drives {', '.join(drives)}")
        parts.append(UnreadFrames(items, config.data.max_height))
    if coarse_split is not None:
        for entry in config.data.also:
            items = coarse_items(entry.model_copy(update={"split": coarse_split}), config.data, depth=False)
            parts.append(UnreadFrames(items, config.data.max_height))
    if not parts:
        raise ConfigError(
            f"{config.name}: data.exclude is empty, so no drive was left out of training; name drives that were, by "
            "--drives, or a split by --coarse"
        )
    return parts


@torch.no_grad()
def collect(
    model: Cooperative, parts: Sequence[Sequence[LabelledFrame]], config: TrainConfig, console: Console
) -> Judged:
    """What is said of labelled pixels of each frame, as it is and PER_FRAME times under conditions.

    Raises:
        DatasetError: a frame cannot be read, or no pixel has a label.
    """
    estimator = refinement_of(model).estimator
    allowed = label_shares(config.data.label_sets, model.classes) > 0
    allowed[IGNORE_ID] = False
    places = [(part, index) for part in parts for index in range(len(part))]
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    presences: list[Tensor] = []
    for number, (part, index) in enumerate(track(places, "judging masks", console=console)):
        frame = part[index]
        for time in range(1 + PER_FRAME):
            rng = np.random.default_rng((config.seed, number, time))
            reflected = part[int(rng.integers(len(part)))].image
            image = adverse(frame, reflected, config.conditions, config.mixtures, rng)[0] if time else frame.image
            seen = observe(model, image, config.input.sizes)
            mask, confidence = (found[0] for found in to_mask(seen.refined, model.stride))
            truth = torch.from_numpy(_like(frame.mask, *mask.shape)).long()
            labelled = (truth != IGNORE_ID).nonzero()
            drawn = labelled[torch.from_numpy(rng.permutation(len(labelled))[:PIXELS])].unbind(1)
            right = allowed[truth[drawn], mask[drawn].long()]
            rows.append((confidence[drawn], right.float(), torch.full((len(right),), len(presences))))
            presences.append(estimator.estimate(seen.statistics).presence)
    of_pixels = [torch.cat(column) for column in zip(*rows, strict=True)]
    if not len(of_pixels[0]):
        raise DatasetError("no pixel of the frames has a label of a class")
    return Judged(of_pixels[0], of_pixels[1], of_pixels[2], torch.cat(presences))


def fit(calibration: Calibration, judged: Judged) -> str:
    """Fit the temperature by the likelihood of what was right and wrong. Returns a line about it, on every fifth frame,
    held out; of fewer than five, on those that it was fitted to."""
    held = judged.image // (1 + PER_FRAME) % 5 == 4
    seen, right = judged.confidence[~held], judged.right[~held]
    presence = judged.presence[judged.image[~held]]
    calibration.requires_grad_(True)
    optimizer = Adam(calibration.parameters(), lr=LEARNING_RATE)
    for _ in range(STEPS):
        found = _calibrated(calibration, seen, presence)
        loss = F.binary_cross_entropy(found, right) + DECAY * calibration.temperature.weight.square().sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    calibration.requires_grad_(False)
    scored, which = (held, "those held out") if held.any() else (~held, "the same")
    after = _calibrated(calibration, judged.confidence[scored], judged.presence[judged.image[scored]])
    before, now = (_error(found, judged.right[scored]) for found in (judged.confidence[scored], after))
    return (
        f"{len(judged.presence)} images, calibration error on {which} {before:.4f}, calibrated {now:.4f}; "
        f"temperature of clear images {F.softplus(calibration.temperature.bias).item():.2f}"
    )


def _calibrated(calibration: Calibration, confidence: Tensor, presence: Tensor) -> Tensor:
    """[M] of pixels, each with the presences [M,K] of its image."""
    found: Tensor = calibration(confidence[:, None, None], presence)[:, 0, 0]
    return found


def _error(confidence: Tensor, right: Tensor) -> float:
    levels = (255 * confidence.detach()).round().long()
    counts = torch.stack([torch.bincount(levels, minlength=256), torch.bincount(levels, right, minlength=256)], 1)
    return float(calibration_errors(counts.numpy()))


def _like(mask: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def _evenly(frames: Sequence[LabelledFrame], most: int) -> Sequence[LabelledFrame]:
    if len(frames) <= most or not isinstance(frames, UnreadFrames):
        return frames
    chosen = np.linspace(0, len(frames) - 1, most).round().astype(int)
    return UnreadFrames([frames.items[index] for index in chosen], frames.max_height)


if __name__ == "__main__":
    cv2.setNumThreads(1)
    sys.exit(main())
