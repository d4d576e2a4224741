"""A bundle with another segmenter: refinement and restoration stay as they are, to the bit."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from rich.console import Console

from coop_perception.contracts import CONTRACTS, network_size
from coop_perception.documents import read_yaml
from coop_perception.engines.onnxruntime import OnnxRuntimeEngine
from coop_perception.model.bundle import MANIFEST, load_bundle
from coop_training.adapters import OnnxSegmenter
from coop_training.bundle_writing import check_replaceable, described, new_bundle, write_graphs, write_manifest
from coop_training.export_check import ExportError, check_views, listed_images


def exchange_segmenter(
    source: Path,
    out: Path,
    description: Path,
    segmenter: Path | None = None,
    images: Path | None = None,
    figures: Path | None = None,
    force: bool = False,
) -> None:
    """Write the bundle `out`: `source` with a user's segmenter.

    Args:
        source: the bundle's directory.
        out: the new one's.
        description: YAML of the user's segmenter.
        segmenter: its ONNX file, if that is not the one that the description names.
        images: folder of images to check the graphs on; None: frames of a sample drive.
        figures: YAML for the manifest; those of `source` were measured with another segmenter.
        force: whether a bundle at `out` may be replaced.

    Raises:
        BundleError: `source` cannot be used.
        ExportError: `out` is `source`, or exists and cannot or must not be replaced, or a graph's results are not those
            of its parts.
        AdapterError: the user's segmenter cannot be used as it is described.
        DatasetError: there are no images in `images`.
        DocumentError: `figures` cannot be read.
        OSError: the bundle cannot be written.
    """
    console, out = Console(stderr=True, markup=False), out.resolve()
    bundle = load_bundle(source)
    if out == source.resolve():
        raise ExportError(f"{out}: is the bundle that is read; choose another --out")
    check_replaceable(out, force)
    own = OnnxSegmenter(description, bundle.classes, *network_size(bundle.input, 3, 4), segmenter)
    views = check_views(bundle.conditions, bundle.input, listed_images(images) if images else [])
    console.print(f"compared with its parts on {len(views)} frames of {images or 'a sample drive'}")

    graphs = {name: onnx.load(network.path) for name, network in bundle.networks.items()} | {"segmenter": own.graph()}
    others = {name: OnnxRuntimeEngine(bundle.networks[name].path) for name in ("refinement", "restoration")}
    for view in views:
        segmented = own.segment(torch.from_numpy(view["image"]))
        view |= zip(CONTRACTS["segmenter"].outputs, (value.numpy() for value in segmented), strict=True)
        for name, engine in others.items():
            contract = CONTRACTS[name]
            view |= engine.run({key: view[key] for key in contract.inputs}, contract.outputs)
    manifest = read_yaml(source / MANIFEST)
    with new_bundle(out, force, console) as directory:
        manifest |= {"name": out.name, "networks": write_graphs(graphs, views, directory, console)}
        manifest["training"] = {**manifest.get("training", {}), "segmenter": described(own)}
        manifest["figures"] = read_yaml(figures) if figures else {}
        write_manifest(directory, manifest)
