"""Typed configuration of a training run, read from YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID, SemanticClass, parse_classes
from coop_perception.contracts import STRIDE, InputSizes, network_size
from coop_perception.degradations import CONDITIONS
from coop_perception.degradations.street import NO_STREET, is_street
from coop_perception.documents import DocumentError, parse_yaml, read_yaml
from coop_perception.shown import shown
from coop_training.layouts import LAYOUTS, SAMPLE_DRIVE
from coop_training.layouts.class_lists import ClassList, class_list, published, read_class_file
from coop_training.layouts.folders import DEPTH
from coop_training.mixtures import KINDS
from coop_training.problems import problems

Pixels = Annotated[int, Field(ge=STRIDE, multiple_of=STRIDE)]
"""A size that the networks' coarsest scale divides."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CoarseData(_Section):
    """A further data set, of images and labels whose values stand for sets of the classes (docs/data.md)."""

    root: Path
    """Its folders images/<split> and labels/<split>."""
    split: str = "train"
    labels: dict[Annotated[int, Field(ge=0, lt=255)], tuple[str, ...]]
    """Names of the classes that a value in label files may be; none: not scored. 255 is never scored."""
    share: float = Field(gt=0, lt=1)
    """Of the samples whose frame is drawn at random; half of them show a label that is drawn evenly instead."""


class DataConfig(_Section):
    """What is trained on: a data set on disk, sample drives, or both, and coarsely labelled ones beside them."""

    layout: str = SAMPLE_DRIVE
    """How `root` is laid out (docs/data.md); where it is left out: camvid with a root, sample_drive without one."""
    root: Path | None = None
    """The data set's folder; none for the layout sample_drive."""
    split: str = "train"
    """train, val, or another name that the layout has; '' for a layout `folder` without splits."""
    exclude: tuple[str, ...] = ()
    """File name prefixes to leave out: a held-out drive."""
    validation_split: str | None = None
    """Split that the networks are scored on while they train; where it is left out, a share of `split` instead."""
    validation_share: float = Field(0.1, ge=0, lt=1)
    """Of the data set's frames, the last by name, which are not trained on then, for neighbours in a drive are nearly
    the same picture. Without a data set so many further sample drives are rendered, one at least. 0: no validation."""
    classes: tuple[SemanticClass, ...] = ()
    """For the layout `folder` alone; read from <root>/classes.yaml where it is left out."""
    ignore: tuple[int | tuple[int, int, int], ...] = ()
    """Ids or colours in labels that carry no label besides 255, likewise."""
    depth_folder: bool = False
    """Whether root has a folder of depth beside images and labels, for the layout `folder` alone; looked up where it is
    left out."""
    max_height: int | None = Field(None, gt=0)
    """Pixels: higher frames are scaled down to it as they are read."""
    memory_gb: float = Field(4.0, ge=0)
    """A data set that takes no more is held in memory; of a larger one, frames are read as they are needed."""
    sample_drives: int = Field(40, ge=0)
    """Number of sample drives rendered, seeds `first_seed` onwards; where it is left out, 0 beside a data set whose
    layout has other classes than CamVid's."""
    first_seed: int = Field(1000, ge=0)
    frames_per_drive: int = Field(10, gt=0)
    also: tuple[CoarseData, ...] = ()
    crop: tuple[Pixels, Pixels] = (288, 352)
    """Height and width in pixels."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, raw: Any) -> Any:
        """What is left out and follows from other fields. A folder's classes are kept, so that a checkpoint holds them
        without the folder."""
        if not isinstance(raw, Mapping):
            return raw
        layout = raw.get("layout", SAMPLE_DRIVE if raw.get("root") is None else "camvid")
        fields = {"layout": layout, **raw}
        if layout not in ("camvid", SAMPLE_DRIVE):
            fields.setdefault("sample_drives", 0)
        if layout == "folder" and raw.get("root") is not None and not raw.get("classes"):
            fields |= read_class_file(Path(raw["root"]) / "classes.yaml")
            fields.setdefault("depth_folder", (Path(raw["root"]) / DEPTH).is_dir())
        return fields

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout {self.layout!r} is unknown; known: {', '.join(LAYOUTS)}")
        if (self.root is None) != (self.layout == SAMPLE_DRIVE):
            raise ValueError(
                f"layout {self.layout}: root is {self.root}; {SAMPLE_DRIVE} takes none, every other needs one"
            )
        if self.validation_split is not None and (self.root is None or self.validation_split == self.split):
            raise ValueError(
                f"validation_split is {self.validation_split!r}, root {self.root} and split {self.split!r}; give the "
                "name of another split of the data set in root, or leave it out"
            )
        if self.layout != "folder" and (self.classes or self.ignore or self.depth_folder):
            raise ValueError(
                f"classes, ignore and depth_folder are for the layout folder; those of {self.layout} are known"
            )
        if self.sample_drives and [c.name for c in self.class_list.classes] != [c.name for c in CAMVID_CLASSES]:
            raise ValueError(
                f"sample_drives is {self.sample_drives}: they have CamVid's classes, and the layout {self.layout} "
                "has others; set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _sets_of_classes(self) -> DataConfig:
        names = [c.name for c in self.class_list.classes]
        for index, entry in enumerate(self.also):
            wrong = sorted({name for among in entry.labels.values() for name in among} - {*names})
            if wrong:
                raise ValueError(f"also.{index}.labels: no class {', '.join(wrong)}; known: {', '.join(names)}")
        if sum(entry.share for entry in self.also) >= 1:
            raise ValueError("also: the shares add up to 1 or more, which leaves nothing for root and sample_drives")
        if len(self.label_sets) > IGNORE_ID:
            raise ValueError(f"also: {len(self.label_sets)} labels, classes and sets of them; {IGNORE_ID} at most")
        return self

    @property
    def label_sets(self) -> tuple[frozenset[int], ...]:
        """By label in training masks, the classes that a pixel may be: each class alone, then the sets of `also`."""
        ids = {c.name: c.id for c in self.class_list.classes}
        sets = [frozenset({i}) for i in ids.values()]
        for among in (names for entry in self.also for names in entry.labels.values() if names):
            wanted = frozenset(ids[name] for name in among)
            if wanted not in sets:
                sets.append(wanted)
        return tuple(sets)

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
        return self.depth_folder or (layout.depth == "labels" and is_street(self.class_list.classes))

    @property
    def lacks_depth(self) -> str:
        """Why there is no depth, where a condition needs it, and what to do."""
        if self.layout != "folder":
            return f"the layout {self.layout} has none"
        return f"{NO_STREET}, or put depth files into {self.root}/{DEPTH} (docs/data.md)"


Weight = Annotated[float, Field(ge=0)]


class LossesConfig(_Section):
    """Weights of the terms of equations 1 and 4, and of what is not the paper's; a term of weight 0 is not computed.

    The cross-entropy has weight 1: equation 1 divided by its λ. Adversarial, perceptual and style weights are those of
    EdgeConnect, whose losses these look like; the paper gives none.
    """

    l1: Weight = 10.0
    """λ1. EdgeConnect's is 1; 10 brings it level with the refinement's cross-entropy in joint training."""
    class_weights: bool = True
    """Whether rare classes weigh more in the cross-entropy (1/log(1.1 + share), ENet's); equation 2 has no weights."""
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
    """Of the presence and strength of the conditions that refinement estimates."""
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
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Of Adam, for the networks; the discriminators' are (0, 0.9)."""
    crop: tuple[Pixels, Pixels] | None = None
    """Height and width in pixels; `data.crop` where it is left out."""
    shares: dict[str, Weight] = {}
    """By condition: how many of the adverse samples show it, against 1 for each that is left out. With 0 for all but
    one, a specialist is trained."""


class EstimatorConfig(_Section):
    """How the conditions' estimate is fitted when refinement has been trained: to `frames` whole frames, a share of
    them `clear`, in `steps` of 128 of them. On a vehicle clear images are the rule: the larger the share, the fewer of
    them are called adverse, and the more of the lightest conditions clear."""

    frames: int = Field(6000, gt=1)
    clear: float = Field(1 / 3, ge=0, lt=1)
    steps: int = Field(8000, gt=0)
    cameras: tuple[Path, ...] = ()
    """Folders of other cameras' clear frames, which need no labels, as another camera has other noise and colours."""
    cameras_share: float = Field(0.25, gt=0, lt=1)
    """Of the frames that the estimate is fitted to."""


class InputConfig(_Section):
    """Sizes of what the networks receive, in pixels, as a bundle states them: the image's height unless another one is
    asked for, between which sizes its sides may lie, and the side of the sensor view."""

    height: Pixels = 352
    smallest: Pixels = 128
    largest: Pixels = 2048
    sensor: Pixels = 192

    @model_validator(mode="after")
    def _in_order(self) -> InputConfig:
        if not self.smallest <= self.height <= self.largest:
            raise ValueError(f"height is {self.height}; give one from smallest, {self.smallest}, to {self.largest}")
        return self

    @property
    def sizes(self) -> InputSizes:
        return InputSizes(self.height, self.smallest, self.largest, self.sensor)

    @property
    def image(self) -> tuple[int, int]:
        """Height and width of the image of a camera of 4:3."""
        return network_size(self.sizes, 3, 4)


class StagesConfig(_Section):
    """A stage that is left out does not happen: its networks stay as the stage before left them. Refinement and
    restoration start as identity."""

    segmenter: StageConfig | None = None
    refinement: StageConfig | None = None
    restoration: StageConfig | None = None
    joint: StageConfig | None = None

    @property
    def present(self) -> tuple[str, ...]:
        """Names of the stages that happen, in order."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)


class TrainConfig(_Section):
    """One run: data, conditions, networks, losses and the four stages."""

    name: str
    seed: int = Field(0, ge=0, lt=2**63)
    input: InputConfig = InputConfig()
    data: DataConfig = DataConfig()
    mixtures: bool = False
    """Whether the conditions are those of `mixtures.KINDS`, of which several may be there at once, each in many forms,
    on frames of varied cameras; else published ones, one at a time."""
    conditions: tuple[str, ...] = ("fog", "gaussian_noise")
    """Their names, in the order of the networks' outputs; with `mixtures` all of its kinds."""
    clear: float = Field(0.2, ge=0, le=1)
    """Share of samples that stay clear."""
    guidance: Literal["gt", "refined", "mixed", "uniform", "none"] = "mixed"
    """What restoration receives as S_r in its own stage: S_gt as Algorithm 1 feeds it, S_r as its text says, or for
    each sample one of them or nothing. With `uniform` it has no guidance in any stage, nor as deployed, only the
    estimate of the conditions; with `none` not that either: a peer."""
    refined_share: float = Field(0.25, ge=0, le=1)
    """Of mixed guidance: samples that are guided by S_r."""
    variant: Literal["fast", "paper", "nafnet"] = "fast"
    """Refinement and restoration: our own; or EdgeConnect's generator as the paper has it; or our refinement with
    NAFNet for restoration, a peer."""
    segmenter: Path | None = None
    """Description of a segmenter that exists already (docs/own_segmenter.md), which takes the reference one's place."""
    segmenter_from: Path | None = None
    """Checkpoint of another run, whose reference segmenter this one takes; beside `segmenter`, only as what refinement
    starts from."""
    refinement_from: Path | None = None
    """Checkpoint of another run, whose refinement this one takes, and with it the conditions' estimate."""
    start_from: Path | None = None
    """Bundle whose networks this run begins with, all three: to train them further, or on other data of the same
    classes and conditions."""
    segmenter_sees: Literal["clear", "adverse"] = "clear"
    """What its own stage shows the segmenter: it is the existing one, of clear images, but for a peer."""
    losses: LossesConfig = LossesConfig()
    discriminator_rate: float = Field(0.1, gt=0)
    """The discriminators' learning rate over the generators'."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay of the moving average of weights that each stage's result is; 0: the last step's weights."""
    estimator: EstimatorConfig = EstimatorConfig()
    stages: StagesConfig
    licence: str = ""
    """Licence of the weights, as the data's terms allow."""
    data_licence: str = ""
    """Terms of the data trained on."""

    @model_validator(mode="before")
    @classmethod
    def _conditions_of_mixtures(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or raw.get("mixtures") is not True:
            return raw
        kinds = tuple(kind.name for kind in KINDS)
        if tuple(raw.get("conditions", kinds)) != kinds:
            raise ValueError(f"mixtures has conditions of its own, {', '.join(kinds)}: leave out conditions")
        return {**raw, "conditions": kinds}

    @model_validator(mode="after")
    def _known_conditions(self) -> TrainConfig:
        wrong = [name for name in self.conditions if name not in CONDITIONS or self.conditions.count(name) > 1]
        if wrong and not self.mixtures:
            raise ValueError(f"conditions: {wrong} unknown or repeated; known: {', '.join(CONDITIONS)}")
        return self

    @model_validator(mode="after")
    def _shares_of_conditions(self) -> TrainConfig:
        for stage in self.stages.present:
            shares = getattr(self.stages, stage).shares
            unknown = [name for name in shares if name not in self.conditions]
            if unknown:
                raise ValueError(f"stages.{stage}.shares: {unknown} not among conditions {list(self.conditions)}")
            if self.conditions and not sum(shares.get(name, 1.0) for name in self.conditions):
                raise ValueError(f"stages.{stage}.shares: all are 0; leave one condition above")
        return self

    @model_validator(mode="after")
    def _conditions_restoration_on_something(self) -> TrainConfig:
        if self.refinement_from is not None and self.stages.refinement is not None:
            raise ValueError("refinement_from names one that is trained: leave out stages.refinement")
        estimates = any(given is not None for given in (self.stages.refinement, self.refinement_from, self.start_from))
        if self.variant == "fast" and self.guidance != "none" and not estimates:
            for name in ("restoration", "joint"):
                if getattr(self.stages, name) is not None:
                    raise ValueError(
                        f"stages.{name} is conditioned on the estimate of the refinement, which nothing trains: give "
                        "stages.refinement, refinement_from or start_from, or guidance: none"
                    )
        return self

    @model_validator(mode="after")
    def _has_a_segmenter(self) -> TrainConfig:
        if not self.stages.present:
            raise ValueError("stages: none is given; give at least one")
        if self.segmenter is not None:
            if self.stages.segmenter is not None:
                raise ValueError("segmenter names one that exists: leave out stages.segmenter")
            if self.losses.features == "segmenter":
                raise ValueError("losses.features is 'segmenter', which has to be the reference one; take another")
        elif self.stages.segmenter is None and self.segmenter_from is None and self.start_from is None:
            raise ValueError(
                "stages has no segmenter, and none of segmenter, segmenter_from, start_from is set: give one"
            )
        return self

    @model_validator(mode="after")
    def _depth_for_conditions(self) -> TrainConfig:
        impossible = [name for name in self.conditions if not self.mixtures and not self.data.can_show(name)]
        if impossible:
            raise ValueError(
                f"conditions {', '.join(impossible)} need depth: {self.data.lacks_depth}; or leave them out"
            )
        return self


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file and the field."""


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML configuration.

    Args:
        path: the file.
        overrides: fields to set over the file's, as `stages.joint.steps=100`: a dotted path and a YAML value.

    Raises:
        ConfigError: the file is missing or is no YAML mapping, an override cannot be read, or a field is unknown,
            missing or of the wrong type.
    """
    try:
        raw = read_yaml(path)
    except DocumentError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: holds {type(raw).__name__}, expected a mapping of fields")
    for override in overrides:
        _override(raw, override)
    try:
        return TrainConfig.model_validate(raw)
    except ValidationError as error:
        source = f"{path} with {', '.join(overrides)}" if overrides else f"{path}"
        raise ConfigError(f"{source}: {problems(error)}") from error


def _override(raw: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    *sections, field = path.split(".")
    if not equals or not all((*sections, field)):
        raise ConfigError(f"--set {override}: expected a field's dotted path, = and a value: stages.joint.steps=100")
    try:
        value = parse_yaml(text, f"--set {override}: its value")
    except DocumentError as error:
        raise ConfigError(str(error)) from error
    place = raw
    for depth, section in enumerate(sections, 1):
        inner = place.get(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(
                f"--set {override}: {'.'.join(sections[:depth])} is {shown(inner)}, no section with fields"
            )
        place[section] = dict(inner)  # a copy: sections that a YAML alias makes the same are set apart
        place = place[section]
    place[field] = value
