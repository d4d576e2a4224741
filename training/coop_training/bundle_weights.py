"""Networks out of a bundle's graphs, to train on from what was exported."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from coop_perception.model.bundle import load_bundle
from coop_training.checkpoint import CheckpointError, difference
from coop_training.config import TrainConfig
from coop_training.model import Cooperative
from coop_training.onnx_graphs import HALVED

_GRAPH_OF = {"calibration": "refinement"}
"""In whose graph a network is that has none of its own."""


def load_bundle_weights(directory: Path, model: Cooperative, config: TrainConfig) -> dict[str, list[str]]:
    """Give a configuration's networks the weights of a bundle, whose large ones are rounded to float16.

    Batch normalisations come back as they were folded into the convolutions before them: these keep the scale, and the
    normalisation becomes a shift. A user's own segmenter is left alone.

    Returns:
        By network the parameters that its graph does not hold, since nothing that it gives depends on them. They stay
        as they are.

    Raises:
        BundleError: it is no bundle, or damaged.
        CheckpointError: its classes, conditions or networks are not the configuration's.
    """
    bundle = load_bundle(directory)
    of_bundle = {"classes": [c.name for c in bundle.classes], "conditions": list(bundle.conditions)}
    wanted = {"classes": [c.name for c in config.data.class_list.classes], "conditions": list(config.conditions)}
    for what, names in wanted.items():
        if of_bundle[what] != names:
            raise CheckpointError(
                f"{directory}: has {what} {', '.join(of_bundle[what])}, the configuration {', '.join(names)}; "
                "start_from needs the same, in the same order"
            )
    left = {}
    for name, network in model.deployed().items():
        own = network.state_dict()
        if not own:
            continue
        path = bundle.networks[_GRAPH_OF.get(name, name)].path
        constants = {key for key, _ in network.named_buffers()} - own.keys()
        stored = _weights(path, f"model.{name}.")
        found = _unfolded(network, {key: value for key, value in stored.items() if key not in constants})
        weights = {**own, **found}
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"{path}: is another network than the configuration's {name}: {difference(network, weights)}; "
                "take the variant, guidance and version that it was trained with"
            ) from error
        if not found:
            raise CheckpointError(f"{path}: is not the reference {name}, so it cannot be trained on; set `{name}`")
        left[name] = [key for key, _ in network.named_parameters() if key not in found]
    return left


def _weights(path: Path, prefix: str) -> dict[str, Tensor]:
    """A graph's parameters and buffers by their names in the network, which exporting keeps."""
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    return {
        name.removeprefix(prefix).removesuffix(HALVED): torch.from_numpy(value.astype(np.float32))
        for name, value in held.items()
        if name.startswith(prefix)
    }


def _unfolded(network: nn.Module, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of `fold_normalisations`: a convolution keeps the scale, the normalisation behind it the shift."""
    weights = dict(found)
    for path, module in network.named_modules():
        if not isinstance(module, nn.Sequential):
            continue
        for (place, convolution), (behind, norm) in pairwise(module.named_children()):
            if not (isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
                continue
            shift = weights.pop(f"{path}.{place}.bias", None)
            if shift is not None:
                ones = torch.ones_like(shift)
                values = {"weight": ones, "bias": shift, "running_mean": 0 * ones, "running_var": ones - norm.eps}
                weights |= {f"{path}.{behind}.{key}": tensor for key, tensor in values.items()}
    return weights


def put_weights(path: Path, prefix: str, network: nn.Module) -> onnx.ModelProto:
    """A graph with a network's parameters and buffers in the place of its own. The reverse of `load_bundle_weights` of
    a network without batch normalisations that were folded since.

    Args:
        path: of the graph.
        prefix: of the network's parameters in the graph.
        network: whose shapes are the graph's.

    Raises:
        CheckpointError: the graph lacks one of the network's parameters, so that what it has learnt would be lost.
    """
    proto = onnx.load(path)
    weights = network.state_dict()
    missing = {name for name, _ in network.named_parameters()}
    for tensor in proto.graph.initializer:
        key = tensor.name.removeprefix(prefix).removesuffix(HALVED)
        if tensor.name.startswith(prefix) and key in weights:
            missing.discard(key)
            held = numpy_helper.to_array(tensor)
            value = weights[key].detach().numpy().astype(held.dtype)
            tensor.CopyFrom(numpy_helper.from_array(value.reshape(held.shape), tensor.name))
    if missing:
        raise CheckpointError(
            f"{path}: does not hold {prefix}{min(missing)}, as graphs of earlier versions do not where it was equal to "
            "another weight; write the bundle anew with coop-export"
        )
    return proto
