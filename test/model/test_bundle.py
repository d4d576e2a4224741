"""Bundles: what is whole loads, and everything else is refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper
from toy_bundle import (
    CONDITIONS,
    HEIGHT,
    SENSOR,
    WIDTH,
    edit_manifest,
    open_pipeline,
    rewrite_network,
    write_toy_bundle,
)

from coop_perception.classes import CAMVID_CLASSES
from coop_perception.contracts import InputSizes, network_size
from coop_perception.engines import EngineError
from coop_perception.model.bundle import LARGEST_FILE, MANIFEST, BundleError, load_bundle, sha256
from coop_perception.model.pipeline import OUTPUTS, FrameError
from coop_perception.resources import default_bundle
from coop_perception.views import sensor_view

SIDES = {"height": 32, "smallest": 32, "largest": 96, "sensor": 32}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_toy_bundle(tmp_path / "toy")


def test_manifest_comes_back_as_written(directory: Path) -> None:
    bundle = load_bundle(directory)
    assert (bundle.name, bundle.conditions) == ("toy", CONDITIONS)
    assert bundle.input == InputSizes(height=HEIGHT, smallest=32, largest=2048, sensor=SENSOR)
    assert bundle.classes == CAMVID_CLASSES


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"bundle\.yaml: not found"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("text", ["", "- a\n", "{", "\x00"])
def test_manifest_that_is_no_mapping(directory: Path, text: str) -> None:
    (directory / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match=r"bundle\.yaml"):
        load_bundle(directory)


@pytest.mark.parametrize("field", ["format", "name", "classes", "ignore_id", "input", "conditions", "networks"])
def test_every_field_is_needed(directory: Path, field: str) -> None:
    edit_manifest(directory, **{field: None})
    with pytest.raises(BundleError, match=f"no field '{field}'"):
        load_bundle(directory)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("format", 99, "format is 99"),
        ("format", "2", "format is '2'"),
        ("format", 1, "format is 1, this version reads 2; export the bundle again"),
        ("ignore_id", 11, "ignore_id is 11"),
        ("input", SIDES | {"height": 0}, "input height is 0, expected 32 to 8192 pixels, a multiple of 32"),
        ("input", SIDES | {"height": 360}, "input height is 360"),
        ("input", SIDES | {"sensor": 10**99}, "input sensor is a number of 329 bits"),
        ("input", SIDES | {"smallest": 64}, "input height is 32, expected between smallest and largest, 64 and 96"),
        ("input", {"height": 32}, "no field 'input.smallest'"),
        ("classes", [{"id": 1, "name": "Road", "rgb": [0, 0, 0]}], "class ids are"),
        ("classes", [{"id": 0, "name": "Road", "rgb": [0, 0, 300]}], "classes: each needs"),
        ("classes", [{"id": i, "name": "Road", "rgb": [0, 0, 0]} for i in range(2)], "names repeat"),
        ("conditions", [], "conditions are"),
        ("conditions", ["fog", "fog"], "conditions are"),
        ("conditions", ["rain", "fog\n"], r"the name 'fog\\n' is none"),
        ("name", "\x1b[2J", r"the name '\\x1b\[2J' is none"),
        ("name", "x" * 101, "the name 'x{80}'… is none"),
        ("classes", [{"id": 0, "name": "a\0b", "rgb": [0, 0, 0]}], r"class name 'a\\x00b'"),
    ],
)
def test_values_that_cannot_be(directory: Path, field: str, value: object, says: str) -> None:
    edit_manifest(directory, **{field: value})
    with pytest.raises(BundleError, match=says):
        load_bundle(directory)


@pytest.mark.parametrize("name", ["\\ud800", "\\udcff x"])
def test_names_that_no_topic_can_carry(directory: Path, name: str) -> None:
    manifest = directory / MANIFEST
    manifest.write_text(manifest.read_text().replace("name: toy", f'name: "{name}"'))
    with pytest.raises(BundleError, match=r"bundle\.yaml: .* half of a surrogate pair"):
        load_bundle(directory)


def test_weights_that_graphs_share_are_checked(directory: Path) -> None:
    (directory / "weights.bin").write_bytes(b"weights")
    edit_manifest(directory, weights={"file": "weights.bin", "sha256": sha256(directory / "weights.bin")})
    load_bundle(directory)
    (directory / "weights.bin").write_bytes(b"Weights")
    with pytest.raises(BundleError, match=r"weights\.bin: altered"):
        load_bundle(directory)
    (directory / "weights.bin").unlink()
    with pytest.raises(BundleError, match=r"weights\.bin: missing"):
        load_bundle(directory)


def test_weights_that_the_manifest_does_not_list_are_not_taken(directory: Path) -> None:
    """Not those of a graph in a graph, either: what is not listed is not checked."""
    _share_weights(directory, "weights.bin")
    edit_manifest(directory, weights=None)
    with pytest.raises(
        BundleError, match=r"segmenter\.onnx: takes weights from 'weights\.bin', which the manifest does"
    ):
        load_bundle(directory)


@pytest.mark.parametrize("place", ["/etc/hostname", "../weights.bin", "", "weights.bin/../../weights.bin"])
def test_weights_from_elsewhere_are_not_taken(directory: Path, place: str) -> None:
    _share_weights(directory, place)
    with pytest.raises(BundleError, match=r"segmenter\.onnx: takes weights from .* which the manifest does not list"):
        load_bundle(directory)


def test_a_file_that_something_else_in_the_manifest_names_is_not_listed(directory: Path) -> None:
    """It was not checked."""
    weights = _share_weights(directory, "weights.bin")
    edit_manifest(directory, weights=None, training={"x": {"file": "weights.bin", "sha256": sha256(weights)}})
    with pytest.raises(BundleError, match="which the manifest does not list"):
        load_bundle(directory)


def test_all_that_networks_are_loaded_from_is_known(directory: Path) -> None:
    weights = _share_weights(directory, "weights.bin")
    bundle = load_bundle(directory)
    graphs = {network.path: network.sha256 for network in bundle.networks.values()}
    assert bundle.files == {weights: sha256(weights), **graphs}


def test_weights_are_those_that_the_graph_was_made_with(directory: Path) -> None:
    weights = _share_weights(directory, "weights.bin")
    load_bundle(directory)
    weights.write_bytes(weights.read_bytes()[::-1] + b"!")
    edit_manifest(directory, weights={"file": weights.name, "sha256": sha256(weights)})
    with pytest.raises(
        BundleError, match=r"segmenter\.onnx: was made with weights of sha256 '.{12}'…, those of weights"
    ):
        load_bundle(directory)


def _share_weights(directory: Path, place: str) -> Path:
    """Takes one of the segmenter's tensors, inside an If, from another file."""
    weights = directory / "weights.bin"
    weights.write_bytes(np.float32(255).tobytes())
    tensor = onnx.TensorProto(name="full", data_type=TensorProto.FLOAT)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place
    tensor.data_location = TensorProto.EXTERNAL
    value = helper.make_tensor_value_info("full", TensorProto.FLOAT, [])
    branch = helper.make_graph([helper.make_node("Constant", [], ["full"], value=tensor)], "branch", [], [value])
    model = onnx.load(directory / "segmenter.onnx")
    model.graph.node.append(helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch))
    helper.set_model_props(model, {"weights_sha256": sha256(weights)})
    rewrite_network(directory, "segmenter", model)
    edit_manifest(directory, weights={"file": weights.name, "sha256": sha256(weights)})
    return weights


def test_missing_and_altered_files(directory: Path) -> None:
    path = directory / "restoration.onnx"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"restoration\.onnx: altered"):
        load_bundle(directory)
    path.unlink()
    with pytest.raises(BundleError, match=r"restoration\.onnx: missing"):
        load_bundle(directory)


@pytest.mark.parametrize("place", ["/etc/passwd", "../outside.onnx", "linked.onnx", "folder/../../outside.onnx"])
def test_files_outside_the_bundle_are_not_read(directory: Path, place: str) -> None:
    outside = directory.parent / "outside.onnx"
    outside.write_bytes((directory / "segmenter.onnx").read_bytes())
    (directory / "folder").mkdir()
    (directory / "linked.onnx").symlink_to(outside)
    _name_segmenter(directory, place)
    with pytest.raises(BundleError, match="lies outside the bundle's directory"):
        load_bundle(directory)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "large", "loop"])
def test_what_is_no_file_of_a_network_is_not_read(directory: Path, kind: str) -> None:
    """Each would be read without end, or to the end of the memory."""
    file = directory / "odd.onnx"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "folder":
        file.mkdir()
    elif kind == "large":
        file.touch()
        os.truncate(file, LARGEST_FILE + 1)
    else:
        file.symlink_to(file)
    _name_segmenter(directory, file.name)
    with pytest.raises(
        BundleError, match=r"odd\.onnx: (is no regular file|has 2147483649 bytes|lies outside|cannot be)"
    ):
        load_bundle(directory)


def test_a_bundle_whose_files_are_all_links_to_anothers_is_one(directory: Path, tmp_path: Path) -> None:
    """As colcon installs it with --symlink-install."""
    installed = tmp_path / "installed"
    installed.mkdir()
    for file in directory.iterdir():
        (installed / file.name).symlink_to(file)
    assert load_bundle(installed).name == "toy"


def _name_segmenter(directory: Path, file: str) -> None:
    manifest = yaml.safe_load((directory / MANIFEST).read_text())
    manifest["networks"]["segmenter"]["file"] = file
    edit_manifest(directory, networks=manifest["networks"])


def test_tensor_names_of_the_manifest_are_checked(directory: Path) -> None:
    manifest = yaml.safe_load((directory / MANIFEST).read_text())
    manifest["networks"]["segmenter"]["outputs"] = ["logits"]
    edit_manifest(directory, networks=manifest["networks"])
    with pytest.raises(BundleError, match="segmenter outputs are"):
        load_bundle(directory)


def test_class_list_that_disagrees_with_the_graphs(directory: Path) -> None:
    classes = [{"id": c.id, "name": c.name, "rgb": list(c.rgb)} for c in CAMVID_CLASSES[:7]]
    edit_manifest(directory, classes=classes)
    with pytest.raises(BundleError, match=r"'probabilities' is float32 \[any, 11, any, any\], .* for 7 classes"):
        open_pipeline(directory)


def test_sensor_view_that_disagrees_with_the_graphs(directory: Path) -> None:
    edit_manifest(directory, input=SIDES | {"sensor": 64})
    with pytest.raises(BundleError, match=r"'sensor' is uint8 \[any, 32, 32, 3\], expected uint8 \[any, 64, 64, 3\]"):
        open_pipeline(directory)


def test_graph_of_one_size_alone(directory: Path) -> None:
    model = onnx.load(directory / "segmenter.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = HEIGHT
    rewrite_network(directory, "segmenter", model)
    with pytest.raises(BundleError, match=r"'image' is uint8 \[any, 32, any, 3\], expected uint8 \[any, any, any, 3\]"):
        open_pipeline(directory)


@pytest.mark.parametrize(
    ("frame", "height", "expected"),
    [
        ((480, 640), 0, (352, 480)),
        ((720, 1280), 0, (352, 640)),
        ((1080, 1920), 720, (704, 1248)),
        ((370, 1224), 0, (352, 1152)),
        ((1280, 720), 0, (352, 192)),
        ((100, 100), 20, (96, 96)),
        ((10, 8000), 0, (352, 2048)),
    ],
)
def test_the_networks_image_follows_the_frames_shape(
    frame: tuple[int, int], height: int, expected: tuple[int, int]
) -> None:
    assert network_size(InputSizes(height=352, smallest=96, largest=2048, sensor=192), *frame, height) == expected


def test_graph_without_a_tensor_of_the_contract(directory: Path) -> None:
    spec = helper.make_tensor_value_info("picture", TensorProto.UINT8, ["N", "h", "w", 3])
    out = helper.make_tensor_value_info("restored", TensorProto.UINT8, ["N", "h", "w", 3])
    graph = helper.make_graph([helper.make_node("Identity", ["picture"], ["restored"])], "g", [spec], [out])
    rewrite_network(
        directory, "restoration", helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    )
    with pytest.raises(BundleError, match=r"restoration has no input 'frame'; its inputs are \['picture'\]"):
        open_pipeline(directory)


def test_file_that_is_no_onnx(directory: Path) -> None:
    rewrite_network(directory, "segmenter", onnx.ModelProto())
    with pytest.raises(EngineError, match=r"segmenter\.onnx: ONNX Runtime .* cannot load it"):
        open_pipeline(directory)


def frame(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_outputs_are_the_networks(directory: Path) -> None:
    pipeline, image = open_pipeline(directory), frame()
    (result,) = pipeline.run([image], OUTPUTS)
    np.testing.assert_array_equal(result.mask_raw, image[..., 0])
    np.testing.assert_array_equal(result.mask, image[..., 1])
    np.testing.assert_array_equal(result.confidence, image[..., 2])
    np.testing.assert_array_equal(result.restored, 255 - image)
    assert result.condition is not None
    assert result.condition.presence == pytest.approx(image[..., ::2].mean((0, 1)) / 255, abs=1e-6)
    assert result.condition.strength == pytest.approx([image[..., 1].mean() / 255] * 2, abs=1e-6)
    assert result.condition.familiarity == pytest.approx(sensor_view(image, SENSOR)[..., 1].mean() / 255, abs=1e-6)
    assert list(result.stages_ms) == ["segmenter", "refinement", "restoration"]


@pytest.mark.parametrize(
    ("wanted", "stages"),
    [
        (["mask_raw"], ["segmenter"]),
        (["mask"], ["segmenter", "refinement"]),
        (["condition"], ["segmenter", "refinement"]),
        (["restored"], ["segmenter", "refinement", "restoration"]),
    ],
)
def test_only_what_is_wanted_is_computed(directory: Path, wanted: list[str], stages: list[str]) -> None:
    (result,) = open_pipeline(directory).run([frame()], wanted)
    assert list(result.stages_ms) == stages
    assert [name for name in OUTPUTS if getattr(result, name) is not None] == wanted


def test_batch_gives_what_single_frames_give(directory: Path) -> None:
    pipeline = open_pipeline(directory)
    frames = [frame(seed=1), frame(50, 70, seed=2), frame(seed=3)]
    for batched, image in zip(pipeline.run(frames, OUTPUTS), frames, strict=True):
        (single,) = pipeline.run([image], OUTPUTS)
        for name in ("mask_raw", "mask", "confidence", "restored"):
            np.testing.assert_array_equal(getattr(batched, name), getattr(single, name))
        assert batched.condition is not None
        assert single.condition is not None
        np.testing.assert_array_equal(batched.condition.presence, single.condition.presence)


@pytest.mark.parametrize("factor", [2, 3])
def test_masks_come_out_at_the_frames_size_and_in_place(directory: Path, factor: int) -> None:
    """Every network pixel becomes a block of factor x factor pixels exactly: nothing shifts by half a pixel."""
    small = frame()
    large = np.repeat(np.repeat(small, factor, 0), factor, 1)
    (result,) = open_pipeline(directory).run([large], OUTPUTS)
    np.testing.assert_array_equal(result.mask, large[..., 1])
    assert result.restored is not None
    assert result.restored.shape == large.shape


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_frames_that_are_none(directory: Path, bad: np.ndarray) -> None:
    with pytest.raises(FrameError, match="expected uint8"):
        open_pipeline(directory).run([bad], ["mask"])


def test_default_bundle_is_whole() -> None:
    bundle = load_bundle(default_bundle())
    open_pipeline(bundle.directory).warm_up()
    assert sum(file.stat().st_size for file in bundle.directory.iterdir()) < 45e6  # FP16 graphs included
    for network in bundle.networks.values():
        assert b"site-packages" not in network.path.read_bytes(), "the exporter's notes of its machine"
