"""Folders of labelled images: what is read, and what is said of damage."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID, SemanticClass, parse_classes
from coop_perception.image_files import DatasetError, read_image
from coop_perception.recordings.labelled_folders import (
    Pair,
    find_pairs,
    find_references,
    label_ids,
    odd_pairs,
    read_label,
    read_pair,
)

ALL = {i: i for i in range(256)}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("labels") / "label.png"


def indexed(mask: np.ndarray, palette: np.ndarray, **options: object) -> bytes:
    image = Image.fromarray(mask, "P")
    image.putpalette(palette.tobytes())
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


@given(arrays(np.uint8, (4, 5)), arrays(np.uint8, (256, 3), elements=st.sampled_from([0, 128])))
def test_indexed_png_is_read_as_its_indices(path: Path, mask: np.ndarray, palette: np.ndarray) -> None:
    """With any palette, colours that occur several times included: OpenCV shows them, the file means the indices."""
    path.write_bytes(indexed(mask, palette))
    assert np.array_equal(read_label(path, ALL), mask)


def test_indices_of_one_colour_stay_apart(path: Path) -> None:
    mask = np.zeros((8, 12), np.uint8)
    mask[:, 4:8], mask[:, 8:] = 3, 255
    palette = np.array([0, 0, 0, 128, 0, 0, 192, 192, 128, 128, 64, 128] + [0, 0, 0] * 252, np.uint8)
    text = PngInfo()
    text.add_text("PLTE", "PLTE")
    path.write_bytes(indexed(mask, palette, pnginfo=text))
    assert np.unique(read_label(path, ALL)).tolist() == [0, 3, 255]


def test_one_bit_is_zero_and_one(path: Path) -> None:
    mask = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    Image.fromarray(mask.astype(bool)).save(path)
    assert np.array_equal(read_label(path), mask)


def test_indexed_png_with_transparency_and_few_colours(path: Path) -> None:
    mask = np.array([[0, 1], [2, 1]], np.uint8)
    path.write_bytes(indexed(mask, np.array([[0, 0, 0], [9, 9, 9], [9, 9, 8]], np.uint8), bits=2, transparency=0))
    assert np.array_equal(read_label(path, ALL), mask)


@given(st.dictionaries(st.integers(0, 255), st.integers(0, 255), min_size=1), st.data())
def test_values_become_the_ids_they_stand_for(path: Path, ids: dict[int, int], data: st.DataObject) -> None:
    label = data.draw(arrays(np.uint8, (3, 4), elements=st.sampled_from(sorted(ids))))
    cv2.imwrite(str(path), label)
    assert np.array_equal(read_label(path, ids), np.vectorize(ids.get)(label))


def test_void_is_camvids_alone() -> None:
    assert label_ids(CAMVID_CLASSES)[11] == label_ids(CAMVID_CLASSES)[255] == IGNORE_ID
    other = tuple(SemanticClass(c.id, c.name + "!", c.rgb) for c in CAMVID_CLASSES)
    assert 11 not in label_ids(other)


def colour_label(path: Path) -> str:
    cv2.imwrite(str(path), np.full((4, 5, 3), 77, np.uint8))
    return r"holds \[77, 77, 77\] \(20 pixels\), each of no class, or of several; expected the classes' rgb"


def sixteen_bits(path: Path) -> str:
    cv2.imwrite(str(path), np.zeros((4, 5), np.uint16))
    return "is uint16"


def unknown_id(path: Path) -> str:
    cv2.imwrite(str(path), np.array([[0, 12, 200]], np.uint8))
    return r"holds label ids \[12, 200\]; expected 0..10, or 11, 255 \(not scored\)"


def empty(path: Path) -> str:
    path.write_bytes(b"")
    return "is empty; copy or download it again"


def no_image(path: Path) -> str:
    path.write_text("<!DOCTYPE html>")
    return "begins with .* which is no image format; expected PNG$"


def lossy(path: Path) -> str:
    path.write_bytes(cv2.imencode(".jpg", np.zeros((4, 5), np.uint8))[1].tobytes())
    return "is JPEG, expected PNG; convert it$"


def cut_png(path: Path) -> str:
    whole = cv2.imencode(".png", np.arange(4096, dtype=np.uint16).astype(np.uint8).reshape(64, 64))[1].tobytes()
    path.write_bytes(whole[: len(whole) // 2])
    return "is PNG whose chunk 'IDAT' at byte 33 claims .* bytes, .* follow: it is cut off; copy or download it again"


def missing(path: Path) -> str:
    path.unlink(missing_ok=True)
    return "cannot be read: No such file"


@pytest.mark.parametrize("damage", [colour_label, sixteen_bits, unknown_id, empty, no_image, lossy, cut_png, missing])
def test_labels_that_cannot_be_used(path: Path, damage: object) -> None:
    says = damage(path)  # type: ignore[operator]
    with pytest.raises(DatasetError, match=f"label.png: {says}"):
        read_label(path)


def photograph(height: int, width: int) -> np.ndarray:
    return cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8), (0, 0), 2)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.995])
def test_jpeg_that_was_cut_off(tmp_path: Path, share: float) -> None:
    """OpenCV would fill the rest with grey."""
    whole = cv2.imencode(".jpg", photograph(120, 160))[1].tobytes()
    path = tmp_path / "cut.jpg"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DatasetError, match=r"cut.jpg: is JPEG .*is cut off; copy or download it again"):
        read_image(path)


@pytest.mark.parametrize(
    "option", [{}, {"progressive": True}, {"exif": b"Exif\0\0thumbnail: \xff\xd8 \xff\xda \xff\xd9"}]
)
def test_whole_jpegs_are_not_taken_for_cut_ones(tmp_path: Path, option: dict[str, object]) -> None:
    path = tmp_path / "whole.jpg"
    Image.fromarray(photograph(40, 60)).save(path, **option)
    path.write_bytes(path.read_bytes() + b"\0\0appended")
    assert read_image(path).shape == (40, 60, 3)


def test_images_are_rgb(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.fromarray(np.full((2, 3, 3), (200, 10, 20), np.uint8)).save(path)
    assert np.array_equal(read_image(path)[0, 0], (200, 10, 20))


def oriented(path: Path, orientation: int) -> tuple[np.ndarray, np.ndarray]:
    """Written with EXIF; returned as stored and as shown."""
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(photograph(40, 60)).save(path, exif=exif)
    with Image.open(path) as stored:
        return np.asarray(stored.convert("RGB")), np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))


def apart(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b).mean())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_label_of_the_stored_pixels_pairs_whatever_exif_says(tmp_path: Path, orientation: int) -> None:
    pair = Pair(tmp_path / "image.jpg", tmp_path / "label.png")
    stored, _ = oriented(pair.image, orientation)
    cv2.imwrite(str(pair.label), np.zeros((40, 60), np.uint8))
    assert apart(read_pair(pair)[0], stored) < 1
    assert apart(read_image(pair.image), stored) < 1


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_an_image_is_turned_where_only_that_fits_its_label(tmp_path: Path, orientation: int) -> None:
    pair = Pair(tmp_path / "image.jpg", tmp_path / "label.png")
    _, shown = oriented(pair.image, orientation)
    cv2.imwrite(str(pair.label), np.zeros((60, 40), np.uint8))
    assert apart(read_pair(pair)[0], shown) < 1


def test_what_is_odd_about_folders_is_said(tmp_path: Path) -> None:
    """The label of an image that EXIF turns upside down may be of either view; and nobody misses what is left over."""
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder in (images, labels):
        folder.mkdir()
    exif = Image.Exif()
    for name, orientation in (("a", 1), ("b", 3)):
        exif[274] = orientation
        Image.new("RGB", (8, 6)).save(images / f"{name}.jpg", exif=exif)
        Image.new("L", (8, 6)).save(labels / f"{name}.png")
    (turned,) = odd_pairs(images, labels)
    assert f"{images}/b.jpg: EXIF turns or mirrors it and 0 others, of 2 looked at" in turned
    Image.new("L", (8, 6)).save(labels / "c.png")
    assert odd_pairs(images, labels) == [f"1 of 3 labels in {labels} belong to no image in {images}", turned]


@pytest.mark.parametrize("orientation", [1, 3])
def test_no_image_is_turned_without_exifs_saying_so(tmp_path: Path, orientation: int) -> None:
    pair = Pair(tmp_path / "image.jpg", tmp_path / "label.png")
    oriented(pair.image, orientation)
    cv2.imwrite(str(pair.label), np.zeros((60, 40), np.uint8))
    with pytest.raises(DatasetError, match=r"label.png: is 40x60, its image 60x40"):
        read_pair(pair)


def test_what_systems_leave_behind_is_no_data(tmp_path: Path) -> None:
    images(tmp_path / "images", "0.png", "._0.png", ".1.jpg")
    images(tmp_path / "labels", "0.png", "._0.png")
    for name in (".DS_Store", "Thumbs.db"):
        (tmp_path / "images" / name).write_bytes(b"left behind")
    assert [pair.image.name for pair in find_pairs(tmp_path / "images", tmp_path / "labels")] == ["0.png"]
    images(tmp_path / "images", ".thumbnails/0.png")
    images(tmp_path / "images", "@eaDir/0.png")
    assert list(find_references(tmp_path / "images", tmp_path / "labels")) == [tmp_path / "images/0.png"]


def test_image_and_label_of_different_size(tmp_path: Path) -> None:
    pair = Pair(tmp_path / "image.png", tmp_path / "label.png")
    cv2.imwrite(str(pair.image), np.zeros((4, 6, 3), np.uint8))
    cv2.imwrite(str(pair.label), np.zeros((4, 5), np.uint8))
    with pytest.raises(DatasetError, match=r"label.png: is 5x4, its image 6x4"):
        read_pair(pair)


OWN = parse_classes(
    [
        {"id": 0, "name": "lane", "rgb": [128, 64, 128]},
        {"id": 1, "name": "grass", "rgb": [0, 255, 0]},
        {"id": 2, "name": "left", "rgb": [9, 9, 9]},
        {"id": 3, "name": "right", "rgb": [9, 9, 9]},
    ]
)


@pytest.mark.parametrize("alpha", [False, True])
def test_labels_in_the_classes_colours(path: Path, alpha: bool) -> None:
    rgb = np.array([[[128, 64, 128], [0, 255, 0]], [[0, 0, 0], [128, 64, 128]]], np.uint8)
    opaque = np.full((2, 2, 1), 255, np.uint8)
    Image.fromarray(np.concatenate([rgb, opaque], 2) if alpha else rgb).save(path)
    assert read_label(path, label_ids(OWN)).tolist() == [[0, 1], [IGNORE_ID, 0]]


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        ([[128, 64, 128], [128, 64, 127]], r"holds \[128, 64, 127\] \(1 pixels\), each of no class, or of several"),
        ([[9, 9, 9], [0, 255, 0]], r"holds \[9, 9, 9\] \(1 pixels\), each of no class, or of several"),
        ([[i, 1, 1] for i in range(5)], r"holds .* \(1 pixels\) and 2 other colours, each of no class"),
        ([[0, 255, 0, 255], [0, 255, 0, 254]], "is transparent in places"),
    ],
)
def test_colours_of_no_class(path: Path, pixels: list[list[int]], says: str) -> None:
    Image.fromarray(np.array([pixels], np.uint8)).save(path)
    with pytest.raises(DatasetError, match=f"label.png: {says}"):
        read_label(path, label_ids(OWN))


@given(arrays(np.uint8, (4, 5), elements=st.integers(0, len(CAMVID_CLASSES))))
def test_colours_are_read_as_ids_are(path: Path, mask: np.ndarray) -> None:
    colours = np.array([*(c.rgb for c in CAMVID_CLASSES), (0, 0, 0)], np.uint8)
    Image.fromarray(colours[mask]).save(path)
    in_colours = read_label(path)
    cv2.imwrite(str(path), mask)
    assert np.array_equal(in_colours, read_label(path))


@pytest.mark.parametrize("name", [False, True, None])
def test_class_names_that_yaml_takes_for_something_else(name: object) -> None:
    with pytest.raises(ValueError, match="which is no text: quote it"):
        parse_classes([{"id": 0, "name": name, "rgb": [0, 0, 0]}])


def test_images_of_every_kind_that_is_read(tmp_path: Path) -> None:
    """None is left out for the ending of its name."""
    names = [f"{k}{suffix}" for k, suffix in enumerate((".png", ".BMP", ".tif", ".TIFF", ".webp", ".JPG", ".jpeg"))]
    for name in names:
        cv2.imwrite(str(tmp_path / name), np.full((8, 8, 3), 128, np.uint8))
    pairs = find_pairs(tmp_path, None)
    assert [pair.image.name for pair in pairs] == names
    assert all((read_image(pair.image) == 128).all() for pair in pairs)
    (tmp_path / "9.HEIC").write_bytes(b"some")
    with pytest.raises(DatasetError, match=r"9\.HEIC: images of this kind are not read \(1 of 8 here\); convert them"):
        find_pairs(tmp_path, None)


@pytest.mark.parametrize("role", ["floor", 1, []])
def test_unknown_roles(role: object) -> None:
    with pytest.raises(ValueError, match="may have role: ground or sky"):
        parse_classes([{"id": 0, "name": "lane", "rgb": [0, 0, 0], "role": role}])


NAMES = st.text(min_size=1, max_size=100).filter(str.isprintable)


@given(st.lists(st.tuples(NAMES, st.tuples(*[st.integers(0, 255)] * 3)), min_size=1, max_size=255))
def test_classes_are_what_was_listed(entries: list[tuple[str, tuple[int, int, int]]]) -> None:
    entries = list(dict(entries).items())
    parsed = parse_classes([{"id": i, "name": name, "rgb": list(rgb)} for i, (name, rgb) in enumerate(entries)])
    assert parsed == tuple(SemanticClass(i, name, rgb) for i, (name, rgb) in enumerate(entries))


def images(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.zeros((4, 4, 3), np.uint8))
    return folder


@pytest.mark.parametrize(
    ("given", "clean"),
    [
        ("a.png", "a.jpg"),
        ("rain-001.png", "norain-001.png"),
        ("rain_0001.png", "0001.png"),
        ("0001.jpg", "0001_clean.png"),
        ("foggy0001.png", "0001.png"),
        ("aachen_1_foggy_0.01.png", "aachen/aachen_1.png"),
        ("aachen_1_2_foggy.png", "aachen/aachen_1_2.png"),
    ],
)
def test_references_are_found_by_name(tmp_path: Path, given: str, clean: str) -> None:
    others = ("norain-0011.png", "aachen/aachen_1_3.png", "aachen/aachen_1.png", "aachen/aachen_1_2.png", "b_0002.png")
    references = images(tmp_path / "clean", *{clean, *others})
    pairs = find_references(images(tmp_path / "given", given), references)
    assert pairs == {tmp_path / "given" / given: references / clean}


def test_a_clean_image_that_is_missing_is_none_of_the_others(tmp_path: Path) -> None:
    """As when a download of numbered images broke off."""
    given = images(tmp_path / "given", *(f"{number}.png" for number in range(1, 13)))
    clear = images(tmp_path / "clean", *(f"{number}.png" for number in range(1, 10)))
    with pytest.raises(DatasetError, match=r"10\.png: has no clean image"):
        find_references(given, clear)


@pytest.mark.parametrize(
    ("given", "clean", "says"),
    [
        ("b.png", ["a.png"], "b.png: has no clean image in .*clean; expected one of the same stem"),
        ("snow.png", ["now.png", "snowy.png"], "snow.png: has no clean image"),
        ("x.png", ["a_x.png", "b_x.png"], r"x.png: may belong to [ab]_x.png or to [ab]_x.png; rename it"),
        ("a-1-b.png", ["a-1.png", "1-b.png"], r"a-1-b.png: may belong to"),
        ("a.png", ["a.png", "deeper/a.jpg"], "has the same stem as"),
    ],
)
def test_references_that_are_none(tmp_path: Path, given: str, clean: list[str], says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        find_references(images(tmp_path / "given", given), images(tmp_path / "clean", *clean))
