"""coop-export on networks with random weights, which a broken graph cannot agree with by chance."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
import yaml
from coop_training import export
from coop_training.bundle_weights import load_bundle_weights
from coop_training.bundle_writing import WEIGHTS
from coop_training.checkpoint import CheckpointError, read_facts, save_weights
from coop_training.config import DataConfig, StageConfig, StagesConfig, TrainConfig, load_config
from coop_training.exchange import exchange_segmenter
from coop_training.export_check import ExportError, check_frames, compare, listed_images, trained_images
from coop_training.graphs import GRAPHS
from coop_training.model import Cooperative
from coop_training.onnx_graphs import store_weights_halved
from coop_training.pixels import largest, to_float
from once import once
from onnx import TensorProto, helper, numpy_helper, parser
from smoke_run import run
from torch import nn
from toy_bundle import open_pipeline

from coop_perception.contracts import CONTRACTS, STAGES, Bundle
from coop_perception.engines.files import ensure, handed_over
from coop_perception.engines.onnxruntime import OnnxRuntimeEngine
from coop_perception.model.bundle import load_bundle, sha256
from coop_perception.model.pipeline import OUTPUTS

HEIGHT, WIDTH = SIZE = (64, 96)
STAGE = StageConfig(steps=1)
CONFIG = TrainConfig(
    name="random",
    height=HEIGHT,
    width=WIDTH,
    conditions=("gaussian_noise", "fog"),
    stages=StagesConfig(segmenter=STAGE, refinement=STAGE, restoration=STAGE, joint=STAGE),
    licence="of the weights",
)
RECORD = {"config": {}, "stages": {"joint": {"hours": 1.5, "device": "cpu", "versions": {"torch": "2.13.0"}}}}


def random_model() -> Cooperative:
    """As if trained: masks depend on the image in every layer, and refinement and restoration are no identity."""
    torch.manual_seed(0)
    model = Cooperative(CONFIG)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # Powers of two: folded into float16 weights they round as the weights alone do.
            module.weight.data = 2.0 ** torch.randint(-1, 2, module.weight.shape)
            module.running_var.fill_(1 - module.eps)
            nn.init.normal_(module.running_mean, std=0.2)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    model.eval()
    image = to_float(torch.from_numpy(check_frames(CONFIG.all_conditions, SIZE)))
    spread(model.segmenter.classify, lambda: model.segmenter(image))
    spread(model.refinement.correction, lambda: model.refinement(image, model.segmenter(image).softmax(1)))
    return model


@torch.no_grad()
def spread(layer: nn.Conv2d, run: Callable[[], object]) -> None:
    """Let a layer's outputs have mean 0 and standard deviation 3, channel by channel, in a network run on frames."""
    found: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: found.append(output))
    run()
    handle.remove()
    std, mean = torch.std_mean(found[0], (0, 2, 3))
    layer.weight *= (3 / std)[:, None, None, None]
    layer.bias.copy_((layer.bias - mean) * 3 / std)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "joint.safetensors"
    facts = {"stage": "joint", "commit": "abc", "config": CONFIG.model_dump_json()}
    save_weights(path, random_model().parts(), {**facts, "record": json.dumps(RECORD)})
    return path


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """As the command exports it, with engines beside it where they can be built: an export takes a minute."""
    engines = ("--engines", "8.9", "--engine-precision", "fp32") if find_spec("tensorrt_rtx") else ()

    def make(directory: Path) -> None:
        assert run(export.main, "--checkpoint", checkpoint, "--out", directory / "random", *engines) == 0

    return load_bundle(once(tmp_path_factory, "random", make) / "random")


@pytest.fixture(scope="module")
def values(bundle: Bundle) -> dict[str, torch.Tensor]:
    """Every tensor of the contracts on the frames of the check, by PyTorch from the weights as exported."""
    model = random_model()
    export.halve_weights(model)
    found = {"image": torch.from_numpy(check_frames(CONFIG.all_conditions, SIZE))}
    with torch.no_grad():
        for name in STAGES:
            contract = CONTRACTS[name]
            result = GRAPHS[name](model, HEIGHT, WIDTH)(*(found[key] for key in contract.inputs))
            found |= zip(contract.outputs, result if isinstance(result, tuple) else (result,), strict=True)
    return found


def test_manifest_says_where_it_comes_from(bundle: Bundle) -> None:
    training = bundle.facts["training"]
    assert (training["stage"], training["commit"], training["config"]["name"]) == ("joint", "abc", "random")
    assert training["stages"] == RECORD["stages"]
    assert bundle.facts["licence"]["weights"] == "of the weights"
    assert bundle.conditions == ("clear", "gaussian_noise", "fog")


def test_bundle_runs(bundle: Bundle) -> None:
    (result,) = open_pipeline(bundle.directory).run([np.zeros((HEIGHT, WIDTH, 3), np.uint8)], OUTPUTS)
    assert all(getattr(result, name) is not None for name in OUTPUTS)


def test_networks_are_read_back_from_a_bundle(bundle: Bundle, values: dict[str, torch.Tensor]) -> None:
    torch.manual_seed(1)
    model = Cooperative(CONFIG).eval()
    anew = load_bundle_weights(bundle.directory, model, CONFIG)
    # No graph says what the encoders themselves take the condition for: restoration is told, and refinement, which
    # filters blur by it, does not know blur here.
    own = [f"front.encoder.{head}.{part}" for head in ("condition", "strength") for part in ("weight", "bias")]
    assert anew == {"segmenter": [], "refinement": own, "restoration": own}
    for name, value in export.results(model, values["image"]).items():
        # Normalisations folded into halved weights round otherwise.
        assert np.isclose(value, values[name].numpy(), atol=1e-5).mean() > 0.999, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conditions": ("fog", "gaussian_noise")}, "has conditions gaussian_noise, fog, the configuration fog, gauss"),
        ({"variant": "nafnet"}, r"restoration.onnx: is another network than the configuration's restoration: \S+ is "),
        ({"guidance": "none"}, r"\(.* weights do not fit\); take the variant, guidance and version"),
    ],
)
def test_a_bundle_of_other_networks_is_refused(bundle: Bundle, change: dict[str, object], message: str) -> None:
    config = CONFIG.model_copy(update=change)
    with pytest.raises(CheckpointError, match=message):
        load_bundle_weights(bundle.directory, Cooperative(config), config)


def test_the_shipped_bundle_can_be_trained_on() -> None:
    repository = Path(__file__).parents[2]
    config = load_config(repository / "training/configs/street.yaml")
    anew = load_bundle_weights(repository / "models/street", Cooperative(config), config)
    assert not anew["segmenter"] + anew["refinement"]


def test_cooperative_gives_what_the_three_give(bundle: Bundle) -> None:
    """With another batch than it was exported with. A runtime that fuses across the seams may round otherwise."""
    frames = np.random.default_rng(0).integers(0, 256, (5, HEIGHT, WIDTH, 3), np.uint8)
    found = {"image": frames}
    for name in STAGES:
        engine = OnnxRuntimeEngine(bundle.networks[name].path)
        found |= engine.run({key: found[key] for key in engine.inputs}, tuple(engine.outputs))
    outputs = CONTRACTS["cooperative"].outputs
    together = OnnxRuntimeEngine(bundle.networks["cooperative"].path).run({"image": frames}, outputs)
    for name in outputs:
        if name.startswith("mask"):
            np.testing.assert_array_equal(together[name], found[name], err_msg=name)
        else:
            off = 1 if together[name].dtype == np.uint8 else 1e-5
            np.testing.assert_allclose(together[name].astype(float), found[name], rtol=0, atol=off, err_msg=name)


@pytest.mark.parametrize("name", CONTRACTS)
def test_bytes_are_at_the_ends_only(bundle: Bundle, name: str) -> None:
    """TensorRT takes bytes into casts, gives them from casts, and has none in between."""
    proto = onnx.shape_inference.infer_shapes(onnx.load(bundle.networks[name].path))
    ends = {value.name for value in (*proto.graph.input, *proto.graph.output)}
    inside = [v.name for v in proto.graph.value_info if v.type.tensor_type.elem_type == TensorProto.UINT8]
    assert not set(inside) - ends
    for node in proto.graph.node:
        assert "image" not in node.input or node.op_type == "Cast", node


@pytest.mark.parametrize("name", CONTRACTS)
def test_an_altered_graph_is_found(bundle: Bundle, values: dict[str, torch.Tensor], name: str, tmp_path: Path) -> None:
    path = bundle.networks[name].path
    compare(name, path, values)
    proto = onnx.load(path)
    weight = max(proto.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
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


def test_frames_are_clear_and_under_every_condition(tmp_path: Path) -> None:
    frames = check_frames(CONFIG.all_conditions, SIZE)
    assert frames.shape == (3, HEIGHT, WIDTH, 3)
    noise = frames[1].astype(float)
    assert np.abs(np.diff(noise, axis=1)).mean() > 2 * np.abs(np.diff(frames[0].astype(float), axis=1)).mean()
    assert frames[2].std() < frames[0].std()  # fog


def test_frames_are_those_trained_on_where_they_are_there(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"data": DataConfig(root=tmp_path, sample_drives=0)})
    for kind, value in (("images", 77), ("labels", 3)):
        (tmp_path / kind / "train").mkdir(parents=True)
        cv2.imwrite(
            str(tmp_path / kind / "train" / "a.png"), np.full((20, 30, 3)[: 3 - (kind == "labels")], value, np.uint8)
        )
    assert (check_frames(CONFIG.all_conditions, SIZE, trained_images(config))[0] == 77).all()
    gone = config.model_copy(update={"data": DataConfig(root=tmp_path / "gone", sample_drives=0)})
    assert not trained_images(gone)


def test_pixels_of_a_restored_image_count_whole(
    tmp_path: Path, values: dict[str, torch.Tensor], bundle: Bundle
) -> None:
    """One channel off in 0.2 % of the pixels is too much, though it is 0.07 % of the values."""
    off = values["restored"].clone(memory_format=torch.contiguous_format)
    flat = off[0].reshape(-1, 3)
    chosen = torch.arange(0, len(flat), 500)
    flat[chosen, 1] = torch.where(flat[chosen, 1] > 127, 0, 255).to(flat.dtype)
    with pytest.raises(ExportError, match="restored is as expected in"):
        compare("restoration", bundle.networks["restoration"].path, {**values, "restored": off})


def test_frames_of_a_folder(tmp_path: Path) -> None:
    for index in range(6):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((20, 30, 3), 40 * index, np.uint8))
    frames = check_frames(CONFIG.all_conditions, SIZE, listed_images(tmp_path))
    assert frames.shape == (3, HEIGHT, WIDTH, 3)
    assert (frames[0] == 0).all()
    assert abs(float(frames[1].mean()) - 80) < 15


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
    bundle: Bundle,
    described: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "own"
    arguments = ("--bundle", str(bundle.directory), "--adapter", str(described), "--out", str(out))
    arguments += ("--segmenter", str(tmp_path / "own.onnx"))
    monkeypatch.setattr("sys.argv", ["coop-export", *arguments])
    assert export.main() == 0, capsys.readouterr().err
    before, bundle = bundle, load_bundle(out)
    said = bundle.facts["training"]["segmenter"]
    assert (said["onnx"], said["licence"], said["classes"][0]) == ("own.onnx", "MIT", "Car")
    assert bundle.facts["training"]["commit"] == before.facts["training"]["commit"]
    assert bundle.name == "own"
    frame = check_frames(CONFIG.all_conditions, SIZE)[0]
    (result,) = open_pipeline(bundle.directory).run([frame], OUTPUTS)
    assert result.mask_raw is not None
    _, middle, highest = np.moveaxis(np.sort(frame, 2), 2, 0)
    decided = highest > middle
    np.testing.assert_array_equal(result.mask_raw[decided], np.array([8, 5, 0])[frame.argmax(2)][decided])
    together = OnnxRuntimeEngine(bundle.networks["cooperative"].path).run({"image": frame[None]}, ("mask_raw", "mask"))
    np.testing.assert_array_equal(together["mask_raw"][0], result.mask_raw)
    np.testing.assert_array_equal(together["mask"][0], result.mask)


def test_refinement_and_restoration_of_a_bundle_stay_under_another_segmenter(
    bundle: Bundle, described: Path, tmp_path: Path, values: dict[str, torch.Tensor]
) -> None:
    exchange_segmenter(bundle.directory, tmp_path / "own", described, tmp_path / "own.onnx")
    own = load_bundle(tmp_path / "own")
    for name in ("refinement", "restoration"):
        contract = CONTRACTS[name]
        given = {key: values[key].numpy() for key in contract.inputs}
        before, after = (OnnxRuntimeEngine(b.networks[name].path).run(given, contract.outputs) for b in (bundle, own))
        for output in contract.outputs:
            np.testing.assert_array_equal(before[output], after[output])


def test_a_bundle_is_not_exchanged_for_itself(bundle: Bundle, described: Path) -> None:
    with pytest.raises(ExportError, match="is the bundle that is read"):
        exchange_segmenter(bundle.directory, bundle.directory, described)


def test_a_bundle_is_taken_with_a_segmenter_alone(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["coop-export", "--bundle", str(bundle.directory), "--out", str(tmp_path / "own")]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ended:
        export.main()
    assert ended.value.code == 2
    assert "needs --adapter" in capsys.readouterr().err


def test_engines_are_handed_over_beside_the_bundle(bundle: Bundle) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX (tensorrt-rtx-cu13) is not installed")
    said: list[str] = []
    given = [handed_over(bundle.directory)]
    files = ensure(bundle, CONTRACTS, "tensorrt_rtx", "8.9", "fp32", None, said.append, also=given)
    assert {file.parent for file in files.values()} == {bundle.directory.with_name("random.engines")}
    assert not said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--adapter", "absent.yaml"), r"absent\.yaml: cannot be read as YAML"),
        (("--images", "absent"), r"absent: no such folder"),
    ],
)
def test_commands_that_cannot_be(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, str],
    says: str,
) -> None:
    option, name = arguments
    out = tmp_path / "bundle"
    command = ["coop-export", "--checkpoint", str(checkpoint), "--out", str(out), option, str(tmp_path / name)]
    monkeypatch.setattr("sys.argv", command)
    assert export.main() == 1
    assert re.search(says, capsys.readouterr().err)
    assert not out.exists()


def test_what_is_resumed_from_is_no_result(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its weights are not averaged yet, nor the condition's estimator fitted."""
    progress = tmp_path / "progress.safetensors"
    save_weights(progress, random_model().parts(), {**read_facts(checkpoint), "steps": "3"})
    monkeypatch.setattr("sys.argv", ["coop-export", "--checkpoint", str(progress), "--out", str(tmp_path / "bundle")])
    assert export.main() == 1
    assert f"{progress}: is no result of a stage; give one's" in " ".join(capsys.readouterr().err.split())


def test_graphs_share_one_file_of_weights(bundle: Bundle) -> None:
    """It holds what the three refer to; the joined graph adds nothing."""
    places: dict[str, set[tuple[int, int]]] = {}
    for name, network in bundle.networks.items():
        proto = onnx.load(network.path, load_external_data=False)
        entries = [{e.key: e.value for e in t.external_data} for t in proto.graph.initializer if t.external_data]
        places[name] = {(int(entry["offset"]), int(entry["length"])) for entry in entries}
        assert {entry["location"] for entry in entries} == {WEIGHTS}
        assert proto.metadata_props[0].value == sha256(bundle.directory / WEIGHTS)
    assert places["cooperative"] == set.union(*(places[name] for name in STAGES))
    assert all(offset % 4096 == 0 for offset, _ in places["cooperative"])


def test_the_largest_is_the_first_of_equal_ones() -> None:
    scores = torch.randint(0, 4, (2, 11, 6, 8)).float()
    best, index = largest(scores)
    np.testing.assert_array_equal(best.numpy(), scores.numpy().max(1))
    np.testing.assert_array_equal(index.numpy(), scores.numpy().argmax(1))
