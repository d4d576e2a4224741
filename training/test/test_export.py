"""coop-export, and what its graphs do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
import yaml
from coop_training import export
from coop_training.bundle_weights import load_bundle_weights
from coop_training.bundle_writing import computing
from coop_training.checkpoint import CheckpointError, read_facts, save_weights
from coop_training.config import DataConfig, load_config
from coop_training.exchange import exchange_segmenter
from coop_training.export_check import ExportError, Values, check_views, compare, listed_images, trained_images
from coop_training.model import Cooperative
from coop_training.onnx_graphs import fold_normalisations, halve_weights, store_weights_halved
from coop_training.pixels import largest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser
from random_model import CONFIG, RECORD, random_model
from set_up_packages import tensorrt_rtx
from smoke_run import run
from toy_bundle import open_pipeline

from coop_perception.contracts import CONTRACTS, Bundle, network_size
from coop_perception.engines import Engine
from coop_perception.engines.calibration import with_onnxruntime
from coop_perception.engines.onnxruntime import OnnxRuntimeEngine
from coop_perception.engines.precisions import Graphs
from coop_perception.model.bundle import load_bundle
from coop_perception.model.pipeline import OUTPUTS
from coop_perception.views import scene_view

SIZES = CONFIG.input.sizes
CLASSES, CONDITIONS = 11, 2


@pytest.fixture(scope="module")
def bundle(random_export: Path) -> Bundle:
    return load_bundle(random_export / "random")


@pytest.fixture(scope="module")
def stored() -> Cooperative:
    """With the weights as they are exported."""
    model = random_model()
    fold_normalisations(model)
    halve_weights(model)
    return model


@pytest.fixture(scope="module")
def values(stored: Cooperative) -> list[Values]:
    """Every tensor of the contracts on the frames of the check, by PyTorch."""
    views = check_views(CONFIG.conditions, SIZES)
    return export.both(views, export.results(stored, views))


def test_manifest_says_where_it_comes_from(bundle: Bundle) -> None:
    training = bundle.facts["training"]
    assert (training["stage"], training["commit"], training["config"]["name"]) == ("joint", "abc", "random")
    assert training["stages"] == RECORD["stages"]
    assert bundle.facts["licence"]["weights"] == "of the weights"
    assert bundle.conditions == CONFIG.conditions
    assert bundle.input == SIZES


def test_graphs_for_gpus_give_what_the_others_do(bundle: Bundle, values: list[Values]) -> None:
    """Within what float16 leaves: computed as ONNX Runtime's CPU does it truly."""
    halved = Graphs(bundle, "fp16", for_tensorrt=True)
    run_network = with_onnxruntime({name: halved.on_a_cpu(name) for name in CONTRACTS})
    for name, contract in CONTRACTS.items():
        for view in values:
            given = {key: view[key] for key in contract.inputs}
            for key, value in run_network(name, given, contract.outputs).items():
                margin = 0 if "mask" in key else 0.02 if value.dtype == np.float32 else 0.02 * 255
                near = np.abs(np.asarray(value, np.float64) - view[key]) <= margin
                assert near.mean() > 0.98, (name, key)


@pytest.mark.parametrize("size", [(480, 640), (720, 1280), (251, 333)])
def test_bundle_runs_on_cameras_of_any_size(bundle: Bundle, size: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    (result,) = open_pipeline(bundle.directory).run([frame], OUTPUTS)
    assert result.restored is not None
    assert result.mask is not None
    assert result.restored.shape == frame.shape
    assert result.mask.shape == size


def test_networks_are_read_back_from_a_bundle(bundle: Bundle, stored: Cooperative, values: list[Values]) -> None:
    torch.manual_seed(1)
    model = Cooperative(CONFIG).eval()
    left = load_bundle_weights(bundle.directory, model, CONFIG)
    heads = [f"{head}.{part}" for head in ("presence", "strength") for part in ("weight", "bias")]
    assert left == {"segmenter": [], "refinement": heads, "calibration": [], "restoration": []}
    for one, expected in zip(export.results(model, values), values, strict=True):
        for name, value in one.items():
            assert np.isclose(value, expected[name], atol=1e-4).mean() > 0.999, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conditions": ("fog", "gaussian_noise")}, "has conditions gaussian_noise, fog, the configuration fog, gauss"),
        ({"variant": "nafnet"}, r"restoration.onnx: is another network than the configuration's restoration: \S+ is "),
    ],
)
def test_a_bundle_of_other_networks_is_refused(bundle: Bundle, change: dict[str, object], message: str) -> None:
    config = CONFIG.model_copy(update=change)
    with pytest.raises(CheckpointError, match=message):
        load_bundle_weights(bundle.directory, Cooperative(config), config)


def test_the_shipped_bundle_can_be_trained_on() -> None:
    repository = Path(__file__).parents[2]
    config = load_config(repository / "training/configs/street.yaml")
    left = load_bundle_weights(repository / "models/street", Cooperative(config), config)
    assert not left["segmenter"] + left["restoration"]


@pytest.mark.parametrize("name", CONTRACTS)
@pytest.mark.parametrize(("batch", "frame", "network_height"), [(1, (90, 160), 64), (3, (211, 277), 160)])
def test_graphs_do_what_networks_do_at_any_size(
    bundle: Bundle,
    stored: Cooperative,
    values: list[Values],
    name: str,
    batch: int,
    frame: tuple[int, int],
    network_height: int,
) -> None:
    image = np.asarray(values[-1]["frame"][0], np.uint8)
    frames = np.stack([np.roll(scene_view(image, frame), 11 * shift, 1) for shift in range(batch)])
    size = network_size(SIZES, *frame, network_height)
    views: dict[str, NDArray[np.generic]] = {
        "frame": frames,
        "image": np.stack([scene_view(one, size) for one in frames]),
        "sensor": np.concatenate([value["sensor"] for value in values[:batch]]),
    }
    compare(name, bundle.networks[name].path, export.both([views], export.results(stored, [views])))


@pytest.mark.parametrize("name", CONTRACTS)
def test_graphs_are_of_one_opset_small_and_complete(bundle: Bundle, name: str) -> None:
    proto = onnx.load(bundle.networks[name].path, load_external_data=False)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 18)]
    assert not proto.functions
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    assert computing(proto) <= {"segmenter": 135, "refinement": 500, "restoration": 370}[name]


@pytest.mark.parametrize("name", CONTRACTS)
def test_bytes_are_at_the_ends_only(bundle: Bundle, name: str) -> None:
    """TensorRT takes bytes into casts, gives them from casts, and has none in between."""
    proto = onnx.shape_inference.infer_shapes(onnx.load(bundle.networks[name].path))
    inputs, outputs = (
        {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.UINT8}
        for values in (proto.graph.input, proto.graph.output)
    )
    inside = {v.name for v in proto.graph.value_info if v.type.tensor_type.elem_type == TensorProto.UINT8}
    assert inside <= inputs | outputs
    for node in proto.graph.node:
        assert not inputs & set(node.input) or node.op_type == "Cast", node
        assert not outputs & set(node.output) or node.op_type == "Cast", node
        assert not outputs & set(node.input), node


@pytest.mark.parametrize("name", CONTRACTS)
def test_tensorrt_takes_the_graphs(bundle: Bundle, name: str) -> None:
    trt = tensorrt_rtx()
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    onnx_parser = trt.OnnxParser(network, logger)
    assert onnx_parser.parse_from_file(str(bundle.networks[name].path)), onnx_parser.get_error(0)


def engines(path: Path) -> dict[str, Engine]:
    from coop_perception.engines.openvino import OpenVinoEngine

    return {"onnxruntime": OnnxRuntimeEngine(path), "openvino": OpenVinoEngine(path)}


def test_a_frame_in_which_nothing_is_present_stays_to_the_byte(bundle: Bundle) -> None:
    rng = np.random.default_rng(0)
    loaded = engines(bundle.networks["restoration"].path)
    for height, width in ((720, 1280), (1080, 1920), (480, 640), (333, 251)):
        frame = rng.integers(0, 256, (1, height, width, 3), np.uint8)
        given: dict[str, Any] = {
            "frame": frame,
            "image": scene_view(frame[0], network_size(SIZES, height, width))[None],
            "presence": np.full((1, CONDITIONS), 0.39, np.float32),
            "strength": np.ones((1, CONDITIONS), np.float32),
            "familiarity": np.ones(1, np.float32),
        }
        _, rows, columns, _ = given["image"].shape
        given["refined_probabilities"] = np.full((1, CLASSES, rows // 4, columns // 4), 1 / CLASSES, np.float32)
        for name, engine in loaded.items():
            clear = engine.run(given, ("restored",))["restored"]
            np.testing.assert_array_equal(clear, frame, err_msg=f"{name} {height}x{width}")
    present = {**given, "presence": given["presence"] + 0.5}
    assert (loaded["onnxruntime"].run(present, ("restored",))["restored"] != frame).mean() > 0.1


@pytest.mark.parametrize("name", CONTRACTS)
def test_an_altered_graph_is_found(bundle: Bundle, values: list[Values], name: str, tmp_path: Path) -> None:
    path = bundle.networks[name].path
    compare(name, path, values)
    proto = onnx.load(path)
    part = "encoder" if name != "restoration" else "detail.residual"
    weight = max((t for t in proto.graph.initializer if part in t.name), key=lambda tensor: np.prod(tensor.dims))
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    onnx.save(proto, tmp_path / "altered.onnx")
    with pytest.raises(ExportError, match=r"altered\.onnx: .* is as expected in .*%"):
        compare(name, tmp_path / "altered.onnx", values)


def test_weights_alone_are_stored_rounded() -> None:
    """A filter that is computed amplifies what rounding has changed."""
    exact = np.full((32, 32), 1 + 2**-20, np.float32)
    names = ("weight", "filter")
    given = [numpy_helper.from_array(exact, name) for name in names]
    proto = helper.make_model(helper.make_graph([], "toy", [], [], given))
    store_weights_halved(proto, ["weight"])
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    np.testing.assert_array_equal(stored["filter"], exact)
    assert (stored["weight_fp16"] == 1).all()
    (cast,) = proto.graph.node
    assert (cast.op_type, *cast.output) == ("Cast", "weight")
    assert computing(proto) == 0


def test_frames_are_clear_and_under_every_condition_from_two_cameras() -> None:
    views = check_views((*CONFIG.conditions, "soiling", "of one's own"), SIZES)
    assert len(views) == 6
    shapes = [view["frame"].shape[1:3] for view in views]
    assert shapes[0] != shapes[1]
    assert set(shapes) == {shapes[0], shapes[1]}
    assert {side % 2 for shape in shapes for side in shape} == {1}
    assert {view["image"].shape[1:3] for view in views} == {network_size(SIZES, *shape) for shape in shapes}
    clear, noisy, foggy = (views[index]["frame"].astype(float) for index in (0, 2, 3))
    assert np.abs(np.diff(noisy, axis=2)).mean() > 2 * np.abs(np.diff(clear, axis=2)).mean()
    assert foggy.std() < clear.std()


def test_frames_are_those_trained_on_where_they_are_there(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"data": DataConfig(root=tmp_path, sample_drives=0)})
    for kind, value in (("images", 77), ("labels", 3)):
        (tmp_path / kind / "train").mkdir(parents=True)
        cv2.imwrite(
            str(tmp_path / kind / "train" / "a.png"), np.full((20, 30, 3)[: 3 - (kind == "labels")], value, np.uint8)
        )
    assert (check_views(CONFIG.conditions, SIZES, trained_images(config))[0]["frame"] == 77).all()
    gone = config.model_copy(update={"data": DataConfig(root=tmp_path / "gone", sample_drives=0)})
    assert not trained_images(gone)


def test_frames_of_a_folder(tmp_path: Path) -> None:
    for index in range(8):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((20, 30, 3), 30 * index, np.uint8))
    views = check_views(CONFIG.conditions, SIZES, listed_images(tmp_path))
    assert [round(float(view["frame"].mean())) for view in views[:2]] == [0, 60]
    assert abs(float(views[2]["frame"].mean()) - 120) < 15


def test_pixels_of_a_restored_image_count_whole(bundle: Bundle, values: list[Values]) -> None:
    """One channel off in 0.2 % of the pixels is too much, though it is 0.07 % of the values."""
    off = values[0]["restored"].copy()
    flat = off.reshape(-1, 3)
    chosen = np.arange(0, len(flat), 500)
    flat[chosen, 1] = np.where(flat[chosen, 1] > 127, 0, 255)
    with pytest.raises(ExportError, match="restored is as expected in"):
        compare("restoration", bundle.networks["restoration"].path, [{**values[0], "restored": off}])


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """A user's segmenter: what is red is Car (of the bundle's classes), what is green Tree, what is blue Sky."""
    graph = '<ir_version: 8, opset_import: ["": 17]> g (float[N,3,h,w] x) => (float[N,3,h,w] y) { y = Identity(x) }'
    onnx.save(parser.parse_model(graph), tmp_path / "own.onnx")
    path = tmp_path / "own.yaml"
    fields = {"output": {"kind": "logits"}, "classes": {0: "Car", 1: "Tree", 2: "Sky"}}
    path.write_text(
        yaml.safe_dump({**fields, "input": {"mean": [0.5, 0.5, 0.5], "std": [0.1, 0.1, 0.1]}, "licence": "MIT"})
    )
    return path


def test_bundle_with_a_users_own_segmenter(
    bundle: Bundle, values: list[Values], described: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "own"
    arguments = ("--bundle", bundle.directory, "--adapter", described, "--out", out)
    assert run(export.main, *arguments, "--segmenter", tmp_path / "own.onnx") == 0, capsys.readouterr().err
    before, bundle = bundle, load_bundle(out)
    said = bundle.facts["training"]["segmenter"]
    assert (said["onnx"], said["licence"], said["classes"][0]) == ("own.onnx", "MIT", "Car")
    assert bundle.facts["training"]["commit"] == before.facts["training"]["commit"]
    assert bundle.name == "own"
    frame = np.asarray(values[0]["image"][0], np.uint8)
    (result,) = open_pipeline(bundle.directory).run([frame], OUTPUTS)
    assert result.mask_raw is not None
    _, middle, highest = np.moveaxis(np.sort(frame, 2), 2, 0)
    decided = highest > middle
    np.testing.assert_array_equal(result.mask_raw[decided], np.array([8, 5, 0])[frame.argmax(2)][decided])


def test_refinement_and_restoration_of_a_bundle_stay_under_another_segmenter(
    bundle: Bundle, described: Path, tmp_path: Path, values: list[Values]
) -> None:
    exchange_segmenter(bundle.directory, tmp_path / "own", described, tmp_path / "own.onnx")
    own = load_bundle(tmp_path / "own")
    for name in ("refinement", "restoration"):
        contract = CONTRACTS[name]
        given = {key: values[0][key] for key in contract.inputs}
        before, after = (OnnxRuntimeEngine(b.networks[name].path).run(given, contract.outputs) for b in (bundle, own))
        for output in contract.outputs:
            np.testing.assert_array_equal(before[output], after[output])


def test_a_bundle_is_not_exchanged_for_itself(bundle: Bundle, described: Path) -> None:
    with pytest.raises(ExportError, match="is the bundle that is read"):
        exchange_segmenter(bundle.directory, bundle.directory, described)


def test_a_bundle_is_taken_with_a_segmenter_alone(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(export.main, "--bundle", bundle.directory, "--out", tmp_path / "own")
    assert ended.value.code == 2
    assert "needs --adapter" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--adapter", "absent.yaml"), r"absent\.yaml: no such file"),
        (("--images", "absent"), r"absent: no such folder"),
    ],
)
def test_commands_that_cannot_be(
    random_export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, str], says: str
) -> None:
    (option, name), out = arguments, tmp_path / "bundle"
    checkpoint = random_export / "joint.safetensors"
    assert run(export.main, "--checkpoint", checkpoint, "--out", out, option, tmp_path / name) == 1
    assert re.search(says, capsys.readouterr().err)
    assert not out.exists()


def test_what_is_resumed_from_is_no_result(
    random_export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its weights are not averaged yet, nor the conditions' estimate fitted."""
    progress = tmp_path / "progress.safetensors"
    facts = read_facts(random_export / "joint.safetensors")
    save_weights(progress, {"calibration": torch.nn.Linear(1, 1)}, {**facts, "steps": "3"})
    assert run(export.main, "--checkpoint", progress, "--out", tmp_path / "bundle") == 1
    assert f"{progress}: is no result of a stage; give one's" in " ".join(capsys.readouterr().err.split())


def test_engines_are_handed_over_beside_the_bundle(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, described: Path
) -> None:
    """Which are built from what was written, for the GPUs named."""
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(export, "build_engines", lambda *arguments, **_: asked.append(arguments))
    arguments = ("--bundle", bundle.directory, "--adapter", described, "--segmenter", tmp_path / "own.onnx")
    assert (
        run(export.main, *arguments, "--out", tmp_path / "own", "--engines", "8.9", "--engine-precision", "fp32") == 0
    )
    ((made, backend, capabilities, precision, directory),) = asked
    assert made.directory == tmp_path / "own"
    assert (backend, capabilities, precision) == ("tensorrt_rtx", ("8.9",), "fp32")
    assert directory == tmp_path / "own.engines"


def test_the_largest_is_the_first_of_equal_ones() -> None:
    scores = torch.randint(0, 4, (2, 11, 6, 8)).float()
    best, index = largest(scores)
    np.testing.assert_array_equal(best.numpy(), scores.numpy().max(1))
    np.testing.assert_array_equal(index.numpy(), scores.numpy().argmax(1))
