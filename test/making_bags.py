"""make_bag as its tests run it, and the folders that they give it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from coop_perception.commands.make_bag import main
from coop_perception.recordings.recording import Recording

HEIGHT, WIDTH = 24, 32
STREET = np.repeat([0, 1, 3, 3], HEIGHT // 4)[:, np.newaxis] + np.zeros((1, WIDTH), np.uint8)
"""Sky above a building above the road."""


def write_pairs(folder: Path, count: int = 3) -> tuple[Path, Path]:
    images, labels = folder / "images", folder / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    for index in range(count):
        picture = np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        cv2.imwrite(str(images / f"f{index}.png"), picture)
        label = STREET.astype(np.uint8)
        label[0, 0] = 11
        cv2.imwrite(str(labels / f"f{index}.png"), label)
    return images, labels


def make(out: Path, *arguments: object) -> dict[str, list[Any]]:
    """The messages of the recording that the command makes, by topic, with the time at which each was logged."""
    main(["--out", str(out), *map(str, arguments)])
    found: dict[str, list[Any]] = {}
    with Recording(out) as recording:
        for message in recording.messages():
            found.setdefault(message.topic, []).append((message.stamp_ns, recording.deserialize(message)))
    return found


def refusal(out: Path, *arguments: object) -> str:
    """The one line with which the command refuses; it leaves nothing behind."""
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(SystemExit) as error:
        main(["--out", str(out), *map(str, arguments)])
    text = str(error.value.code)
    assert text.startswith("make_bag: ")
    assert "\n" not in text
    assert sorted(out.parent.rglob("*")) == before
    return text
