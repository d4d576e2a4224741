"""Time per image of every condition at 480x360 on one core, to out/bench/degradations.json.

Where albumentations has the same effect, it is timed in turns with ours; `ratio` is its time over ours.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
from rich.progress import track

from coop_perception.degradations import CONDITIONS, degrade
from coop_perception.degradations.depth import depth_from_labels
from coop_perception.sample_scene.drive import SampleDrive

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks the network for news when it is imported
try:
    import albumentations
except ImportError:
    albumentations = None

REPEATS = 60

Run = Callable[[], object]


def main() -> None:
    cv2.setNumThreads(1)
    drive = SampleDrive()
    frame = drive.frame(40)
    conditions = {}
    for name, condition in track(CONDITIONS.items(), description="degradations"):
        ours: list[Run] = [
            lambda name=name, level=level: degrade(
                frame.image, name, level, seed=0, depth=frame.depth, intrinsics=drive.intrinsics
            )
            for level in range(1, len(condition.levels) + 1)
        ]
        peer = peers().get(name, lambda level: None)(condition.levels[1])
        theirs = [lambda peer=peer: peer(image=frame.image)] if peer else []
        *levels, last = milliseconds([*ours, *theirs])
        if peer:
            conditions[name] = {"levels_ms": levels, "peer_ms": last, "ratio": round(last / levels[1], 2)}
        else:
            conditions[name] = {"levels_ms": [*levels, last]}
    result = {
        "size": [480, 360],
        "threads": 1,
        "cpu": platform.processor() or platform.machine(),
        "peer": f"albumentations {albumentations.__version__}, level 2" if albumentations else "peer not installed",
        "conditions": conditions,
        "depth_from_labels_ms": milliseconds([lambda: depth_from_labels(frame.mask, frame.image, drive.intrinsics)])[0],
    }
    out = Path("out/bench/degradations.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def peers() -> dict[str, Callable[[float], Callable[..., object]]]:
    """albumentations' transform that does the same, from the parameter of a level."""
    if albumentations is None:
        return {}
    return {
        "gaussian_blur": lambda sigma: albumentations.GaussianBlur(sigma_limit=(sigma, sigma), p=1),
        "gaussian_noise": lambda sigma: albumentations.GaussNoise(std_range=(sigma, sigma), p=1),
        "impulse_noise": lambda share: albumentations.SaltAndPepper(amount=(share, share), p=1),
        "jpeg": lambda quality: albumentations.ImageCompression(quality_range=(quality, quality), p=1),
    }


def milliseconds(runs: list[Run]) -> list[float]:
    """Median time of each; they take turns, so that whatever else the machine does falls on all alike."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(REPEATS):
        for run, measured in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            measured.append(1000 * (time.perf_counter() - start))
    return [round(statistics.median(measured[REPEATS // 10 :]), 2) for measured in times]


if __name__ == "__main__":
    main()
