"""What the perceptual and style losses look through: VGG-19, or the trained segmenter in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from coop_perception.model.bundle import sha256
from coop_training.checkpoint import CheckpointError
from coop_training.config import LossesConfig
from coop_training.networks.precision import full_precision

VGG19_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Width and number of the 3x3 convolutions between poolings (Simonyan and Zisserman, 2015, configuration E)."""
PERCEPTUAL_LAYERS = ("1_1", "2_1", "3_1", "4_1", "5_1")
STYLE_LAYERS = ("2_2", "3_4", "4_4", "5_2")
"""Convolution by block and place in it; both choices are EdgeConnect's (Nazeri et al., 2019)."""


@dataclass(frozen=True, slots=True)
class FeatureMaps:
    """Maps [N,C,h,w] of one batch of images, one per layer, before activation; an empty tuple: the term is off."""

    perceptual: tuple[Tensor, ...]
    style: tuple[Tensor, ...]


FeatureExtractor = Callable[[nn.Module, Tensor], FeatureMaps]
"""(segmenter, image [N,3,H,W] RGB in 0..1) → maps, differentiable with respect to the image."""


def feature_extractor(config: LossesConfig) -> FeatureExtractor | None:
    """The extractor that the configuration names; none: perceptual and style terms are off.

    Raises:
        CheckpointError: the file of VGG-19's weights cannot be used.
    """
    if config.features == "segmenter":
        return segmenter_features
    if config.features == "vgg19":
        assert config.vgg19_weights is not None
        vgg = load_vgg19(config.vgg19_weights)
        return lambda _, image: vgg.to(image.device)(image)
    return None


def describe_features(config: LossesConfig) -> str:
    """What a run's record says of them."""
    if config.features == "segmenter":
        return "segmenter: its encoder stands in for VGG-19; no style term"
    if config.features == "vgg19":
        assert config.vgg19_weights is not None
        return f"vgg19: {config.vgg19_weights.name}, sha256 {sha256(config.vgg19_weights)}"
    return "none: no perceptual and no style term"


class VGG19(nn.Module):
    """VGG-19's convolutions, frozen; `features.<index>` number layers as torchvision does, so its weights load as are.

    Input: image [N,3,H,W] RGB in 0..1, at least 16 pixels each way; normalised as ImageNet is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)
        layers: list[nn.Module] = []
        names: dict[int, str] = {}
        inputs = 3
        for block, (width, count) in enumerate(VGG19_BLOCKS, 1):
            for place in range(1, count + 1):
                names[len(layers)] = f"{block}_{place}"
                # Not in place: it would overwrite what is compared.
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self._names = names
        self._last = max(index for index, name in names.items() if name in PERCEPTUAL_LAYERS + STYLE_LAYERS)
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> FeatureMaps:
        maps = {}
        with full_precision(image):
            x = (image.float() - self.mean) / self.std
            for index, layer in enumerate(self.features[: self._last + 1]):
                x = layer(x)
                if index in self._names:
                    maps[self._names[index]] = x
        return FeatureMaps(tuple(maps[name] for name in PERCEPTUAL_LAYERS), tuple(maps[name] for name in STYLE_LAYERS))


def load_vgg19(path: Path) -> VGG19:
    """VGG-19 with weights from a safetensors file, or from a .pth file such as torchvision's (read as weights only).

    Raises:
        CheckpointError: the file is missing, damaged, or does not hold VGG-19's convolutions under torchvision's names.
    """
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch.load meets damage with whatever it stumbles over, AssertionError and KeyError too
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(f"{path}: cannot be read as VGG-19's weights: {reason}") from error
    vgg = VGG19()
    own = vgg.state_dict()
    for name, expected in own.items():
        found = tensors.get(name) if isinstance(tensors, dict) else None
        if not isinstance(found, Tensor) or found.shape != expected.shape:
            what = f"of shape {tuple(found.shape)}" if isinstance(found, Tensor) else "missing"
            raise CheckpointError(
                f"{path}: is not VGG-19: {name} is {what}, expected shape {tuple(expected.shape)}; "
                "give torchvision's vgg19 (without batch normalisation) or a file with its names"
            )
    vgg.load_state_dict({name: tensors[name] for name in own})
    return vgg.to(memory_format=torch.channels_last)


def segmenter_features(segmenter: nn.Module, image: Tensor) -> FeatureMaps:
    """The segmenter's first batch-normalised map of each resolution (without any: its first convolution's), as VGG-19's
    perceptual layers are the first of each block.

    A substitute for VGG-19: trained on fewer images and for the classes of the scene alone. It sees what segmentation
    needs and is blind to much else, so it serves the perceptual term only, not the style.
    """
    modules = list(segmenter.modules())
    taps = [m for m in modules if isinstance(m, nn.BatchNorm2d)] or [m for m in modules if isinstance(m, nn.Conv2d)]
    maps: dict[torch.Size, Tensor] = {}

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.shape[-2:] not in maps:
            maps[output.shape[-2:]] = output.clone()  # an activation in place may follow

    hooks = [tap.register_forward_hook(keep) for tap in taps]
    try:
        with full_precision(image):
            segmenter(image.float())
    finally:
        for hook in hooks:
            hook.remove()
    return FeatureMaps(tuple(maps.values()), ())
