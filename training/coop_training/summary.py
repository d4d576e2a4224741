"""What the networks cost."""

from __future__ import annotations

from dataclasses import replace

import torch
from rich.table import Table
from torch import Tensor, nn

from coop_training.adapters import OnnxSegmenter
from coop_training.model import Cooperative
from coop_training.networks.cost import Cost, cost
from coop_training.networks.estimate import Estimate

HEIGHT, WIDTH = 512, 1024
"""The size of image and frame that costs are given for, in pixels."""
SENSOR = 192
WIDER = 1024
"""Columns that are added to a frame to find out what its pixels cost."""


class Refining(nn.Module):
    """Refinement as deployed, of tensors alone."""

    def __init__(self, model: Cooperative) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, given: Tensor, sensor: Tensor) -> tuple[Tensor, Tensor]:
        refined, estimate = self.model.refine(image, given, sensor)
        return refined, estimate.presence


class Restoring(nn.Module):
    """Restoration as deployed, of tensors alone."""

    def __init__(self, model: Cooperative) -> None:
        super().__init__()
        self.model = model

    def forward(self, frame: Tensor, image: Tensor, refined: Tensor, presence: Tensor) -> Tensor:
        return self.model.restore(frame, image, refined, Estimate(presence, presence, torch.ones_like(presence[:, 0])))


def deployed_costs(model: Cooperative) -> dict[str, Cost]:
    """Of the networks that run on a vehicle, by name, for one image and frame of 512x1024; a user's segmenter is not
    counted."""
    image = torch.empty(1, 3, HEIGHT, WIDTH, device="meta")
    given = torch.empty(1, model.classes, HEIGHT // 4, WIDTH // 4, device="meta")
    sensor = torch.empty(1, 3, SENSOR, SENSOR, device="meta")
    refined = torch.empty(1, model.classes, HEIGHT // model.stride, WIDTH // model.stride, device="meta")
    presence = torch.empty(1, model.conditions, device="meta")
    wider = torch.empty(1, 3, HEIGHT, WIDTH + WIDER, device="meta")
    own = isinstance(model.segmenter, OnnxSegmenter)
    macs = {
        **({} if own else {"segmenter": cost(model.segmenter, (image,)).macs}),
        "refinement": cost(Refining(model), (image, given, sensor)).macs,
        "restoration": cost(Restoring(model), (image, image, refined, presence)).macs,
    }
    costs = {name: Cost(parameters(model.parts()[name]), of_network) for name, of_network in macs.items()}
    more = cost(Restoring(model), (wider, image, refined, presence)).macs - macs["restoration"]
    further = round(more * 1e6 / (HEIGHT * WIDER))
    return {**costs, "restoration": replace(costs["restoration"], macs_per_megapixel=further)}


def cost_table(model: Cooperative, costs: dict[str, Cost]) -> Table:
    """One row per network, the calibration of a few numbers left out; discriminators, which only training needs,
    without their cost."""
    table = Table("network", "parameters, M", f"GMACs at {HEIGHT}x{WIDTH}", "and per further megapixel of the frame")
    for name, network in model.parts().items():
        if network is model.calibration:
            continue
        known = costs.get(name)
        macs = "" if known is None else f"{known.macs / 1e9:.1f}"
        further = "" if known is None or not known.macs_per_megapixel else f"{known.macs_per_megapixel / 1e9:.1f}"
        table.add_row(name, f"{parameters(network) / 1e6:.2f}", macs, further)
    return table


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
