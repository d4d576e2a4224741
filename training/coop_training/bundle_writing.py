"""Writing a model bundle: beside the one that it takes the place of, which stays until the new one is whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import yaml
from rich.console import Console

from coop_perception.contracts import CONTRACTS, STAGES, Bundle
from coop_perception.documents import read_yaml
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.engines.precisions import Graphs
from coop_perception.model.bundle import HALF, MANIFEST, load_bundle, sha256
from coop_perception.model.pipeline import Pipeline
from coop_perception.replacing import refuse_others, replacement
from coop_training.adapters import OnnxSegmenter
from coop_training.export_check import ExportError, Values, compare
from coop_training.onnx_graphs import save_graph


def check_replaceable(out: Path, force: bool) -> None:
    """Raises ExportError where `out` exists, unless it is a bundle that may be replaced, FileExistsError where there is
    more in it than a bundle has."""
    if out.exists() and not (out / MANIFEST).is_file():
        raise ExportError(f"{out}: exists and is no bundle, so it is not replaced; choose another --out")
    if out.exists() and not force:
        raise ExportError(f"{out}: exists; choose another --out, or allow it to be replaced (--force)")
    if out.exists():
        refuse_others(out, (file for file in out.iterdir() if not _of_a_bundle(file)), "a bundle")


@contextmanager
def new_bundle(out: Path, force: bool, console: Console) -> Iterator[Path]:
    """A folder to write the bundle `out` into, which takes that one's place when it has been left, has been read and
    has run, has its FP16 graphs too, and is on the disk. What goes wrong before leaves `out` as it was.

    Raises:
        ExportError: `out` exists, and is no bundle or must not be replaced.
        BundleError: what was written is no bundle that can be read.
        OSError: nothing can be written there, or another process writes the same bundle.
    """
    with replacement(out) as made:
        check_replaceable(out, force)
        made.mkdir()
        yield made
        bundle = load_bundle(made)
        Pipeline(bundle, load_engines(bundle, STAGES, EngineSettings("onnxruntime"))).warm_up()
        _write_halves(bundle, console)
    console.print(f"{out}: {sum(f.stat().st_size for f in out.iterdir()) / 1e6:.1f} MB")


def write_graphs(
    graphs: Mapping[str, onnx.ModelProto], values: Sequence[Values], directory: Path, console: Console
) -> dict[str, Any]:
    """Write the graphs, each compared with what is expected of it.

    Args:
        graphs: by name, those of `CONTRACTS`.
        values: of each frame of the check, every tensor of the contracts.
        directory: where they go.
        console: for one line per graph.

    Returns:
        `networks` of the manifest.

    Raises:
        ExportError: a graph's results differ by more than rounding.
    """
    entries = {}
    for name, contract in CONTRACTS.items():
        path = directory / f"{name}.onnx"
        save_graph(graphs[name], path)
        size, nodes = path.stat().st_size / 1e6, computing(graphs[name])
        console.print(f"{name}: {nodes} nodes, {size:.1f} MB, {compare(name, path, values)}")
        entries[name] = {
            "file": path.name,
            "sha256": sha256(path),
            "inputs": list(contract.inputs),
            "outputs": list(contract.outputs),
        }
    return entries


def _write_halves(bundle: Bundle, console: Console) -> None:
    """Beside each graph the same for GPUs, float16 inside where the frames of calibration allow it: so that a vehicle
    has nothing to convert."""
    graphs = Graphs(whole(bundle), "fp16", for_tensorrt=True)
    manifest = read_yaml(bundle.directory / MANIFEST)
    for name, network in bundle.networks.items():
        graph, path = graphs.graph(name), network.path.with_suffix(".fp16.onnx")
        path.write_bytes(graph.data)
        console.print(f"{path.name}: {graph.kept} nodes in float32, {len(graph.data) / 1e6:.1f} MB")
        manifest["networks"][name][HALF] = {"file": path.name, "sha256": sha256(path), "float32_nodes": graph.kept}
    write_manifest(bundle.directory, manifest)
    load_bundle(bundle.directory)


def whole(bundle: Bundle) -> Bundle:
    """A bundle without its FP16 graphs."""
    return replace(bundle, networks={name: replace(one, half=None) for name, one in bundle.networks.items()})


def _of_a_bundle(file: Path) -> bool:
    return file.name == MANIFEST or file.suffix in (".onnx", ".data")  # weights beside their graph


def computing(proto: onnx.ModelProto) -> int:
    """How many of a graph's nodes are no casts of stored weights, which runtimes do away with at load."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    return sum(node.op_type != "Cast" or node.input[0] not in stored for node in proto.graph.node)


def write_manifest(directory: Path, manifest: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(manifest), sort_keys=False, width=120, default_flow_style=None)
    (directory / MANIFEST).write_text(text)


def described(segmenter: OnnxSegmenter) -> dict[str, Any]:
    """What the manifest says of a user's segmenter: its description, and its file's checksum."""
    description, file = segmenter.description, segmenter.adapter.onnx
    return {**read_yaml(description), "onnx": file.name, "sha256": sha256(file)}
