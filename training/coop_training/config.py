"""Typed configuration of a training run, read from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from coop_perception.classes import CAMVID_CLASSES, SemanticClass, parse_classes
from coop_perception.degradations import CONDITIONS
from coop_training.layouts import LAYOUTS, SAMPLE_DRIVE
from coop_training.layouts.class_lists import ClassList, class_list, published, read_class_file
from coop_training.layouts.depth import street_ids

Pixels = Annotated[int, Field(gt=0, multiple_of=4)]
"""A size that a quarter-resolution trunk divides evenly."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """What is trained on: a data set on disk, sample drives, or both."""

    layout: str = SAMPLE_DRIVE
    """How `root` is laid out (docs/data.md); where it is left out: camvid with a root, sample_drive without one."""
    root: Path | None = None
    """The data set's folder; none for the layout sample_drive."""
    split: str = "train"
    """train, val, or another name that the layout has; '' for a layout `folder` without splits."""
    exclude: tuple[str, ...] = ()
    """File name prefixes to leave out: a held-out drive."""
    classes: tuple[SemanticClass, ...] = ()
    """For the layout `folder` alone; read from <root>/classes.yaml where it is left out."""
    ignore: tuple[int, ...] = ()
    """Label ids that carry no label besides 255, likewise."""
    max_height: int | None = Field(None, gt=0)
    """Pixels: higher frames are scaled down to it as they are read. Give the network's height."""
    memory_gb: float = Field(4.0, ge=0)
    """A data set that takes no more is held in memory; of a larger one, frames are read as they are needed."""
    sample_drives: int = Field(40, ge=0)
    """Number of sample drives rendered, seeds `first_seed` onwards; where it is left out, 0 beside a data set whose
    layout has other classes than CamVid's."""
    first_seed: int = 1000
    frames_per_drive: int = Field(10, gt=0)
    crop: tuple[Pixels, Pixels] = (288, 352)
    """Height and width in pixels."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, raw: Any) -> Any:
        """What is left out and follows from other fields. A folder's classes are kept, so that a checkpoint tells them
        without the folder."""
        if not isinstance(raw, Mapping):
            return raw
        layout = raw.get("layout", SAMPLE_DRIVE if raw.get("root") is None else "camvid")
        fields = {"layout": layout, **raw}
        if layout not in ("camvid", SAMPLE_DRIVE):
            fields.setdefault("sample_drives", 0)
        if layout == "folder" and raw.get("root") is not None and not raw.get("classes"):
            fields |= read_class_file(Path(raw["root"]) / "classes.yaml")
        return fields

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout {self.layout!r} is unknown; known: {', '.join(LAYOUTS)}")
        if (self.root is None) != (self.layout == SAMPLE_DRIVE):
            raise ValueError(
                f"layout {self.layout}: root is {self.root}; {SAMPLE_DRIVE} takes none, every other needs one"
            )
        if self.layout != "folder" and (self.classes or self.ignore):
            raise ValueError(f"classes and ignore are for the layout folder; those of {self.layout} are known")
        if self.sample_drives and [c.name for c in self.class_list.classes] != [c.name for c in CAMVID_CLASSES]:
            raise ValueError(
                f"sample_drives is {self.sample_drives}: they have CamVid's classes, and the layout {self.layout} "
                "has others; set it to 0"
            )
        return self

    @property
    def class_list(self) -> ClassList:
        """The classes that follow from the layout."""
        name = LAYOUTS[self.layout].classes
        if name is not None:
            return published(name)
        return class_list(parse_classes([asdict(c) for c in self.classes]), self.ignore)

    def can_show(self, condition: str) -> bool:
        """Whether frames can be put under a condition: one that needs depth needs a layout that has it."""
        layout = LAYOUTS[self.layout]
        if not CONDITIONS[condition].needs_depth or condition in layout.ready_made or layout.depth == "measured":
            return True
        return layout.depth == "labels" and street_ids(self.class_list.classes) is not None


Weight = Annotated[float, Field(ge=0)]


class LossesConfig(_Section):
    """Weights of the terms of equations 1 and 4, and of the condition head; a term of weight 0 is not computed.

    The cross-entropy has weight 1: equation 1 divided by its λ. Adversarial, perceptual and style weights are
    EdgeConnect's, on which the paper builds; the paper gives none of its own.
    """

    l1: Weight = 10.0
    """λ1. EdgeConnect's is 1; 10 brings it level with the refinement's cross-entropy in joint training."""
    jaccard: Weight = 0.0
    """Of the soft Jaccard loss beside every cross-entropy; not the paper's."""
    log_mse: Weight = 0.0
    """Of the logarithm of the mean squared error beside L1; not the paper's."""
    adversarial: Weight = 0.01
    """λ2, and the same beside the cross-entropy. With 0 there are no discriminators."""
    adversarial_kind: Literal["lsgan", "hinge"] = "lsgan"
    perceptual: Weight = 1.0
    """λ3."""
    style: Weight = 250.0
    """λ4."""
    tv: Weight = 1e-4
    """Of the total variation, which is a mean over pixels."""
    condition: Weight = 0.1
    """Of the condition head's loss."""
    features: Literal["none", "vgg19", "segmenter"] = "none"
    """What perceptual and style losses look through. `none`: both are off. `segmenter`: the trained segmenter's encoder
    stands in for VGG-19 in the perceptual loss, and the style loss is off."""
    vgg19_weights: Path | None = None
    """File of VGG-19's weights under torchvision's names, .safetensors or .pth."""

    @model_validator(mode="after")
    def _weights_for_vgg19(self) -> LossesConfig:
        if (self.features == "vgg19") != (self.vgg19_weights is not None):
            raise ValueError(
                f"features is {self.features!r} and vgg19_weights is {self.vgg19_weights or 'not set'}: "
                "give the file and features: vgg19, or neither"
            )
        return self


class StageConfig(_Section):
    steps: int = Field(gt=0)
    batch: int = Field(8, gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    """Peak; warmed up over the first steps, then cosine to zero."""
    weight_decay: float = Field(1e-4, ge=0)
    crop: tuple[Pixels, Pixels] | None = None
    """Height and width in pixels; `data.crop` where it is left out."""


class StagesConfig(_Section):
    segmenter: StageConfig
    refinement: StageConfig
    restoration: StageConfig
    joint: StageConfig


class TrainConfig(_Section):
    """One run: data, conditions, networks, losses and the four stages. `guidance` is what restoration sees in its own
    stage (S_gt as Algorithm 1 feeds it, S_r as its text says, or either at random)."""

    name: str
    seed: int = 0
    height: Pixels = 360
    width: Pixels = 480
    data: DataConfig = DataConfig()
    conditions: tuple[str, ...] = ("fog", "gaussian_noise")
    clear: float = Field(0.2, ge=0, le=1)
    """Share of samples that stay clear."""
    guidance: Literal["gt", "refined", "mixed"] = "mixed"
    variant: Literal["fast", "paper"] = "fast"
    """Refinement and restoration: our own at quarter resolution, or EdgeConnect's generator as the paper has it."""
    losses: LossesConfig = LossesConfig()
    discriminator_rate: float = Field(0.1, gt=0)
    """The discriminators' learning rate over the generators'."""
    stages: StagesConfig
    licence: str = ""
    """Licence of the weights, as the data's terms allow."""
    data_licence: str = ""
    """Terms of the data trained on."""

    @field_validator("conditions")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [name for name in names if name not in CONDITIONS or names.count(name) > 1]
        if wrong:
            raise ValueError(f"{wrong} unknown or repeated; known: {', '.join(CONDITIONS)}")
        return names

    @model_validator(mode="after")
    def _depth_for_conditions(self) -> TrainConfig:
        impossible = [name for name in self.conditions if not self.data.can_show(name)]
        if impossible:
            raise ValueError(
                f"conditions {', '.join(impossible)} need depth, which the layout {self.data.layout} has not; "
                "leave them out"
            )
        return self


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file and the field."""


def load_config(path: Path) -> TrainConfig:
    """Read a YAML configuration.

    Raises:
        ConfigError: the file is missing, is no YAML mapping, or a field is unknown, missing or of the wrong type.
    """
    try:
        raw = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    try:
        return TrainConfig.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path}: {problems}") from error
