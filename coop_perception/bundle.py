"""The model bundle: a directory that names everything the runtime must know about a trained model.

`bundle.yaml` is the manifest; the ONNX files beside it are the networks. Reading a bundle checks every file's sha256,
so that what runs is what was measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from coop_perception.classes import IGNORE_ID, SemanticClass, parse_classes

FORMAT_VERSION = 1
MANIFEST = "bundle.yaml"


@dataclass(frozen=True, slots=True)
class Contract:
    """Names of a network's input and output tensors."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


CONTRACTS: Mapping[str, Contract] = {
    "segmenter": Contract(("image",), ("probabilities", "mask_raw")),
    "refinement": Contract(
        ("image", "probabilities"), ("refined_probabilities", "mask", "confidence", "condition", "strength")
    ),
    "restoration": Contract(("image", "refined_probabilities"), ("restored",)),
    "cooperative": Contract(("image",), ("mask_raw", "mask", "confidence", "restored", "condition", "strength")),
}
"""What each graph takes and gives, batch N first:

image uint8 [N,H,W,3] RGB; probabilities, refined_probabilities float32 [N,C,h,w]; mask_raw, mask uint8 [N,H,W] class
ids; confidence uint8 [N,H,W], 255 = certain; restored uint8 [N,H,W,3] RGB; condition float32 [N,K], the probability of
clear and of each condition; strength float32 [N], 0 = none, 1 = the strongest trained on.
"""


class BundleError(ValueError):
    """A bundle that cannot be used; the message names the file and the field."""


@dataclass(frozen=True, slots=True)
class Network:
    """One ONNX file of a bundle."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checked manifest. `conditions` starts with `clear`; `facts` holds training, figures and licence as written."""

    name: str
    directory: Path
    classes: tuple[SemanticClass, ...]
    height: int
    width: int
    conditions: tuple[str, ...]
    networks: Mapping[str, Network]
    facts: Mapping[str, Any]


def load_bundle(directory: Path) -> Bundle:
    """Read and check a bundle's manifest and the checksums of its files.

    Raises:
        BundleError: the manifest is missing, malformed or of another format version; a class list is not 0..C-1
            without repetition; a network's tensor names are not the contract's; a file is missing or altered.
    """
    path = directory / MANIFEST
    try:
        manifest = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise BundleError(f"{path}: not found; a bundle is a directory with {MANIFEST} and its ONNX files") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BundleError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(manifest, dict):
        raise BundleError(f"{path}: is no mapping of fields")
    version = _field(path, manifest, "format", int)
    if version != FORMAT_VERSION:
        raise BundleError(f"{path}: format is {version}, this version reads {FORMAT_VERSION}; export the bundle again")
    ignore = _field(path, manifest, "ignore_id", int)
    if ignore != IGNORE_ID:
        raise BundleError(f"{path}: ignore_id is {ignore}, expected {IGNORE_ID}")
    size = _field(path, manifest, "input", dict)
    networks = _field(path, manifest, "networks", dict)
    return Bundle(
        name=_field(path, manifest, "name", str),
        directory=directory,
        classes=_classes(path, _field(path, manifest, "classes", list)),
        height=_positive(path, size, "height"),
        width=_positive(path, size, "width"),
        conditions=_conditions(path, _field(path, manifest, "conditions", list)),
        networks={name: _network(path, networks, name) for name in CONTRACTS},
        facts={key: manifest.get(key, {}) for key in ("training", "figures", "licence")},
    )


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _field(path: Path, mapping: Mapping[str, Any], key: str, kind: type, inside: str = "") -> Any:
    if key not in mapping:
        raise BundleError(f"{path}: has no field '{inside}{key}'")
    value = mapping[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BundleError(f"{path}: {inside}{key} is {value!r}, expected {kind.__name__}")
    return value


def _positive(path: Path, mapping: Mapping[str, Any], key: str) -> int:
    value: int = _field(path, mapping, key, int, "input.")
    if value <= 0:
        raise BundleError(f"{path}: input {key} is {value}, expected a positive number of pixels")
    return value


def _classes(path: Path, entries: list[Any]) -> tuple[SemanticClass, ...]:
    try:
        return parse_classes(entries)
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from error


def _conditions(path: Path, names: list[Any]) -> tuple[str, ...]:
    if not names or names[0] != "clear" or not all(isinstance(n, str) for n in names) or len(set(names)) != len(names):
        raise BundleError(f"{path}: conditions are {names}, expected 'clear' followed by distinct names")
    return tuple(names)


def _network(path: Path, networks: Mapping[str, Any], name: str) -> Network:
    inside = f"networks.{name}."
    entry = _field(path, networks, name, dict, "networks.")
    file = path.parent / _field(path, entry, "file", str, inside)
    expected = _field(path, entry, "sha256", str, inside)
    for side, names in (("inputs", CONTRACTS[name].inputs), ("outputs", CONTRACTS[name].outputs)):
        listed = _field(path, entry, side, list, inside)
        if sorted(map(str, listed)) != sorted(names):
            raise BundleError(f"{path}: {name} {side} are {listed}, expected {list(names)}")
    if not file.is_file():
        raise BundleError(f"{file}: missing, though {MANIFEST} names it as the {name}; copy the bundle again, whole")
    found = sha256(file)
    if found != expected:
        raise BundleError(
            f"{file}: altered: its sha256 is {found[:12]}…, {MANIFEST} says {expected[:12]}…; copy or export it again"
        )
    return Network(name, file, found)
