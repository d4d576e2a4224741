"""Small data sets on disk, one of each layout, with known images and masks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import yaml
from PIL import Image

from coop_perception.classes import CAMVID_CLASSES

HEIGHT, WIDTH = 24, 32
CAMERA = {
    "extrinsic": {"baseline": 0.2, "pitch": 0.04, "roll": 0.0, "x": 1.7, "y": 0.1, "yaw": 0.0, "z": 1.2},
    "intrinsic": {"fx": 30.0, "fy": 31.0, "u0": 15.0, "v0": 11.0},
}
DISPARITY = 0.5
"""Pixels, everywhere in `cityscapes`: with CAMERA, a depth of 12 m."""


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """uint8 [H,W,3] RGB, smooth, so that JPEG keeps it nearly."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3))
    return np.clip(128 + 6 * (cv2.GaussianBlur(noise, (0, 0), 4) - 128), 0, 255).astype(np.uint8)


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image)
    return path


def stripes(values: list[int], dtype: type = np.uint8) -> np.ndarray:
    """[H,W] label of vertical stripes, one per value."""
    return np.array(values, dtype)[np.arange(WIDTH) * len(values) // WIDTH][None].repeat(HEIGHT, 0)


def paired(root: Path, images: str, labels: str, label: np.ndarray, image_suffix: str = ".jpg") -> Path:
    for seed, name in enumerate(("b_1", "a_0", "held_2")):
        write(root / images / (name + image_suffix), picture(seed))
        write(root / labels / f"{name}.png", label)
    return root


def camvid(root: Path) -> Path:
    return paired(root, "images/train", "labels/train", stripes([0, 10, 11, 255]))


def ade20k(root: Path) -> Path:
    return paired(root, "images/training", "annotations/training", stripes([0, 1, 150]))


def coco_stuff(root: Path) -> Path:
    return paired(root, "images/train2017", "annotations/train2017", stripes([0, 12, 181, 255]))


def folder(root: Path) -> Path:
    paired(root, "images/train", "labels/train", stripes([0, 1, 2, 9]), ".png")
    classes = [{"id": i, "name": name, "rgb": [i, 0, 0]} for i, name in enumerate(("road", "sky", "kerb"))]
    (root / "classes.yaml").write_text(yaml.safe_dump({"classes": classes, "ignore": [9]}))
    return root


def camvid_folder(root: Path) -> Path:
    """The layout `folder` with CamVid's classes."""
    camvid(root)
    classes = [{"id": c.id, "name": c.name, "rgb": list(c.rgb)} for c in CAMVID_CLASSES]
    (root / "classes.yaml").write_text(yaml.safe_dump({"classes": classes}))
    return root


def voc2012(root: Path) -> Path:
    names = ["2007_000032", "2011_003271"]
    for seed, name in enumerate(names):
        write(root / f"JPEGImages/{name}.jpg", picture(seed))
        label = Image.fromarray(stripes([0, 15, 255]), "P")
        label.putpalette(np.random.default_rng(1).permutation(256).astype(np.uint8).repeat(3).tobytes())
        (root / "SegmentationClass").mkdir(exist_ok=True)
        label.save(root / f"SegmentationClass/{name}.png")
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(names) + "\n")
    return root


CITY_NAMES = ("aachen_000000_000019", "aachen_000001_000019", "bremen_000000_000019")


def cityscapes(root: Path) -> Path:
    for seed, name in enumerate(CITY_NAMES):
        city = name.split("_")[0]

        def path(kind: str, ending: str, city: str = city, name: str = name) -> Path:
            return root / kind / "train" / city / f"{name}_{ending}"

        write(path("leftImg8bit", "leftImg8bit.png"), picture(seed))
        write(path("gtFine", "gtFine_labelIds.png"), stripes([0, 7, 23, 33]))
        write(path("disparity", "disparity.png"), stripes([int(DISPARITY * 256) + 1], np.uint16))
        path("camera", "").parent.mkdir(parents=True, exist_ok=True)
        path("camera", "camera.json").write_text(json.dumps(CAMERA))
    return root


def foggy_cityscapes(root: Path) -> Path:
    cityscapes(root)
    for seed, name in enumerate(CITY_NAMES):
        for beta in ("0.005", "0.01", "0.02"):
            ending = f"leftImg8bit_foggy_beta_{beta}.png"
            path = root / "leftImg8bit_foggyDBF/train" / name.split("_")[0] / f"{name}_{ending}"
            write(path, picture(seed) // 2 + int(float(beta) * 5000))
    return root


def rain_cityscapes(root: Path) -> Path:
    """One image of the three is rainy, as few are in the real one."""
    cityscapes(root)
    for alpha, beta, drop in (("0.01", "0.005", "0.01"), ("0.02", "0.01", "0.005"), ("0.03", "0.015", "0.002")):
        for pattern in (1, 12):
            ending = f"leftImg8bit_rain_alpha_{alpha}_beta_{beta}_dropsize_{drop}_pattern_{pattern}.png"
            write(root / "leftImg8bit_rain/train/bremen" / f"{CITY_NAMES[2]}_{ending}", picture(2) // 2 + pattern)
    return root


def celebamask_hq(root: Path) -> Path:
    """Faces 0 and 2001 of the training partition, 1 of the validation's."""
    lines = ["idx   orig_idx   orig_file"]
    for number, original in ((0, 119613), (1, 162770), (2001, 162769)):
        lines.append(f"{number}   {original}   {original + 1:06d}.jpg")
        write(root / f"CelebA-HQ-img/{number}.jpg", picture(number, 2 * HEIGHT, 2 * WIDTH))
        skin, nose = stripes([0, 255, 255, 255]), stripes([0, 0, 255, 0])
        folder = root / f"CelebAMask-HQ-mask-anno/{number // 2000}"
        write(folder / f"{number:05d}_nose.png", nose[..., None].repeat(3, 2))
        write(folder / f"{number:05d}_skin.png", skin[..., None].repeat(3, 2))
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(lines) + "\n")
    return root


TREES: dict[str, Callable[[Path], Path]] = {
    tree.__name__: tree
    for tree in (
        camvid,
        cityscapes,
        foggy_cityscapes,
        rain_cityscapes,
        ade20k,
        coco_stuff,
        voc2012,
        celebamask_hq,
        folder,
    )
}
