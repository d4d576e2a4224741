"""Draws a drive as an animation: image and mask, before and after, as `evaluate_bag DRIVE --outputs mcap` left them.

make_bag --out out/drive --frames 24 --rate 2 --schedule config/weather.yaml
evaluate_bag out/drive --out out/drive_results --outputs mcap
python tools/drive_animation.py out/drive out/drive_results docs/drive.webp
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
from PIL import Image

from coop_perception.images import UInt8Array, decode, to_mask
from coop_perception.model.bundle import load_bundle
from coop_perception.recordings.frames import frames
from coop_perception.recordings.recording import Recording
from coop_perception.resources import default_bundle
from coop_perception.visualization import colorize, panel_grid

SIZE = 320, 240
MS_PER_FRAME = 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drive", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    first, *rest = (Image.fromarray(picture) for picture in pictures(arguments.drive, arguments.results / "results"))
    first.save(arguments.out, save_all=True, append_images=rest, duration=MS_PER_FRAME, loop=0, quality=60)


def pictures(drive: Path, results: Path) -> Iterator[UInt8Array]:
    """Of each frame: image and restored image above, raw and refined mask below."""
    classes = load_bundle(default_bundle()).classes
    image = "/front/image_raw"
    before, after, restored = (f"/front/coop/{name}/compressed" for name in ("mask_raw", "mask", "image_restored"))
    with Recording(drive) as recording:
        images = {stamp: recording.deserialize(group[image]) for stamp, group in frames(recording, [image])}
    with Recording(results) as recording:
        for stamp, group in frames(recording, [before, after, restored]):
            masks = (colorize(to_mask(recording.deserialize(group[name])), classes) for name in (before, after))
            rows = [decode(images[stamp]), decode(recording.deserialize(group[restored]))], list(masks)
            panels = [[cv2.resize(panel, SIZE, interpolation=cv2.INTER_AREA) for panel in row] for row in rows]
            yield panel_grid(panels, ["from the camera", "restored, refined"], ["image", "mask"])


if __name__ == "__main__":
    main()
