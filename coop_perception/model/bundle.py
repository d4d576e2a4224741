"""The model bundle: a directory that names everything the runtime must know about a trained model.

`bundle.yaml` is the manifest; the ONNX files beside it are the networks. Reading a bundle checks every file's sha256,
so that what runs is what was measured.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coop_perception.classes import IGNORE_ID, SemanticClass, parse_classes
from coop_perception.contracts import CONTRACTS, LARGEST_SIDE, STRIDE, Bundle, HalfGraph, InputSizes, Network
from coop_perception.documents import DocumentError, read_yaml
from coop_perception.model.weights import refused_weights
from coop_perception.shown import LONGEST_NAME, is_name, plain, shown

FORMAT_VERSION = 2
MANIFEST = "bundle.yaml"
HALF = "fp16"
"""Of a network's entry: the same network as GPUs run it."""
LARGEST_FILE = 2**31
"""Bytes: no graph can be larger, nor any that it shares weights with."""
_SHA256 = re.compile("[0-9a-f]{64}")


class BundleError(ValueError):
    """A bundle that cannot be used; the message names the file and the field."""


def load_bundle(directory: Path) -> Bundle:
    """Read and check a bundle's manifest and the checksums of its files.

    Raises:
        BundleError: the manifest is missing, malformed or of another format version; a class list is not 0..C-1
            without repetition; a network's tensor names are not the contract's; a file is missing, altered, larger than
            LARGEST_FILE, or outside the directory; a graph takes weights from a file that the manifest does not list,
            or was made with others.
    """
    path = directory / MANIFEST
    try:
        manifest = read_yaml(path)
    except DocumentError as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        reason = f"{path}: not found; a bundle is a directory with {MANIFEST} and its ONNX files"
        raise BundleError(reason if missing else str(error)) from error
    if not isinstance(manifest, dict):
        raise BundleError(f"{path}: is no mapping of fields")
    version = _field(path, manifest, "format", int)
    if version != FORMAT_VERSION:
        raise BundleError(f"{path}: format is {version}, this version reads {FORMAT_VERSION}; export the bundle again")
    ignore = _field(path, manifest, "ignore_id", int)
    if ignore != IGNORE_ID:
        raise BundleError(f"{path}: ignore_id is {ignore}, expected {IGNORE_ID}")
    networks = _field(path, manifest, "networks", dict)
    files: dict[Path, str] = {}
    if "weights" in manifest:  # which the graphs may share, or hold themselves
        weights = _field(path, manifest, "weights", dict)
        files |= [_checked_file(path, weights, "weights.", "networks' weights")]
    checked = {name: _network(path, networks, name) for name in CONTRACTS}
    graphs = {network.path: network.sha256 for network in checked.values()}
    graphs |= {network.half.path: network.half.sha256 for network in checked.values() if network.half is not None}
    for graph in graphs:
        if why := refused_weights(graph, files):
            raise BundleError(f"{graph}: {why}; export the bundle again")
    return Bundle(
        name=_name(path, _field(path, manifest, "name", str)),
        directory=directory,
        classes=_classes(path, _field(path, manifest, "classes", list)),
        conditions=_conditions(path, _field(path, manifest, "conditions", list)),
        input=_input(path, _field(path, manifest, "input", dict)),
        networks=checked,
        files=files | graphs,
        facts={key: manifest.get(key, {}) for key in ("training", "figures", "licence")},
    )


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _field(path: Path, mapping: Mapping[str, Any], key: str, kind: type, inside: str = "") -> Any:
    if key not in mapping:
        raise BundleError(f"{path}: has no field '{inside}{key}'")
    value = mapping[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BundleError(f"{path}: {inside}{key} is {shown(value)}, expected {kind.__name__}")
    return value


def _input(path: Path, sizes: Mapping[str, Any]) -> InputSizes:
    found = InputSizes(*(_side(path, sizes, key) for key in ("height", "smallest", "largest", "sensor")))
    if not found.smallest <= found.height <= found.largest:
        raise BundleError(
            f"{path}: input height is {found.height}, expected between smallest and largest, {found.smallest} and "
            f"{found.largest}"
        )
    return found


def _side(path: Path, sizes: Mapping[str, Any], key: str) -> int:
    value: int = _field(path, sizes, key, int, "input.")
    if not 0 < value <= LARGEST_SIDE or value % STRIDE:
        raise BundleError(
            f"{path}: input {key} is {shown(value)}, expected {STRIDE} to {LARGEST_SIDE} pixels, a multiple of {STRIDE}"
        )
    return value


def _name(path: Path, name: str) -> str:
    if not is_name(name):
        raise BundleError(
            f"{path}: the name {shown(name)} is none, expected up to {LONGEST_NAME} characters that can be printed"
        )
    return name


def _classes(path: Path, entries: list[Any]) -> tuple[SemanticClass, ...]:
    try:
        return parse_classes(entries)
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from error


def _conditions(path: Path, names: list[Any]) -> tuple[str, ...]:
    if not names or not all(isinstance(n, str) for n in names) or len(set(names)) != len(names):
        raise BundleError(f"{path}: conditions are {shown(names)}, expected distinct names, one at least")
    return tuple(_name(path, name) for name in names)


def _network(path: Path, networks: Mapping[str, Any], name: str) -> Network:
    inside = f"networks.{name}."
    entry = _field(path, networks, name, dict, "networks.")
    for side, names in (("inputs", CONTRACTS[name].inputs), ("outputs", CONTRACTS[name].outputs)):
        listed = _field(path, entry, side, list, inside)
        if sorted(map(str, listed)) != sorted(names):
            raise BundleError(f"{path}: {name} {side} are {shown(listed)}, expected {list(names)}")
    return Network(name, *_checked_file(path, entry, inside, name), _half(path, entry, inside, name))


def _half(path: Path, entry: Mapping[str, Any], inside: str, name: str) -> HalfGraph | None:
    if HALF not in entry:
        return None
    half, inside = _field(path, entry, HALF, dict, inside), f"{inside}{HALF}."
    return HalfGraph(
        *_checked_file(path, half, inside, f"{name} in {HALF}"), _field(path, half, "float32_nodes", int, inside)
    )


def _checked_file(path: Path, entry: Mapping[str, Any], inside: str, what: str) -> tuple[Path, str]:
    """A file that the manifest names, and its sha256, which it has."""
    named, expected = (_field(path, entry, key, str, inside) for key in ("file", "sha256"))
    file = path.parent / _name(path, named)
    if not _SHA256.fullmatch(expected):
        raise BundleError(f"{path}: {inside}sha256 is {shown(expected)}, expected 64 hexadecimal digits")
    try:
        _check_place(path, file)
        if not file.exists():
            raise BundleError(
                f"{file}: missing, though {MANIFEST} names it as the {what}; copy the bundle again, whole"
            )
        size = file.stat().st_size
        if not file.is_file() or size > LARGEST_FILE:
            found = f"has {size} bytes" if file.is_file() else "is no regular file"
            raise BundleError(f"{file}: {found}; a {what} is one of at most {LARGEST_FILE} bytes")
        found = sha256(file)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise BundleError(f"{file}: cannot be read: {plain(error, 200)}") from error
    if found != expected:
        raise BundleError(
            f"{file}: altered: its sha256 is {found[:12]}…, {MANIFEST} says {expected[:12]}…; copy or export it again"
        )
    return file, expected


def _check_place(manifest: Path, file: Path) -> None:
    """Links are followed: where an installation links a bundle's files to those of a checkout, they lie beside the
    manifest that is linked to."""
    places = {manifest.parent.resolve(), manifest.resolve().parent}
    upwards = ".." in file.parts[len(manifest.parent.parts) :]
    if upwards or not any(file.resolve().is_relative_to(place) for place in places):
        raise BundleError(f"{file}: lies outside the bundle's directory; {MANIFEST} may name files inside it only")
