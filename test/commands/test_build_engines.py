"""Engines really built, for GPUs that are not here: TensorRT for RTX needs none. And the command around it."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import yaml
from fake_cuda import FakeCuda
from onnx import TensorProto, helper
from set_up_packages import tensorrt_rtx
from toy_bundle import HEIGHT, WIDTH, edit_manifest, put_weights_beside, rewrite_network, write_toy_bundle

from coop_perception.commands.build_engines import main
from coop_perception.contracts import CONTRACTS, STAGES, Bundle, InputSizes
from coop_perception.degradations import degrade
from coop_perception.engines import EngineError, calibration
from coop_perception.engines.backends import ON_CPU
from coop_perception.engines.build import build as build_engine
from coop_perception.engines.cache import read_sidecar
from coop_perception.engines.calibration import with_onnxruntime
from coop_perception.engines.cost import Cost, precision_cost
from coop_perception.engines.cuda import Gpu
from coop_perception.engines.files import ensure, facts, handed_over
from coop_perception.engines.frame_pass import with_engines
from coop_perception.engines.half import placing
from coop_perception.engines.loading import load_file
from coop_perception.engines.onnx_graphs import element_types
from coop_perception.engines.precisions import Graphs
from coop_perception.engines.profiles import Profile, profiles
from coop_perception.image_files import DatasetError
from coop_perception.model.bundle import MANIFEST, load_bundle, sha256
from coop_perception.sample_scene.drive import SampleDrive
from coop_perception.views import scene_view

STREET = Path(__file__).resolve().parents[2] / "models" / "street"
CAPABILITIES = ("8.6", "8.9", "12.0")
SIZE, FULL = (240, 320), (480, 640)
SIZES = InputSizes(height=352, smallest=128, largest=2048, sensor=192)
ADA = Gpu(name="L40S", compute_capability="8.9", memory=48 << 30)


@pytest.fixture(scope="session")
def rtx() -> str:
    tensorrt_rtx()
    return "tensorrt_rtx"


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two small images, which calibrate in a moment."""
    folder = tmp_path_factory.mktemp("images")
    drive = SampleDrive(3, *SIZE[::-1])
    for index in range(2):
        cv2.imwrite(str(folder / f"{index}.png"), drive.frame(40 * index).image[..., ::-1])
    return folder


@pytest.fixture(scope="session", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(calibration, "SIZE", SIZE)
        yield


@pytest.fixture(scope="session")
def street() -> Bundle:
    """The shipped bundle, for smaller images."""
    bundle = load_bundle(STREET)
    return replace(bundle, input=replace(bundle.input, height=192))


@pytest.fixture(scope="session")
def halved(street: Bundle, images: Path) -> Graphs:
    return Graphs(street, "fp16", for_tensorrt=True, images=images)


@pytest.fixture(scope="session")
def quantised(street: Bundle, images: Path) -> Graphs:
    return Graphs(street, "int8", for_tensorrt=False, images=images)


@pytest.fixture(scope="session")
def int8_file(quantised: Graphs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("int8")
    return ensure(quantised.bundle, ["segmenter"], "onnxruntime", None, "int8", out, print, graphs=quantised)[
        "segmenter"
    ]


@pytest.fixture
def toy(tmp_path: Path) -> Bundle:
    return load_bundle(write_toy_bundle(tmp_path / "toy"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "cache"
    monkeypatch.setenv("COOP_PERCEPTION_CACHE", str(directory))
    return directory


def build(bundle: Bundle, directory: Path | None = None, gpu: Gpu | str = "8.9", max_batch: int = 4) -> list[str]:
    """Build the segmenter in FP32, unless it is handed over; what was said."""
    said: list[str] = []
    given = [handed_over(bundle.directory)]
    ensure(bundle, ["segmenter"], "tensorrt_rtx", gpu, "fp32", directory, said.append, max_batch, also=given)
    return said


class _Recording:
    """A module whose builders' configurations are kept. `named`: whether it builds for a compute capability that is
    named; if not, it passes for `tensorrt`, and its GPU is of 8.9."""

    def __init__(self, module: ModuleType, named: bool = True) -> None:
        self._module, self.configs = module, list[Any]()
        self._named = named
        self.IBuilderConfig = module.IBuilderConfig if named else object

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def Builder(self, logger: Any) -> Any:  # noqa: N802
        builder, configs, recording = self._module.Builder(logger), self.configs, self

        class Recorder:
            def create_builder_config(self) -> Any:
                configs.append(builder.create_builder_config())
                if not recording._named:
                    configs[-1].num_compute_capabilities = 1
                    assert configs[-1].set_compute_capability(recording.ComputeCapability.SM89, 0)
                return configs[-1]

            def __getattr__(self, name: str) -> Any:
                return getattr(builder, name)

        return Recorder()


def test_fp32_is_no_tf32(rtx: str, toy: Bundle) -> None:
    module: Any = _Recording(importlib.import_module(rtx))
    source = toy.networks["segmenter"].path
    build_engine(module, source, source.read_bytes(), "8.9", partial(profiles, sizes=toy.input, max_batch=1))
    (config,) = module.configs
    assert not config.get_flag(module.BuilderFlag.TF32)


def test_kernels_are_tried_within_half_of_the_gpus_memory(
    rtx: str, toy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else the GPU holds; tensorrt_rtx tries none."""
    cuda = FakeCuda()
    cuda.stand_in(monkeypatch)
    cuda.capacity = 6 << 30
    source = toy.networks["segmenter"].path
    ranges = partial(profiles, sizes=toy.input, max_batch=1)
    limits = []
    for named in (False, True):
        module: Any = _Recording(importlib.import_module(rtx), named)
        build_engine(module, source, source.read_bytes(), "8.9", ranges)
        limits.append(module.configs[0].get_memory_pool_limit(module.MemoryPoolType.WORKSPACE))
    assert limits[0] == 3 << 30
    assert limits[1] != limits[0]


@pytest.mark.parametrize(("most", "expected"), [(1, [(1, 1)]), (3, [(1, 1), (2, 3)])])
def test_a_single_frame_and_more_have_a_profile_each(
    rtx: str, toy: Bundle, most: int, expected: list[tuple[int, int]]
) -> None:
    module: Any = _Recording(importlib.import_module(rtx))
    source = toy.networks["refinement"].path
    ranges = partial(profiles, sizes=toy.input, max_batch=most)
    built = build_engine(module, source, source.read_bytes(), "8.9", ranges)
    assert module.configs[0].num_optimization_profiles == len(expected)
    assert built.timings == b""
    assert [(profile["image"][0][0], profile["probabilities"][2][0]) for profile in built.profiles] == expected


def test_profiles_hold_any_camera() -> None:
    inputs = {
        "frame": (-1, -1, -1, 3),
        "image": (-1, -1, -1, 3),
        "probabilities": (-1, 11, -1, -1),
        "sensor": (-1, 192, 192, 3),
        "familiarity": (-1,),
    }
    expected: Profile = {
        "frame": ((2, 32, 32, 3), (4, 720, 1280, 3), (4, 2160, 3840, 3)),
        "image": ((2, 128, 128, 3), (4, 352, 640, 3), (4, 2048, 2048, 3)),
        "probabilities": ((2, 11, 32, 32), (4, 11, 88, 160), (4, 11, 512, 512)),
        "sensor": ((2, 192, 192, 3), (4, 192, 192, 3), (4, 192, 192, 3)),
        "familiarity": ((2,), (4,), (4,)),
    }
    assert profiles(inputs, SIZES, 4)[1] == expected
    with pytest.raises(EngineError, match=r"input 'sensor' has the shape \[-1, -1, -1, 3\].* have to be fixed"):
        profiles({"sensor": (-1, -1, -1, 3)}, SIZES, 4)


class TestStreet:
    """The graphs of the shipped bundle, FP16, for three generations of GPUs."""

    @pytest.mark.parametrize("capability", CAPABILITIES)
    def test_all_of_them_build_for_frames_of_any_size_in_batches_of_one_to_four(
        self, rtx: str, halved: Graphs, capability: str, tmp_path: Path
    ) -> None:
        said: list[str] = []
        files = ensure(halved.bundle, CONTRACTS, rtx, capability, "fp16", tmp_path, said.append, 4, halved)
        assert list(files) == list(STAGES)
        assert len(said) == len(STAGES)
        for name, file in files.items():
            content = read_sidecar(file)
            assert content["key"]["compute_capability"] == capability
            assert content["key"]["max_batch"] == 4
            assert "(above all 192x352), frames of 32x32 to 2160x3840" in content["key"]["sizes"]
            assert content["facts"]["size"] == file.stat().st_size > 1e6
            assert content["facts"]["profiles"][1]["image"][2] == [4, 2048, 2048, 3]
            tensors = {tensor["name"]: tensor for tensor in content["facts"]["tensors"]}
            assert list(tensors) == [*CONTRACTS[name].inputs, *CONTRACTS[name].outputs]
            image = {"name": "image", "side": "input", "dtype": "uint8", "shape": [None, None, None, 3]}
            assert tensors["image"] == image
            assert {tensor["shape"][0] for tensor in tensors.values()} == {None}
        again = ensure(halved.bundle, CONTRACTS, rtx, capability, "fp16", tmp_path, said.append, 4, halved)
        assert again == files
        assert len(said) == len(STAGES)

    def test_fp16_hardly_changes_what_comes_out(self, halved: Graphs) -> None:
        """At the bundle's own size, of a clear frame, one in fog, and one with noise."""
        bundle = load_bundle(STREET)
        drive = SampleDrive(2, *FULL[::-1])
        shown = {0: "", 30: "fog", 60: "gaussian_noise"}
        scenes = [(drive.frame(index), condition) for index, condition in shown.items()]
        cost = precision_cost(
            bundle,
            with_onnxruntime({name: network.path for name, network in bundle.networks.items()}),
            with_onnxruntime({name: halved.on_a_cpu(name) for name in bundle.networks}),
            [
                degrade(scene.image, condition, 2, seed=0, depth=scene.depth, intrinsics=drive.intrinsics)
                if condition
                else scene.image
                for scene, condition in scenes
            ],
        )
        assert min(cost.mask, cost.mask_raw) > 0.999
        assert cost.restored_psnr > 50

    @pytest.mark.parametrize("name", STAGES)
    def test_most_of_a_graph_is_half(self, halved: Graphs, name: str) -> None:
        model = onnx.load_from_string(halved.graph(name).data)
        convolutions = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
        kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        assert {kinds[weights] for weights in convolutions if weights in kinds} == {TensorProto.FLOAT16}
        ends = {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
        assert set(ends.values()) <= {TensorProto.FLOAT, TensorProto.UINT8}
        # Sums over the whole image, and softmax; what finds where pixels are read is float32 as a whole.
        placed, types = placing(model.graph), element_types(model)
        others = [node for node in model.graph.node if node.name not in placed]
        kept = [
            node
            for node in others
            if node.op_type != "Cast" and TensorProto.FLOAT in map(types.get, (*node.input, *node.output))
        ]
        assert 0 < len(kept) < len(others) / 5


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_weights_come_from_the_file_beside_the_graph(
    rtx: str, toy: Bundle, images: Path, tmp_path: Path, precision: str
) -> None:
    weights = put_weights_beside(toy.directory)
    graphs = Graphs(load_bundle(toy.directory), precision, for_tensorrt=True, images=images)
    file = ensure(graphs.bundle, ["segmenter"], rtx, "8.9", precision, tmp_path, print, graphs=graphs)["segmenter"]
    assert file.stat().st_size == facts(file)["size"]
    weights.unlink()
    graphs = Graphs(graphs.bundle, precision, for_tensorrt=True, images=images)
    with pytest.raises(EngineError, match=r"segmenter\.onnx: .*factor"):
        ensure(graphs.bundle, ["segmenter"], rtx, "8.6", precision, tmp_path, print, graphs=graphs)


class TestRebuilding:
    """On a bundle whose networks build in a moment."""

    def test_an_engine_that_fits_is_not_built_again(self, rtx: str, toy: Bundle, cache: Path) -> None:
        assert len(build(toy)) == 1
        assert build(toy) == []
        assert build(toy, gpu=ADA) == []

    def test_a_changed_bundle_is_built_again_and_why(self, rtx: str, toy: Bundle, cache: Path) -> None:
        build(toy)
        path = toy.networks["segmenter"].path
        model = onnx.load(path)
        helper.set_model_props(model, {"weights_sha256": "others"})
        onnx.save(model, path)
        manifest = yaml.safe_load((toy.directory / MANIFEST).read_text())
        manifest["networks"]["segmenter"]["sha256"] = sha256(path)
        edit_manifest(toy.directory, networks=manifest["networks"])
        changed = load_bundle(toy.directory)
        assert "built of another ONNX file: the bundle has changed" in build(changed)[0]
        assert build(changed) == []

    def test_a_new_version_builds_again(
        self, rtx: str, toy: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build(toy)
        import tensorrt_rtx

        monkeypatch.setattr(tensorrt_rtx, "__version__", "99.0")
        assert ", 99.0 is installed" in build(toy)[0]

    def test_a_damaged_engine_is_built_again(self, rtx: str, toy: Bundle, cache: Path) -> None:
        build(toy)
        file = next(cache.glob("*.engine"))
        file.write_bytes(file.read_bytes()[:-1])
        assert "is damaged" in build(toy)[0]
        assert build(toy) == []

    def test_another_gpu_gets_an_engine_of_its_own(self, rtx: str, toy: Bundle, cache: Path) -> None:
        build(toy)
        assert "only for compute capability 8.9" in build(toy, gpu="12.0")[0]
        assert len(build(toy, gpu="8.6")) == 1
        assert build(toy, gpu="8.9") == build(toy, gpu="12.0") == []

    def test_a_bundle_for_other_sizes_is_built_again(self, rtx: str, toy: Bundle, cache: Path) -> None:
        build(toy)
        other = replace(toy, input=replace(toy.input, largest=1024))
        said = build(other)
        assert "built for images of 32 to 2048 pixels a side (above all 32x64)" in said[0]
        assert "not images of 32 to 1024 pixels" in said[0]

    def test_an_engine_renamed_to_another_gpus_is_not_taken(self, rtx: str, toy: Bundle, cache: Path) -> None:
        build(toy)
        for file in list(cache.glob("toy*")):
            file.rename(file.with_name(file.name.replace("8.9", "8.6")))
        assert "built for compute capability 8.9, not 8.6" in build(toy, gpu="8.6")[0]

    def test_larger_batches_are_built_for(self, rtx: str, toy: Bundle, cache: Path) -> None:
        build(toy, max_batch=2)
        assert "batches of up to 2, not 3" in build(toy, max_batch=3)[0]
        assert build(toy, max_batch=1) == []

    def test_engines_handed_over_with_the_bundle_are_taken(self, rtx: str, toy: Bundle, cache: Path) -> None:
        build(toy, handed_over(toy.directory))
        assert build(toy) == []
        assert not cache.exists()

    def test_stale_ones_handed_over_are_named_and_left(self, rtx: str, toy: Bundle, cache: Path) -> None:
        build(toy, handed_over(toy.directory), max_batch=1)
        said = build(toy)
        assert "not used: it takes batches of up to 1, not 4" in said[0]
        assert build(toy, handed_over(toy.directory), max_batch=1) == []

    def test_a_build_that_is_killed_leaves_no_engine_and_no_lock(self, rtx: str, toy: Bundle, cache: Path) -> None:
        with builder(toy, "print('in the middle', flush=True) or input()") as process:
            assert process.stdout is not None
            assert "in the middle\n" in process.stdout
            process.kill()
        assert not list(cache.glob("toy*"))
        assert "there is none yet" in build(toy)[0]

    def test_two_at_once_build_once(self, rtx: str, toy: Bundle, cache: Path) -> None:
        with builder(toy) as first, builder(toy) as second:
            said = first.communicate()[0] + second.communicate()[0]
            assert first.returncode == second.returncode == 0
        assert said.count("there is none yet") == 1


class builder:  # noqa: N801
    """A process that builds the toy's segmenter, tells why, and does something at each step."""

    def __init__(self, bundle: Bundle, at_step: str = "None") -> None:
        code = f"""
import pathlib
from coop_perception.model.bundle import load_bundle
from coop_perception.engines.files import ensure
ensure(load_bundle(pathlib.Path({str(bundle.directory)!r})), ["segmenter"], "tensorrt_rtx", "8.9", "fp32", None, print,
       progress=lambda phase, done, steps: {at_step})
"""
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> subprocess.Popen[str]:
        return self._process.__enter__()

    def __exit__(self, *error: object) -> None:
        self._process.__exit__(*error)


class TestErrors:
    def test_operators_that_tensorrt_has_not_are_named(self, rtx: str, toy: Bundle, tmp_path: Path) -> None:
        write(toy, [node("Unique", "first"), node("Det", "det"), node("FooBar", "", domain="my.ops")])
        with pytest.raises(EngineError) as error:
            build(load_bundle(toy.directory), tmp_path)
        assert str(toy.networks["segmenter"].path) in str(error.value)
        assert "operator Unique is not supported (nodes first)" in str(error.value)
        assert "operator Det is not supported (nodes det)" in str(error.value)
        assert "operator FooBar is not supported (nodes without a name)" in str(error.value)
        assert not list(tmp_path.glob("*.engine"))

    def test_a_node_that_it_has_but_not_so_is_told_with_its_reason(self, rtx: str, toy: Bundle, tmp_path: Path) -> None:
        cast = helper.make_node("Cast", ["image"], ["y"], name="between", to=TensorProto.FLOAT)
        back = helper.make_node("Cast", ["y"], ["z"], name="bytes", to=TensorProto.UINT8)
        write(toy, [cast, back, node("Abs", "abs", given="z")])
        with pytest.raises(EngineError, match=r"Cast bytes: .*does not support UINT8 types for intermediate tensors"):
            build(load_bundle(toy.directory), tmp_path)

    def test_a_gpu_that_it_does_not_build_for_is_named_with_those_it_does(
        self, rtx: str, toy: Bundle, tmp_path: Path
    ) -> None:
        with pytest.raises(
            EngineError, match=r"not build for compute capability 9\.0, only for 7\.5, .*12\.0.*tensorrt"
        ):
            build(toy, tmp_path, gpu="9.0")

    def test_a_missing_module_says_what_to_install(self, toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
        with pytest.raises(EngineError, match="pip install tensorrt-rtx-cu13"):
            build(toy)

    def test_a_missing_onnx_matters_only_where_graphs_are_converted(
        self, rtx: str, toy: Bundle, images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def segmenter() -> None:
            graphs = Graphs(toy, "fp16", for_tensorrt=True, images=images)
            ensure(toy, ["segmenter"], rtx, "8.9", "fp16", None, print, graphs=graphs)

        segmenter()
        for module in [name for name in sys.modules if name.startswith("coop_perception.engines.half")]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, "onnx", None)
        segmenter()
        next(cache.glob("*.engine")).unlink()
        with pytest.raises(EngineError, match=r"fp16 needs the Python package onnx: .*; pip install onnx"):
            segmenter()

    def test_a_graph_that_cannot_be_converted_is_named(self, rtx: str, toy: Bundle, images: Path, cache: Path) -> None:
        """ONNX Runtime takes it, though it gives something else than it says."""
        model = onnx.load(toy.networks["segmenter"].path)
        assert model.graph.output[0].name == "probabilities"
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 12
        rewrite_network(toy.directory, "segmenter", model)
        graphs = Graphs(load_bundle(toy.directory), "fp16", for_tensorrt=True, images=images)
        with pytest.raises(EngineError, match=r"segmenter\.onnx: cannot be converted to fp16: .*\(11\) vs \(12\)"):
            ensure(graphs.bundle, ["segmenter"], rtx, "8.9", "fp16", None, print, graphs=graphs)

    @pytest.mark.parametrize("precision", ["fp16", "int8"])
    @pytest.mark.parametrize("broken", STAGES)
    def test_a_broken_graph_is_named_whichever_is_converted(
        self, toy: Bundle, images: Path, cache: Path, broken: str, precision: str
    ) -> None:
        """Each is calibrated with what the others give."""
        toy.networks[broken].path.write_bytes(b"no graph")
        graphs = Graphs(toy, precision, for_tensorrt=False, images=images)
        with pytest.raises(EngineError, match=rf"{broken}\.onnx: ONNX Runtime .* cannot load it"):
            graphs.graph("segmenter")

    def test_a_damaged_graph_is_said(self, rtx: str, toy: Bundle, tmp_path: Path) -> None:
        toy.networks["segmenter"].path.write_bytes(b"no graph")
        with pytest.raises(EngineError, match=r"segmenter.onnx: .* cannot take this graph: .*Failed to parse"):
            build(toy, tmp_path)


def node(kind: str, name: str, given: str = "image", domain: str = "") -> onnx.NodeProto:
    return helper.make_node(kind, [given], [f"{kind}_of_{given}"], name=name, domain=domain)


def write(toy: Bundle, nodes: list[onnx.NodeProto]) -> None:
    """Another graph for the toy's segmenter, which gives what the last node does."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])
    result = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "segmenter", [image], [result])
    path = toy.networks["segmenter"].path
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    manifest = yaml.safe_load((toy.directory / MANIFEST).read_text())
    manifest["networks"]["segmenter"]["sha256"] = sha256(path)
    edit_manifest(toy.directory, networks=manifest["networks"])


def convolutions(file: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights of quantised ones, and of the others."""
    graph = onnx.load(file).graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {node.output[0]: node for node in graph.node}
    weights = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    quantised = [producers[name] for name in weights if name not in tensors]
    assert {node.op_type for node in quantised} == {"DequantizeLinear"}
    return [tensors[node.input[0]] for node in quantised], [tensors[name] for name in weights if name in tensors]


class TestInt8:
    def test_dense_convolutions_are_quantised(self, int8_file: Path) -> None:
        quantised, kept = convolutions(int8_file)
        assert quantised
        assert all(channels >= 16 and height * width > 1 for _, channels, height, width in (a.shape for a in quantised))
        assert all(channels < 16 or height * width == 1 for _, channels, height, width in (a.shape for a in kept))

    def test_no_sum_of_two_products_overflows_16_bits(self, int8_file: Path) -> None:
        """Which is what processors without VNNI add them in: the largest activation is 255."""
        weights, _ = convolutions(int8_file)
        assert {array.dtype for array in weights} == {np.dtype(np.int8)}
        assert 50 < max(int(np.abs(array.astype(int)).max()) for array in weights) <= 32767 // (2 * 255)

    def test_files_of_eight_bits_are_built_again(self, quantised: Graphs, int8_file: Path, tmp_path: Path) -> None:
        out = shutil.copytree(int8_file.parent, tmp_path / "out")
        sidecar = out / f"{int8_file.stem}.json"
        content = json.loads(sidecar.read_text())
        content["key"]["version"] = None
        sidecar.write_text(json.dumps(content))
        said: list[str] = []
        ensure(quantised.bundle, ["segmenter"], "onnxruntime", None, "int8", out, said.append, graphs=quantised)
        assert "quantised otherwise than with unsigned activations, 7-bit weights" in said[0]

    @pytest.mark.parametrize("backend", ON_CPU)
    def test_the_file_runs_and_agrees(self, int8_file: Path, quantised: Graphs, backend: str) -> None:
        image = scene_view(quantised.frames.checking[0], (192, 256))[None]
        exact = with_onnxruntime({"segmenter": quantised.bundle.networks["segmenter"].path})
        mask = exact("segmenter", {"image": image}, ["mask_raw"])["mask_raw"]
        found = load_file(backend, int8_file, 0, "int8").run({"image": image}, ["mask_raw"])
        assert np.mean(found["mask_raw"] == mask) > 0.97

    def test_openvino_restores_with_the_files_as_onnx_runtime_does_in_fp32(
        self, quantised: Graphs, tmp_path: Path
    ) -> None:
        bundle, frames = quantised.bundle, quantised.frames.checking
        files = ensure(bundle, STAGES, "openvino", None, "int8", tmp_path, print, graphs=quantised)
        engines = {name: load_file("openvino", file, 0, "int8") for name, file in files.items()}
        exact = with_onnxruntime({name: network.path for name, network in bundle.networks.items()})
        cost = precision_cost(bundle, exact, with_engines(engines), frames)
        assert min(cost.mask_raw, cost.mask) > 0.97
        assert cost.restored_psnr > 35

    def test_other_calibration_images_build_again(
        self, quantised: Graphs, int8_file: Path, images: Path, tmp_path: Path
    ) -> None:
        folder, out = shutil.copytree(images, tmp_path / "images"), shutil.copytree(int8_file.parent, tmp_path / "out")
        (folder / "1.png").unlink()
        said: list[str] = []
        others = Graphs(quantised.bundle, "int8", for_tensorrt=False, images=folder)
        ensure(quantised.bundle, ["segmenter"], "onnxruntime", None, "int8", out, said.append, graphs=others)
        assert "calibrated on other images" in said[0]

    def test_tensorrt_takes_the_symmetric_kind(self, rtx: str, quantised: Graphs, images: Path, tmp_path: Path) -> None:
        symmetric = Graphs(quantised.bundle, "int8", for_tensorrt=True, images=images)
        file = ensure(quantised.bundle, ["segmenter"], rtx, "8.9", "int8", tmp_path, print, graphs=symmetric)[
            "segmenter"
        ]
        assert file.stat().st_size == facts(file)["size"]
        nodes = onnx.load_from_string(symmetric.graph("segmenter").data).graph.node
        dequantised = {one.output[0] for one in nodes if one.op_type == "DequantizeLinear"}
        consumers = {one.op_type for one in nodes if dequantised & {*one.input}}
        assert "Conv" in consumers
        assert not consumers & {"Relu", "Clip"}
        results = {one.output[0] for one in nodes if one.op_type == "Conv" and dequantised & {*one.input}}
        # Anything between a convolution and the activation or sum behind it would keep TensorRT from joining them.
        assert {one.op_type for one in nodes if results & {*one.input}} == {"Relu", "Add"}

    def test_where_it_is_slower_than_fp16_it_is_not_offered(self, rtx: str, toy: Bundle) -> None:
        with pytest.raises(SystemExit, match=r"precision is 'int8', backend tensorrt_rtx has fp16, fp32"):
            main(["--bundle", str(toy.directory), "--backend", rtx, "--precision", "int8"])


class TestCommand:
    def test_builds_all_and_tells_what_the_precision_costs(
        self, rtx: str, toy: Bundle, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "engines"
        arguments = ["--bundle", str(toy.directory), "--backend", rtx, "--compute-capability", "8.6,12.0"]
        main([*arguments, "--precision", "fp16", "--calibration", str(images), "--out", str(out)])
        assert sorted(file.name for file in out.glob("*.engine")) == sorted(
            f"toy-{name}-tensorrt_rtx-{one}-fp16.engine" for name in CONTRACTS for one in ("8.6", "12.0")
        )
        told = capsys.readouterr().err
        assert "100.000%" in told
        assert "not by the engines" in told
        assert "warning" not in told

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["--backend", "tensorrt_rtx", "--compute-capability", "8.9", "--bundle", "nowhere"], "nowhere"),
            (["--backend", "tensorrt_rtx", "--compute-capability", "3.5"], "does not build for compute capability 3.5"),
            (
                ["--backend", "onnxruntime", "--precision", "int8", "--calibration", "nowhere"],
                "nowhere: no such folder",
            ),
            (["--backend", "tensorrt_rtx"], "--compute-capability"),
            (["--backend", "openvino", "--precision", "int8", "--compute-capability", "8.9"], "are for CPUs"),
        ],
    )
    def test_fails_in_one_line(
        self,
        rtx: str,
        toy: Bundle,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        arguments: list[str],
        complaint: str,
    ) -> None:
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)  # no GPU, wherever this runs
        with pytest.raises(SystemExit) as stopped:
            main(["--bundle", str(toy.directory), "--out", str(tmp_path), *arguments])
        assert complaint in str(stopped.value)
        assert str(stopped.value).startswith("build_engines: ")
        assert "\n" not in str(stopped.value)

    @pytest.mark.parametrize("value", ["8", "8.x", "8.9,", "Ada"])
    def test_a_mistaken_compute_capability_is_said(self, value: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["--backend", "tensorrt_rtx", "--compute-capability", value])
        assert "expected one as 8.9" in capsys.readouterr().err

    def test_backends_that_load_onnx_need_nothing(self, toy: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
        main(["--bundle", str(toy.directory), "--backend", "onnxruntime", "--precision", "fp32"])
        assert "nothing needs building" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cost", "excessive"),
    [
        (Cost(0.999, 0.999, 0.99, 50.0), False),
        (Cost(0.98, 0.999, 0.99, 50.0), True),
        (Cost(0.999, 0.98, 0.99, 50.0), True),
        (Cost(0.999, 0.999, 0.99, 34.0), True),
    ],
)
def test_what_is_warned_of(cost: Cost, excessive: bool) -> None:
    assert cost.excessive() == excessive


@pytest.mark.parametrize(
    ("cost", "little"),
    [
        (Cost(0.999, 0.999, 0.99, 46.0, 0.2), True),
        (Cost(0.999, 0.999, 0.99, 46.0, -0.4), True),
        (Cost(0.999, 0.999, 0.99, 46.0, 0.3), False),
        (Cost(0.999, 0.999, 0.99, 44.0, 0.2), False),
        (Cost(0.999, 0.999, 0.99, 46.0, None), False),
    ],
)
def test_what_is_taken_unasked(cost: Cost, little: bool) -> None:
    assert cost.little() == little


def test_points_of_miou_are_lost_against_what_is_shown(tmp_path: Path) -> None:
    bundle = load_bundle(write_toy_bundle(tmp_path / "toy"))
    sky, road = 0, 3
    shown = np.full((HEIGHT, WIDTH), sky, np.uint8)
    shown[:, WIDTH // 2 :] = road
    wrong = shown.copy()
    wrong[:, WIDTH // 2 : WIDTH * 3 // 4] = sky

    def gives(mask: np.ndarray) -> Any:
        same = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
        return lambda name, given, wanted: {one: mask[None] if "mask" in one else same for one in wanted}

    frames = [np.zeros((HEIGHT, WIDTH, 3), np.uint8)]
    cost = precision_cost(bundle, gives(shown), gives(wrong), frames, [shown])
    assert cost.miou_lost == pytest.approx(100 - 100 * (2 / 3 + 1 / 2) / 2)
    assert precision_cost(bundle, gives(shown), gives(wrong), frames).miou_lost is None


def test_nothing_is_calibrated_on_images_that_are_nearly_black(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.full((48, 64, 3), 4095, np.uint16))
    with pytest.raises(DatasetError, match="1 of 1 images are nearly black"):
        calibration.calibration_frames(tmp_path)


def test_calibration_takes_a_folder_apart(images: Path) -> None:
    found = calibration.calibration_frames(images)
    assert found.calibrating
    assert found.checking
    assert {frame.shape for frame in (*found.calibrating, *found.checking)} == {(*SIZE, 3)}
