"""Draws docs/conditions.png, every condition at every level on the sample drive, and docs/realistic.jpg, every variant
of the realistic and the mixed suite; prints what each condition costs in PSNR."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from coop_perception.degradations import CONDITIONS, Condition, degrade
from coop_perception.degradations.noise import gaussian_noise
from coop_perception.degradations.realistic.suites import MIXED, REALISTIC
from coop_perception.degradations.realistic.suites import Scene as VariantScene
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


REALISTIC_SCENE = Scene(5, 130)
IN_A_ROW = 5


@dataclass(frozen=True, slots=True)
class Tile:
    picture: Image.Image
    caption: str


@dataclass(frozen=True, slots=True)
class Row:
    """Pictures under a title with a note behind it. places: how many fit into a row; 0: as many as there are."""

    title: str
    note: str
    tiles: list[Tile]
    places: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder")
    arguments = parser.parse_args()
    rows = [
        Row(name, condition.parameter, tiles(condition, SCENES.get(name, DETAIL)))
        for name, condition in CONDITIONS.items()
    ]
    picture, path = plate(rows), arguments.out / "conditions.png"
    palette = picture.quantize(256, kmeans=3)  # less than half of the file, and dithered it shows no bands
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
    for row in rows:
        print(f"{row.title:22}" + "".join(f"{tile.caption:>24}" for tile in row.tiles[1:]))
    clear = render(DETAIL)[0].image
    for sigma in CONDITIONS["gaussian_noise"].levels:
        noisy = gaussian_noise(clear, sigma, np.random.default_rng(0), "multiplicative")
        print(f"multiplicative noise {sigma}: {psnr(clear, noisy):.1f} dB")
    plate(list(suite_rows())).save(arguments.out / "realistic.jpg", quality=82, optimize=True)
    for file in ("conditions.png", "realistic.jpg"):
        print(f"{arguments.out / file}: {(arguments.out / file).stat().st_size / 1e6:.2f} MB")


def suite_rows() -> Iterator[Row]:
    """The variants of each family, and the mixtures, so many in a row; PSNR is the whole frame's."""
    frame, drive = render(REALISTIC_SCENE)
    scene = VariantScene(drive.intrinsics, frame.depth)
    for family, variants in groupby((*REALISTIC, *MIXED), lambda variant: variant.family):
        drawn = []
        for variant in variants:
            image = variant.apply(frame.image, scene, 3)
            caption = f"{variant.name.removeprefix(family).strip()}   {psnr(frame.image, image):.1f} dB"
            drawn.append(Tile(shown(image, REALISTIC_SCENE), caption))
        for first in range(0, len(drawn), IN_A_ROW):
            yield Row("" if first else family, "", drawn[first : first + IN_A_ROW], IN_A_ROW)


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


def plate(rows: list[Row]) -> Image.Image:
    """Rows of pictures as large as the width allows."""
    heading, caption = ImageFont.load_default(17), ImageFont.load_default(13)
    strips = []
    for row in rows:
        places = row.places or len(row.tiles)
        width = (WIDTH - GAP * (places + 1)) // places
        first = row.tiles[0].picture
        height, top = round(width * first.height / first.width), HEADING if row.title else 0
        strip = Image.new("RGB", (WIDTH, top + height + GAP), BACKGROUND)
        draw = ImageDraw.Draw(strip)
        draw.text((GAP, 7), row.title, TITLE, heading)
        draw.text((GAP + 12 + heading.getlength(row.title), 10), row.note, TEXT, caption)
        for index, tile in enumerate(row.tiles):
            left = GAP + index * (width + GAP)
            strip.paste(tile.picture.resize((width, height), Image.Resampling.LANCZOS), (left, top))
            box = (left, top + height - 20, left + 14 + caption.getlength(tile.caption), top + height)
            draw.rectangle(box, STRIP)
            draw.text((left + 7, top + height - 18), tile.caption, "white", caption)
        strips.append(strip)
    result = Image.new("RGB", (WIDTH, sum(strip.height for strip in strips) + GAP), BACKGROUND)
    top = 0
    for strip in strips:
        result.paste(strip, (0, top))
        top += strip.height
    return result


if __name__ == "__main__":
    main()
