"""Frames per second of the sample drive on one core, to out/bench/sample_drive.json."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path

import cv2
from rich.progress import track

from coop_perception.sample_scene.drive import SampleDrive

SEEDS = range(6)
FRAMES = 150
"""Frames timed per seed, after the first one."""


def main() -> None:
    cv2.setNumThreads(1)
    build, first, milliseconds = [], [], []
    for seed in track(SEEDS, description="sample drive"):
        start = time.perf_counter()
        drive = SampleDrive(seed)
        built = time.perf_counter()
        drive.frame(0)
        build.append(built - start)
        first.append(time.perf_counter() - built)
        for index in range(1, FRAMES + 1):
            start = time.perf_counter()
            drive.frame(index)
            milliseconds.append((time.perf_counter() - start) * 1000)
    milliseconds.sort()
    result = {
        "size": [480, 360],
        "threads": 1,
        "cpu": platform.processor() or platform.machine(),
        "fps": round(1000 * len(milliseconds) / sum(milliseconds), 1),
        "frame_ms": {
            "p50": round(milliseconds[len(milliseconds) // 2], 1),
            "p99": round(milliseconds[int(len(milliseconds) * 0.99)], 1),
        },
        "construction_s": round(max(build), 2),
        "first_frame_s": round(max(first), 2),
    }
    out = Path("out/bench/sample_drive.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
