"""Every layout, on small trees of files that the tests write: what is read, and what is said of damage."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import trees
import yaml
from coop_training.config import DataConfig
from coop_training.frames import UnreadFrames, load_frames
from coop_training.layouts import LAYOUTS, SAMPLE_DRIVE
from coop_training.layouts.class_lists import published
from coop_training.layouts.depth import depth_from_disparity
from coop_training.layouts.frame import LabelledFrame
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from trees import HEIGHT, TREES, WIDTH, picture, write

from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID
from coop_perception.degradations.depth import depth_from_labels, ground_plane_depth
from coop_perception.degradations.street import is_street
from coop_perception.image_files import DatasetError
from coop_perception.sample_scene.drive import SampleDrive

ID = {c.name: c.id for c in CAMVID_CLASSES}


def load(layout: str, root: Path, *conditions: str, **settings: object) -> list[LabelledFrame]:
    return list(load_frames(DataConfig(layout=layout, root=root, **{"sample_drives": 0, **settings}), conditions))


EXPECTED = {
    # frames, and the ids of the stripes that the tree's labels have
    "camvid": (3, [0, 10, 255, 255]),
    "cityscapes": (3, [255, 0, 10, 18]),
    "foggy_cityscapes": (3, [255, 0, 10, 18]),
    "rain_cityscapes": (1, [255, 0, 10, 18]),
    "ade20k": (3, [255, 0, 149]),
    "coco_stuff": (3, [0, 11, 170, 255]),
    "voc2012": (2, [0, 15, 255]),
    "celebamask_hq": (2, [0, 1, 2, 1]),
    "folder": (3, [0, 1, 2, 255]),
}


def test_every_layout_has_a_tree() -> None:
    assert {*TREES} == {*EXPECTED} == {*LAYOUTS} - {SAMPLE_DRIVE}


def test_every_layout_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/data.md").read_text()
    for name, layout in LAYOUTS.items():
        count = len(published(layout.classes).classes) if layout.classes else "your own"
        source = {"labels": "labels", "measured": ("stereo disparity", "rendered"), None: "–"}[layout.depth]
        assert re.search(rf"^\| `{name}` \| {count} \| ({'|'.join(np.atleast_1d(source))})", text, re.MULTILINE), name


@pytest.mark.parametrize("layout", TREES)
def test_what_systems_leave_behind_is_no_data(layout: str, tmp_path: Path) -> None:
    root = TREES[layout](tmp_path)
    for path in [path for path in root.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"left behind")
        path.with_name("Thumbs.db").write_bytes(b"left behind")
    assert len(load(layout, root)) == EXPECTED[layout][0]


@pytest.mark.parametrize("layout", TREES)
def test_images_and_masks(layout: str, tmp_path: Path) -> None:
    frames = load(layout, TREES[layout](tmp_path))
    count, ids = EXPECTED[layout]
    assert len(frames) == count
    for frame in frames:
        assert np.array_equal(frame.mask, trees.stripes(ids))
        assert frame.image.shape == (HEIGHT, WIDTH, 3)
        assert frame.image.dtype == frame.mask.dtype == np.uint8
        assert frame.depth.size == 0  # nobody asked for it
    seed = {"rain_cityscapes": 2, "camvid": 1, "ade20k": 1, "coco_stuff": 1, "folder": 1}.get(layout, 0)
    truth = picture(seed, *((2 * HEIGHT, 2 * WIDTH) if layout == "celebamask_hq" else (HEIGHT, WIDTH)))
    shrunk = cv2.resize(truth, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    assert np.abs(frames[0].image.astype(int) - shrunk).mean() < 4  # JPEG's error; the wrong picture is off by 40


@pytest.mark.parametrize("layout", ["ade20k", "coco_stuff", "voc2012", "celebamask_hq", "cityscapes"])
def test_published_class_lists(layout: str) -> None:
    counts = {"ade20k": 150, "coco_stuff": 171, "voc2012": 21, "celebamask_hq": 19, "cityscapes": 19}
    listed = published(LAYOUTS[layout].classes or "")
    assert len(listed.classes) == counts[layout]
    assert {*listed.label_ids.values()} == {*range(counts[layout]), IGNORE_ID}


def test_classes_are_those_that_the_label_values_mean() -> None:
    def name(layout: str, value: int) -> str:
        listed = published(layout)
        return listed.classes[listed.label_ids[value]].name

    assert [name("ade20k", v) for v in (1, 13, 150)] == ["wall", "person", "flag"]
    assert [name("coco_stuff", v) for v in (0, 12, 91, 181)] == ["person", "stop sign", "banner", "wood"]
    assert [name("voc2012", v) for v in (0, 15, 20)] == ["background", "person", "tvmonitor"]
    assert [name("cityscapes", v) for v in (7, 24, 33)] == ["road", "person", "bicycle"]
    assert [name("celebamask_hq", v) for v in (1, 13, 18)] == ["skin", "hair", "cloth"]


def test_voc_colours_are_its_palette() -> None:
    rgb = {c.name: c.rgb for c in published("voc2012").classes}
    assert (rgb["aeroplane"], rgb["person"], rgb["tvmonitor"]) == ((128, 0, 0), (192, 128, 128), (0, 64, 128))


def test_names_of_splits(tmp_path: Path) -> None:
    assert len(load("celebamask_hq", trees.celebamask_hq(tmp_path / "faces"), split="val")) == 1
    assert len(load("celebamask_hq", tmp_path / "faces", split="")) == 3
    trees.paired(tmp_path / "ade", "images/validation", "annotations/validation", trees.stripes([1]))
    assert len(load("ade20k", tmp_path / "ade", split="val")) == 3
    trees.paired(tmp_path / "flat", "images", "labels", trees.stripes([1]))
    assert len(load("camvid", tmp_path / "flat", split="")) == 3


@pytest.mark.parametrize(("layout", "prefix", "left"), [("camvid", "held", 2), ("cityscapes", "aachen", 1)])
def test_excluded_names(layout: str, prefix: str, left: int, tmp_path: Path) -> None:
    assert len(load(layout, TREES[layout](tmp_path), exclude=(prefix,))) == left


def test_train_ids_where_there_are_no_label_ids(tmp_path: Path) -> None:
    for path in (trees.cityscapes(tmp_path) / "gtFine").rglob("*_labelIds.png"):
        path.unlink()
        write(path.with_name(path.name.replace("labelIds", "labelTrainIds")), trees.stripes([255, 0, 10, 18]))
    assert np.array_equal(load("cityscapes", tmp_path)[0].mask, trees.stripes([255, 0, 10, 18]))


# Depth.


def test_depth_and_intrinsics_from_disparity_and_camera(tmp_path: Path) -> None:
    frame = load("cityscapes", trees.cityscapes(tmp_path), "fog")[0]
    k = frame.intrinsics
    assert (k.width, k.height, k.fx, k.fy, k.cx, k.cy) == (WIDTH, HEIGHT, 30.0, 31.0, 15.0, 11.0)
    sky = frame.mask == 10
    assert np.isinf(frame.depth[sky]).all()
    assert np.allclose(frame.depth[~sky], 0.2 * 30 / trees.DISPARITY, rtol=1e-3)


def test_depth_of_a_street_behind_holes_of_a_stereo_matcher() -> None:
    """Left of whatever stands out, the right camera sees nothing of the background: holes, as matchers leave them."""
    drive = SampleDrive(5, 240, 180)
    frame = drive.frame(20)
    sky = np.isinf(frame.depth)
    k, baseline = drive.intrinsics, 0.5
    with np.errstate(divide="ignore"):
        truth = np.float32(k.fx * baseline) / frame.depth
    columns = np.arange(240)
    holes = np.zeros_like(sky)
    for row, line in enumerate(truth):
        seen_at = columns - line
        nearest_from_right = np.minimum.accumulate(seen_at[::-1])[::-1]
        holes[row] = seen_at > nearest_from_right + 0.5
    holes[:, :8] = True
    holes[-6:] = True  # the bonnet
    assert 0.03 < holes.mean() < 0.4
    depth = depth_from_disparity(np.where(holes, np.float32(np.nan), truth), sky, baseline, k.fx)
    assert np.isinf(depth[sky]).all()
    assert np.allclose(depth[~holes & ~sky], frame.depth[~holes & ~sky], rtol=1e-5)
    error = np.abs(np.exp(-0.02 * depth) - np.exp(-0.02 * frame.depth))  # what the densest fog lets through
    assert error[holes & ~sky].mean() < 0.05


@given(
    arrays(np.float32, (5, 7), elements=st.one_of(st.just(np.float32(np.nan)), st.floats(0, 100, width=32))),
    arrays(np.bool_, (5, 7)),
)
def test_filled_depth_is_one_of_those_measured(disparity: np.ndarray, sky: np.ndarray) -> None:
    measured = disparity[~np.isnan(disparity) & ~sky]
    if not measured.size:
        with pytest.raises(ValueError, match="no measured disparity"):
            depth_from_disparity(disparity, sky, 0.2, 30.0)
        return
    depth = depth_from_disparity(disparity, sky, 0.2, 30.0)
    with np.errstate(divide="ignore", over="ignore"):
        allowed = np.float32(6.0) / measured
    assert np.isinf(depth[sky]).all()
    assert np.isin(depth[~sky], allowed).all()


def test_depth_from_labels_needs_classes_of_streets(tmp_path: Path) -> None:
    assert is_street(CAMVID_CLASSES)
    assert is_street(published("cityscapes").classes)
    assert [c.name for c in published("ade20k").classes if c.name in ("road", "sky")] == ["sky", "road"]
    assert not is_street(published("ade20k").classes)  # rooms, mostly
    frame = load("folder", trees.folder(tmp_path), "fog")[0]
    camvid = {0: ID["Road"], 1: ID["Sky"], 2: IGNORE_ID, IGNORE_ID: IGNORE_ID}
    depth = depth_from_labels(np.vectorize(camvid.get)(frame.mask).astype(np.uint8), frame.image, frame.intrinsics)
    assert np.array_equal(frame.depth, depth.astype(np.float16))


def own_classes(root: Path, *classes: dict[str, object], ignore: object = 9) -> None:
    listed = [{"id": i, "rgb": [40 * i, 90, 0], **each} for i, each in enumerate(classes)]
    (root / "classes.yaml").write_text(yaml.safe_dump({"classes": listed, "ignore": ignore}))


def test_classes_say_what_is_ground_and_sky(tmp_path: Path) -> None:
    """Whatever their names are: the same depth as of those that are called road and sky."""
    named = load("folder", trees.folder(tmp_path), "fog")[0]
    own_classes(tmp_path, {"name": "runway"}, {"name": "blue"}, {"name": "hangar"})
    assert not DataConfig(layout="folder", root=tmp_path).can_show("fog")
    own_classes(
        tmp_path, {"name": "runway", "role": "ground"}, {"name": "blue", "role": "sky"}, {"name": "hangar ceiling"}
    )
    assert DataConfig(layout="folder", root=tmp_path).can_show("fog")
    stated = load("folder", tmp_path, "fog")[0]
    assert np.isinf(stated.depth[stated.mask == 1]).any()
    assert np.array_equal(stated.depth, named.depth)


def test_labels_in_colours(tmp_path: Path) -> None:
    by_id = load("folder", trees.folder(tmp_path))[0].mask
    colours = {0: (0, 0, 0), 1: (1, 0, 0), 2: (2, 0, 0), 9: (7, 8, 9)}
    for path in (tmp_path / "labels/train").iterdir():
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        write(path, np.array([colours[value] for value in values.ravel()], np.uint8).reshape(HEIGHT, WIDTH, 3))
    with pytest.raises(DatasetError, match=r"a_0.png: holds \[7, 8, 9\] \(192 pixels\), each of no class"):
        load("folder", tmp_path)
    raw = yaml.safe_load((tmp_path / "classes.yaml").read_text())
    (tmp_path / "classes.yaml").write_text(yaml.safe_dump({**raw, "ignore": [[7, 8, 9]]}))
    config = DataConfig(layout="folder", root=tmp_path)
    assert DataConfig.model_validate_json(config.model_dump_json()) == config
    assert np.array_equal(load("folder", tmp_path)[0].mask, by_id)


def test_camvid_in_its_colours(tmp_path: Path) -> None:
    by_id = load("camvid", trees.camvid(tmp_path))[0].mask
    colours = np.array([*(c.rgb for c in CAMVID_CLASSES), (0, 0, 0)], np.uint8)
    for path in (tmp_path / "labels/train").iterdir():
        write(path, colours[np.minimum(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), 11)])
    assert np.array_equal(load("camvid", tmp_path)[0].mask, by_id)


def test_black_is_ignored_in_training_only_where_it_is_listed(tmp_path: Path) -> None:
    trees.folder(tmp_path)
    own_classes(tmp_path, *({"name": name} for name in ("road", "sky", "kerb")), ignore=[])
    for path in (tmp_path / "labels/train").iterdir():
        write(path, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"holds \[0, 0, 0\]"):
        load("folder", tmp_path)
    own_classes(tmp_path, *({"name": name} for name in ("road", "sky", "kerb")), ignore=[[0, 0, 0]])
    assert (load("folder", tmp_path)[0].mask == IGNORE_ID).all()


NAMES_OF_NO_STREET = ({"name": "carpet"}, {"name": "shelf"}, {"name": "box"})


def with_depth(root: Path, suffix: str = ".npy") -> np.ndarray:
    """A folder of classes of no street, with the same depth for each frame: metres, partly unknown."""
    trees.folder(root)
    own_classes(root, *NAMES_OF_NO_STREET)
    metres = np.linspace(1, 60, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH).round(3)
    metres[:2] = 0 if suffix == ".png" else np.nan
    for name in ("b_1", "a_0", "held_2"):
        path = root / f"depth/train/{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".png":
            cv2.imwrite(str(path), (metres * 1000).round().astype(np.uint16))
        else:
            np.save(path, metres)
    return metres


@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_depth_of_ones_own(suffix: str, tmp_path: Path) -> None:
    """Where it is unknown, that of an empty street; the sky, where the classes have one, is infinitely far."""
    metres = with_depth(tmp_path, suffix)
    assert DataConfig(layout="folder", root=tmp_path).can_show("fog")
    frame = load("folder", tmp_path, "fog")[0]
    known = metres > 0
    assert np.allclose(frame.depth[known], metres[known], rtol=1e-3)
    assert np.allclose(frame.depth[~known], ground_plane_depth(frame.intrinsics)[~known], rtol=1e-3)
    assert load("folder", tmp_path, "jpeg")[0].depth.size == 0  # nobody asked for it
    own_classes(tmp_path, *NAMES_OF_NO_STREET[:1], {"name": "daylight", "role": "sky"}, {"name": "box"})
    frame = load("folder", tmp_path, "fog")[0]
    assert np.array_equal(np.isinf(frame.depth), frame.mask == 1)


def test_depth_of_ones_own_is_kept_in_mind_without_the_folder(tmp_path: Path) -> None:
    with_depth(tmp_path)
    config = DataConfig(layout="folder", root=tmp_path)
    shutil.rmtree(tmp_path / "depth")
    again = DataConfig.model_validate_json(config.model_dump_json())
    assert again.can_show("fog")
    with pytest.raises(DatasetError, match=r"depth: no such folder, though data\.depth_folder is true"):
        load_frames(again, ("fog",))


def depth_missing(root: Path) -> str:
    (root / "depth/train/a_0.npy").unlink()
    (root / "depth/train/b_1.npy").unlink()
    return r"a_0.png: has no depth .*depth/train/a_0.png, nor .npy \(nor have 1 of 3 other images\)"


def depth_of_no_split(root: Path) -> str:
    (root / "depth/train").rename(root / "depth/val")
    return "depth/train: no such folder"


def depth_twice(root: Path) -> str:
    write(root / "depth/train/a_0.png", trees.stripes([300], np.uint16))
    return "a_0.png: has the same stem as a_0.npy"


def depth_of_8_bits(root: Path) -> str:
    (root / "depth/train/a_0.npy").unlink()
    write(root / "depth/train/a_0.png", trees.stripes([3]))
    return "a_0.png: is uint8 of shape .*; a depth file is a PNG of one channel with 16 bits, in millimetres"


def depth_of_integers(root: Path) -> str:
    np.save(root / "depth/train/a_0.npy", np.ones((HEIGHT, WIDTH), np.int32))
    return "a_0.npy: is int32 of shape"


def depth_size(root: Path) -> str:
    np.save(root / "depth/train/a_0.npy", np.ones((HEIGHT // 2, WIDTH // 2), np.float32))
    return "a_0.npy: is 16x12, its image 32x24"


def depth_of_nothing(root: Path) -> str:
    np.save(root / "depth/train/a_0.npy", np.zeros((HEIGHT, WIDTH), np.float32))
    return "a_0.npy: holds no depth above 0"


def depth_of_objects(root: Path) -> str:
    np.save(root / "depth/train/a_0.npy", np.array([{}], object), allow_pickle=True)
    return "a_0.npy: cannot be read as .npy"


def depth_cut(root: Path) -> str:
    path = root / "depth/train/a_0.npy"
    path.write_bytes(path.read_bytes()[:200])
    return "a_0.npy: cannot be read as .npy"


@pytest.mark.parametrize(
    "damage",
    [
        *(depth_missing, depth_of_no_split, depth_twice, depth_of_8_bits, depth_of_integers, depth_size),
        *(depth_of_nothing, depth_of_objects, depth_cut),
    ],
)
def test_depth_that_cannot_be_used(damage: Callable[[Path], str], tmp_path: Path) -> None:
    with_depth(tmp_path)
    says = damage(tmp_path)
    with pytest.raises(DatasetError, match=says):
        load("folder", tmp_path, "fog")


def test_ready_made_fog_needs_no_disparity(tmp_path: Path) -> None:
    trees.foggy_cityscapes(tmp_path)
    shutil.rmtree(tmp_path / "disparity")
    shutil.rmtree(tmp_path / "camera")
    assert len(load("foggy_cityscapes", tmp_path, "fog", "jpeg")) == 3


# Degraded images that come with the data.


def test_foggy_images_with_their_strengths(tmp_path: Path) -> None:
    for index, frame in enumerate(load("foggy_cityscapes", trees.foggy_cityscapes(tmp_path))):
        assert [(r.condition, r.strength) for r in frame.ready_made] == [("fog", s / 3) for s in (1, 2, 3)]
        for ready_made, offset in zip(frame.ready_made, (25, 50, 100), strict=True):
            assert np.array_equal(ready_made.read(HEIGHT, WIDTH), picture(index) // 2 + offset)


def test_first_release_of_foggy_images(tmp_path: Path) -> None:
    trees.foggy_cityscapes(tmp_path)
    (tmp_path / "leftImg8bit_foggyDBF").rename(tmp_path / "leftImg8bit_foggy")
    assert len(load("foggy_cityscapes", tmp_path)) == 3


def test_rainy_images_with_their_strengths(tmp_path: Path) -> None:
    (frame,) = load("rain_cityscapes", trees.rain_cityscapes(tmp_path))
    assert [(r.condition, r.strength) for r in frame.ready_made] == [("rain", s / 3) for s in (1, 1, 2, 2, 3, 3)]
    for ready_made in frame.ready_made:
        pattern = 12 if ready_made.path.stem.endswith("_12") else 1
        assert np.array_equal(ready_made.read(HEIGHT, WIDTH), picture(2) // 2 + pattern)


def test_ready_made_image_of_other_proportions(tmp_path: Path) -> None:
    (first, *_) = load("foggy_cityscapes", trees.foggy_cityscapes(tmp_path))[0].ready_made
    write(first.path, picture(0, HEIGHT, WIDTH + 3))
    with pytest.raises(DatasetError, match=r"beta_0.005.png: is 35x24, its clear image has the proportions of 32x24"):
        first.read(HEIGHT, WIDTH)


# Size and memory.


def test_high_frames_are_scaled_down_with_all_that_belongs_to_them(tmp_path: Path) -> None:
    trees.cityscapes(tmp_path)
    whole, small = (load("cityscapes", tmp_path, "fog", max_height=height)[0] for height in (24, 12))
    assert whole.mask.shape == (24, 32)
    assert small.image.shape == (12, 16, 3)
    assert small.mask.shape == small.depth.shape == (12, 16)
    assert small.intrinsics.fx == whole.intrinsics.fx / 2
    assert small.intrinsics.cx == (15 + 0.5) / 2 - 0.5
    low = load("cityscapes", tmp_path, max_height=100)[0]
    assert low.mask.shape == (24, 32)  # never up: that only blurs


def test_what_does_not_fit_is_read_anew(tmp_path: Path) -> None:
    """The same frames either way, sample drives last."""
    trees.camvid(tmp_path)
    settings = {"root": tmp_path, "sample_drives": 1, "frames_per_drive": 2}
    held = load_frames(DataConfig(**settings), ("fog",))
    unread = load_frames(DataConfig(**settings, memory_gb=0), ("fog",))
    assert isinstance(held.parts[0], list)
    assert isinstance(unread.parts[0], UnreadFrames)
    assert len(held) == len(unread) == 5
    for one, other in zip(held, unread, strict=True):
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.depth, other.depth)
    (tmp_path / "images/train/a_0.jpg").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"a_0\.jpg"):
        unread[0]
    with pytest.raises(IndexError):
        unread[5]


def test_sample_drives_alone() -> None:
    frames = load_frames(DataConfig(sample_drives=1, frames_per_drive=2), ())
    assert [frame.mask.max() < len(CAMVID_CLASSES) for frame in frames] == [True, True]
    assert np.isinf(frames[0].depth).any()


def test_nothing_to_train_on() -> None:
    with pytest.raises(DatasetError, match=r"no training frame: data\.root is not set"):
        load_frames(DataConfig(sample_drives=0), ())


# Damage.

Damage = Callable[[Path], str]


def no_image_folder(root: Path) -> str:
    (root / "images/train").rename(root / "images/other")
    return r"images/train: no such folder; docs/data.md has the tree that the layout camvid expects"


def no_label(root: Path) -> str:
    (root / "labels/train/a_0.png").unlink()
    return r"a_0.jpg: has no label .*labels/train/a_0.png"


def camvid_id(root: Path) -> str:
    write(root / "labels/train/a_0.png", trees.stripes([0, 12]))
    return r"labels/train/a_0.png: holds label ids \[12\]; expected 0..10, or 11, 255"


def cut_image(root: Path) -> str:
    path = root / "images/train/a_0.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    return "a_0.jpg: is JPEG that is cut off"


def label_size(root: Path) -> str:
    write(root / "labels/train/a_0.png", np.zeros((HEIGHT, WIDTH - 1), np.uint8))
    return "a_0.png: is 31x24, its image 32x24"


def ade_id(root: Path) -> str:
    write(root / "annotations/training/a_0.png", trees.stripes([151]))
    return r"a_0.png: holds label ids \[151\]; expected 1..150, or 0, 255"


def coco_id(root: Path) -> str:
    write(root / "annotations/train2017/a_0.png", trees.stripes([11]))
    return r"a_0.png: holds label ids \[11\]; expected 0..10, 12..24, 26..27, "


def no_voc_list(root: Path) -> str:
    (root / "ImageSets/Segmentation/train.txt").unlink()
    return "Segmentation/train.txt: cannot be read .No such file.*its splits are train, val, trainval"


def no_voc_label(root: Path) -> str:
    (root / "SegmentationClass/2011_003271.png").unlink()
    return "2011_003271.png: missing, though .*train.txt names it"


def voc_colours(root: Path) -> str:
    write(root / "SegmentationClass/2007_000032.png", picture(0))
    return "2007_000032.png: is uint8 of shape .* a label is one channel"


def no_city(root: Path) -> str:
    (root / "leftImg8bit").rename(root / "left")
    return r"leftImg8bit/train: holds no <city>/\*_leftImg8bit.png"


def no_city_label(root: Path) -> str:
    (root / "gtFine/train/bremen/bremen_000000_000019_gtFine_labelIds.png").unlink()
    return "bremen_000000_000019_gtFine_labelIds.png: missing; unpack Cityscapes' gtFine_trainvaltest.zip into "


def city_id(root: Path) -> str:
    write(root / "gtFine/train/bremen/bremen_000000_000019_gtFine_labelIds.png", trees.stripes([34]))
    return r"labelIds.png: holds label ids \[34\]; expected 7..8, 11..13, "


def no_disparity(root: Path) -> str:
    for path in (root / "disparity").rglob("aachen*.png"):
        path.unlink()
    return r"aachen_000000_000019_disparity.png: missing \(and 1 others\); unpack .* disparity_trainvaltest.zip"


def empty_disparity(root: Path) -> str:
    write(root / "disparity/train/aachen/aachen_000000_000019_disparity.png", trees.stripes([0], np.uint16))
    return "aachen_000000_000019_disparity.png: holds no measured disparity"


def disparity_of_8_bits(root: Path) -> str:
    write(root / "disparity/train/aachen/aachen_000000_000019_disparity.png", trees.stripes([3]))
    return "disparity.png: is uint8 of shape .*; a disparity map is a PNG of one channel with 16 bits"


def disparity_size(root: Path) -> str:
    path = root / "disparity/train/aachen/aachen_000000_000019_disparity.png"
    write(path, np.ones((HEIGHT, WIDTH + 1), np.uint16))
    return "disparity.png: is 33x24, its image 32x24"


def no_camera(root: Path) -> str:
    (root / "camera/train/bremen/bremen_000000_000019_camera.json").unlink()
    return "bremen_000000_000019_camera.json: missing; unpack Cityscapes' camera_trainvaltest.zip"


def camera_without_baseline(root: Path) -> str:
    path = root / "camera/train/bremen/bremen_000000_000019_camera.json"
    path.write_text(json.dumps({**trees.CAMERA, "extrinsic": {}}))
    return r"camera.json: no camera file .*baseline.*; expected JSON with intrinsic.fx"


def camera_without_length(root: Path) -> str:
    path = root / "camera/train/bremen/bremen_000000_000019_camera.json"
    path.write_text(json.dumps({**trees.CAMERA, "extrinsic": {"baseline": 0}}))
    return r"camera.json: .*baseline 0.0 must be above 0"


def camera_no_json(root: Path) -> str:
    (root / "camera/train/bremen/bremen_000000_000019_camera.json").write_text("fx = 3")
    return r"camera.json: no camera file"


def no_fog(root: Path) -> str:
    (root / "leftImg8bit_foggyDBF").rename(root / "fog")
    return "leftImg8bit_foggyDBF/train: holds no .* beside leftImg8bit and gtFine"


def fog_without_clear(root: Path) -> str:
    (root / "leftImg8bit/train/bremen/bremen_000000_000019_leftImg8bit.png").unlink()
    return "bremen_000000_000019_leftImg8bit.png: missing; unpack Cityscapes' leftImg8bit_trainvaltest.zip"


def fog_of_unknown_density(root: Path) -> str:
    path = root / "leftImg8bit_foggyDBF/train/bremen/bremen_000000_000019_leftImg8bit_foggy_beta_0.02.png"
    path.rename(path.with_name(path.name.replace("0.02", "0.03")))
    return "foggy_beta_0.03.png: no name of a fog image, whose beta is one of 0.005, 0.01, 0.02"


def fog_with_a_garbled_name(root: Path) -> str:
    path = root / "leftImg8bit_foggyDBF/train/bremen/bremen_000000_000019_leftImg8bit_foggy_beta_0.02.png"
    path.rename(path.with_name(path.name.replace("0.02", "0..2")))
    return r"foggy_beta_0\.\.2.png: no name of a fog image"


def rain_by_another_name(root: Path) -> str:
    write(root / "leftImg8bit_rain/train/bremen" / f"{trees.CITY_NAMES[2]}_leftImg8bit_rain.png", picture(0))
    return "leftImg8bit_rain.png: no name of a rain image"


def no_faces(root: Path) -> str:
    (root / "CelebA-HQ-img").rename(root / "faces")
    return "CelebA-HQ-img: holds no <number>.jpg; the root is the unpacked CelebAMask-HQ.zip"


def no_mapping(root: Path) -> str:
    (root / "CelebA-HQ-to-CelebA-mapping.txt").unlink()
    return "mapping.txt: cannot be read .* part of CelebAMask-HQ.zip"


def garbled_mapping(root: Path) -> str:
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("idx orig_idx\nzero one\n")
    return "mapping.txt: cannot be read"


def no_face(root: Path) -> str:
    (root / "CelebA-HQ-img/2001.jpg").unlink()
    return "2001.jpg: missing, though CelebA-HQ-to-CelebA-mapping.txt names it"


def no_masks(root: Path) -> str:
    for path in (root / "CelebAMask-HQ-mask-anno/1").iterdir():
        path.unlink()
    return r"2001.jpg: has no mask .*CelebAMask-HQ-mask-anno/1/02001_\*.png"


def mask_of_no_class(root: Path) -> str:
    write(root / "CelebAMask-HQ-mask-anno/0/00000_beard.png", trees.stripes([1]))
    return "00000_beard.png: its name is no class's; known: background, skin"


def mask_size(root: Path) -> str:
    write(root / "CelebAMask-HQ-mask-anno/0/00000_hat.png", np.zeros((5, 5, 3), np.uint8))
    return "00000_hat.png: is 5x5, others 32x24"


def cut_mask(root: Path) -> str:
    path = root / "CelebAMask-HQ-mask-anno/0/00000_skin.png"
    path.write_bytes(path.read_bytes()[:40])
    return "00000_skin.png: is PNG that is cut off"


@pytest.mark.parametrize(
    ("layout", "damage"),
    [
        *[("camvid", d) for d in (no_image_folder, no_label, camvid_id, cut_image, label_size)],
        ("ade20k", ade_id),
        ("coco_stuff", coco_id),
        *[("voc2012", d) for d in (no_voc_list, no_voc_label, voc_colours)],
        *[("cityscapes", d) for d in (no_city, no_city_label, city_id, no_disparity, empty_disparity)],
        *[("cityscapes", d) for d in (disparity_of_8_bits, disparity_size, no_camera, camera_without_baseline)],
        *[("cityscapes", d) for d in (camera_without_length, camera_no_json)],
        *[("foggy_cityscapes", d) for d in (no_fog, fog_without_clear, fog_of_unknown_density, no_city_label)],
        ("foggy_cityscapes", fog_with_a_garbled_name),
        ("rain_cityscapes", rain_by_another_name),
        *[("celebamask_hq", d) for d in (no_faces, no_mapping, garbled_mapping, no_face, no_masks)],
        *[("celebamask_hq", d) for d in (mask_of_no_class, mask_size, cut_mask)],
    ],
)
def test_damage_is_named(layout: str, damage: Damage, tmp_path: Path) -> None:
    says = damage(TREES[layout](tmp_path))
    conditions = ("fog",) if layout == "cityscapes" else ()
    with pytest.raises(DatasetError, match=says):
        load(layout, tmp_path, *conditions)


def test_unknown_face_split(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has no split 'dev'; known: train, val, test, or '' for all"):
        load("celebamask_hq", trees.celebamask_hq(tmp_path), split="dev")


# A user's own classes.


def test_folder_keeps_its_classes_without_the_folder(tmp_path: Path) -> None:
    """As a checkpoint's configuration must, where the data is elsewhere."""
    config = DataConfig(layout="folder", root=trees.folder(tmp_path))
    (tmp_path / "classes.yaml").unlink()
    again = DataConfig.model_validate_json(config.model_dump_json())
    assert again == config
    assert [c.name for c in again.class_list.classes] == ["road", "sky", "kerb"]
    colours = {(0, 0, 0): 0, (1, 0, 0): 1, (2, 0, 0): 2}
    assert again.class_list.label_ids == {0: 0, 1: 1, 2: 2, 9: IGNORE_ID, 255: IGNORE_ID} | colours


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("classes: [", "cannot be read as YAML"),
        ("- road", "expected the fields 'classes'"),
        ("classes: {road: 0}", "expected the fields 'classes'"),
        ("classes: []\nvoid: 3", "expected the fields 'classes'"),
        ("classes: []", "class ids are"),
        ("classes: [{id: 0, name: road}]", "each needs id, name and rgb"),
        ("classes: [{id: 1, name: road, rgb: [0, 0, 0]}]", r"class ids are \[1\], expected 0..C-1"),
        ("classes: [{id: 0, name: road, rgb: [0, 0, 0]}]\nignore: 0", r"ignore: \[0\]: a class has that id"),
        ("classes: [{id: 0, name: road, rgb: [0, 0, 0]}]\nignore: [256]", r"ignore: \[256\]"),
        ("classes: [{id: 0, name: road, rgb: [0, 0, 0]}]\nignore: [[3]]", "not enough values"),
        (
            "classes: [{id: 0, name: road, rgb: [0, 0, 0]}]\nignore: [[0, 0, 0]]",
            r"ignore: \[\(0, 0, 0\)\]",
        ),
        ("classes: [{id: 0, name: road, rgb: [0, 0, 0]}]\nignore: [[0, 0, 256]]", r"or it is not in 0..255"),
        ("classes: [{id: 0, name: road, rgb: [0, 0, 0], rôle: sky}]", "a class has rôle; known: id, name, rgb, role"),
    ],
)
def test_class_files_that_cannot_be_used(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text(content)
    with pytest.raises(ValidationError, match=f"classes.yaml: .*{says}"):
        DataConfig(layout="folder", root=tmp_path)


def test_one_ignored_id_needs_no_list(tmp_path: Path) -> None:
    trees.folder(tmp_path)
    raw = yaml.safe_load((tmp_path / "classes.yaml").read_text())
    (tmp_path / "classes.yaml").write_text(yaml.safe_dump({**raw, "ignore": 9}))
    assert DataConfig(layout="folder", root=tmp_path).ignore == (9,)


# Configurations.


def test_layout_that_was_left_out(tmp_path: Path) -> None:
    assert DataConfig().layout == SAMPLE_DRIVE
    assert DataConfig(root=tmp_path).layout == "camvid"
    assert DataConfig(root=tmp_path).sample_drives == DataConfig().sample_drives == 40
    assert DataConfig(root=tmp_path, layout="cityscapes").sample_drives == 0


def test_sample_drives_go_with_camvids_classes(tmp_path: Path) -> None:
    folder = DataConfig(layout="folder", root=trees.camvid_folder(tmp_path), sample_drives=3)
    assert folder.class_list.classes == CAMVID_CLASSES
    with pytest.raises(ValidationError, match=r"sample_drives is 3: .* and the layout voc2012 has others"):
        DataConfig(layout="voc2012", root=tmp_path, sample_drives=3)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"layout": "kitti", "root": "/data"}, "layout 'kitti' is unknown; known: camvid, cityscapes"),
        ({"layout": "camvid"}, "layout camvid: root is None; sample_drive takes none, every other needs one"),
        ({"layout": "folder"}, "layout folder: root is None"),
        ({"layout": "sample_drive", "root": "/data"}, "layout sample_drive: root is /data"),
        ({"root": "/data", "ignore": [3]}, "classes, ignore and depth_folder are for the layout folder"),
    ],
)
def test_settings_that_contradict_each_other(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        DataConfig(**fields)


@pytest.mark.parametrize(
    ("layout", "possible"),
    [
        ("camvid", True),
        ("cityscapes", True),
        ("folder", True),
        ("voc2012", False),
        ("celebamask_hq", False),
        ("ade20k", False),
        ("coco_stuff", False),
    ],
)
def test_fog_needs_a_layout_with_depth(layout: str, possible: bool, tmp_path: Path) -> None:
    config = DataConfig(layout=layout, root=TREES[layout](tmp_path))
    assert config.can_show("fog") is possible
    assert config.can_show("jpeg")
