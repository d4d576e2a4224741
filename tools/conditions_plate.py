"""Draws docs/conditions.png, every condition at every level on the sample drive, and prints what each costs in PSNR."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from coop_perception.degradations import CONDITIONS, Condition, degrade
from coop_perception.degradations.noise import gaussian_noise
from coop_perception.metrics import psnr
from coop_perception.sample_scene.drive import Frame, SampleDrive

WIDTH, GAP, HEADING = 1280, 8, 30
"""Pixels: of the plate, between pictures, of a row's title."""
WHOLE_FRAME = (slice(None), slice(None))
BACKGROUND, TITLE, TEXT, STRIP = (250, 250, 248), (25, 25, 25), (110, 110, 110), (20, 20, 20)


@dataclass(frozen=True, slots=True)
class Scene:
    """A frame of the sample drive, and the part of it that is shown."""

    drive: int
    frame: int
    part: tuple[slice, slice] = WHOLE_FRAME


DETAIL = Scene(7, 20, (slice(110, 290), slice(100, 340)))
SCENES = {"fog": Scene(5, 130), "rain": Scene(2, 20), "reflection": Scene(4, 130)}
"""Where it is not DETAIL: what happens in single pixels is shown pixel by pixel, weather as a whole."""


@dataclass(frozen=True, slots=True)
class Tile:
    picture: Image.Image
    caption: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/conditions.png"))
    arguments = parser.parse_args()
    rows = [(condition, tiles(condition, SCENES.get(name, DETAIL))) for name, condition in CONDITIONS.items()]
    picture = plate(rows)
    palette = picture.quantize(256, kmeans=3)  # less than half of the file, and dithered it shows no bands
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(arguments.out, optimize=True)
    for condition, row in rows:
        print(f"{condition.name:22}" + "".join(f"{tile.caption:>24}" for tile in row[1:]))
    clear = render(DETAIL)[0].image
    for sigma in CONDITIONS["gaussian_noise"].levels:
        noisy = gaussian_noise(clear, sigma, np.random.default_rng(0), "multiplicative")
        print(f"multiplicative noise {sigma}: {psnr(clear, noisy):.1f} dB")
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB")


def render(scene: Scene) -> tuple[Frame, SampleDrive]:
    drive = SampleDrive(scene.drive)
    return drive.frame(scene.frame), drive


def tiles(condition: Condition, scene: Scene) -> list[Tile]:
    """The clear image, then each level; PSNR is the whole frame's."""
    frame, drive = render(scene)
    result = [Tile(shown(frame.image, scene), "clear")]
    for level, parameter in enumerate(condition.levels, 1):
        image = degrade(frame.image, condition.name, level, seed=3, depth=frame.depth, intrinsics=drive.intrinsics)
        result.append(Tile(shown(image, scene), f"{level}: {parameter:g}   {psnr(frame.image, image):.1f} dB"))
    return result


def shown(image: NDArray[np.uint8], scene: Scene) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image[scene.part]))


def plate(rows: list[tuple[Condition, list[Tile]]]) -> Image.Image:
    """One row per condition, its pictures as large as the width allows."""
    heading, caption = ImageFont.load_default(17), ImageFont.load_default(13)
    strips = []
    for condition, row in rows:
        width = (WIDTH - GAP * (len(row) + 1)) // len(row)
        height = round(width * row[0].picture.height / row[0].picture.width)
        strip = Image.new("RGB", (WIDTH, HEADING + height + GAP), BACKGROUND)
        draw = ImageDraw.Draw(strip)
        draw.text((GAP, 7), condition.name, TITLE, heading)
        draw.text((GAP + 12 + heading.getlength(condition.name), 10), condition.parameter, TEXT, caption)
        for index, tile in enumerate(row):
            left = GAP + index * (width + GAP)
            strip.paste(tile.picture.resize((width, height), Image.Resampling.LANCZOS), (left, HEADING))
            box = (left, HEADING + height - 20, left + 14 + caption.getlength(tile.caption), HEADING + height)
            draw.rectangle(box, STRIP)
            draw.text((left + 7, HEADING + height - 18), tile.caption, "white", caption)
        strips.append(strip)
    result = Image.new("RGB", (WIDTH, sum(strip.height for strip in strips) + GAP), BACKGROUND)
    top = 0
    for strip in strips:
        result.paste(strip, (0, top))
        top += strip.height
    return result


if __name__ == "__main__":
    main()
