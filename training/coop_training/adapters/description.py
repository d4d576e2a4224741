"""The description of a segmenter that exists already: what its ONNX file takes and gives, and what its classes mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coop_perception.classes import SemanticClass
from coop_perception.documents import DocumentError, read_yaml
from coop_perception.shown import plain, shown
from coop_training.problems import problems

Layout = Literal["NCHW", "NHWC"]
Pixels = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]


BACKGROUND = 1
"""Id of what is not the one class of a network of one channel."""


class AdapterError(ValueError):
    """A segmenter or its description that cannot be used; the message names the file."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputDescription(_Section):
    """What the network takes: (pixel · scale / 255 - mean) / std. Its data type is read from the ONNX file."""

    layout: Layout = "NCHW"
    channels: Literal["rgb", "bgr"] = "rgb"
    scale: Literal[1, 255] = 1
    """What white is before `mean` and `std`."""
    mean: tuple[float, float, float] = (0, 0, 0)
    """Per channel, in the order of `channels`, on the scale of `scale`; likewise `std`."""
    std: tuple[Positive, Positive, Positive] = (1, 1, 1)
    size: tuple[Pixels, Pixels] | None = None
    """Height and width that images are resized to, for a network that takes any; left out: the bundle's own."""


class OutputDescription(_Section):
    """What the network gives: scores [N,C,h,w] or, laid out as NHWC, [N,h,w,C]; or class ids [N,h,w], one axis of
    length 1 more or not, as integers or whole floats."""

    kind: Literal["logits", "probabilities", "labels"]
    name: str | None = None
    """The tensor's; needed where the network has several outputs."""
    layout: Layout = "NCHW"
    background: str | None = None
    """The bundle's class of what is not the network's one class; for networks of one channel, the score of that, and
    needed there. Scores of kind logits go through a sigmoid, and 0.5 decides."""


class Adapter(_Section):
    """One description."""

    onnx: Path
    """Relative to the description's own file."""
    input: InputDescription = InputDescription()
    output: OutputDescription
    names: tuple[str, ...] = ()
    """The network's classes in the order of their ids, for `classes` to be written with names."""
    classes: dict[int | str, str] = Field(min_length=1)
    """The network's class, by id or name, to the bundle's class by name. Several may go to one; one that is left out
    is never predicted, or, in a label map, no label."""
    licence: str = ""
    """Of the network's weights."""


def load_adapter(path: Path, onnx: Path | None = None) -> Adapter:
    """Read a description.

    Args:
        path: its YAML file.
        onnx: the network's file, instead of the one that the description names.

    Raises:
        AdapterError: the file is missing, is no YAML mapping, or a field is unknown, missing or of the wrong type.
    """
    try:
        raw = read_yaml(path)
    except DocumentError as error:
        raise AdapterError(str(error)) from error
    if onnx is not None and isinstance(raw, dict):
        raw["onnx"] = onnx.resolve()
    try:
        adapter = Adapter.model_validate(raw)
    except ValidationError as error:
        raise AdapterError(f"{path}: {problems(error)}") from error
    return adapter.model_copy(update={"onnx": path.parent / adapter.onnx})


def class_table(path: Path, adapter: Adapter, classes: Sequence[SemanticClass]) -> dict[int, int]:
    """The network's class ids to the bundle's, of those that `adapter.classes` names.

    Args:
        path: the description's file, for messages.
        adapter: the description.
        classes: the bundle's.

    Raises:
        AdapterError: a class is unknown on either side, or one of the network's is there twice.
    """
    ours = {c.name: c.id for c in classes}
    table: dict[int, int] = {}
    for key, name in adapter.classes.items():
        if name not in ours:
            raise AdapterError(
                f"{path}: classes: {plain(key, 80)}: the bundle has no class {shown(name)}; it has {', '.join(ours)}"
            )
        if isinstance(key, str) and adapter.names.count(key) != 1:
            raise AdapterError(
                f"{path}: classes: {shown(key)} is {adapter.names.count(key)} times among the network's `names`, "
                "expected once; write its id instead"
            )
        number = adapter.names.index(key) if isinstance(key, str) else key
        if number < 0 or number in table:
            raise AdapterError(f"{path}: classes: id {number} is {'there twice' if number in table else 'negative'}")
        table[number] = ours[name]
    background = adapter.output.background
    if background is not None:
        if background not in ours:
            raise AdapterError(
                f"{path}: output.background: the bundle has no class {background!r}; it has {', '.join(ours)}"
            )
        if list(table) != [BACKGROUND - 1]:
            raise AdapterError(
                f"{path}: output.background is for networks of one channel, but classes has ids {sorted(table)}; "
                "expected 0 alone, or leave output.background out"
            )
        table[BACKGROUND] = ours[background]
    return table
