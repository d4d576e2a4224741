"""What the networks cost."""

from __future__ import annotations

from dataclasses import replace

import torch
from rich.table import Table

from coop_training.adapters import OnnxSegmenter
from coop_training.graphs import RestorationGraph
from coop_training.model import Cooperative
from coop_training.networks.cost import Cost, cost

HEIGHT, WIDTH = 512, 1024
"""The size that costs are given for, in pixels."""


def deployed_costs(model: Cooperative) -> dict[str, Cost]:
    """Of the networks that run on a vehicle, by name, for one image of 512x1024; a user's segmenter is not counted."""
    image = torch.empty(1, 3, HEIGHT, WIDTH, device="meta")
    segmentation = torch.empty(1, model.classes, HEIGHT // 4, WIDTH // 4, device="meta")
    refined = torch.empty(1, model.classes, HEIGHT // model.stride, WIDTH // model.stride, device="meta")
    pixels = torch.empty(1, HEIGHT, WIDTH, 3, dtype=torch.uint8, device="meta")
    deployed = cost(RestorationGraph(model, HEIGHT, WIDTH), (pixels, refined))  # with refinement's encoder
    own = isinstance(model.segmenter, OnnxSegmenter)
    return {
        **({} if own else {"segmenter": cost(model.segmenter, (image,))}),
        "refinement": cost(model.refinement, (image, segmentation)),
        "restoration": replace(cost(model.restoration, (image, refined)), macs=deployed.macs),
    }


def cost_table(model: Cooperative, costs: dict[str, Cost]) -> Table:
    """One row per network; discriminators, which only training needs, without their cost."""
    table = Table("network", "parameters, M", f"GMACs at {HEIGHT}x{WIDTH}")
    for name, network in model.parts().items():
        parameters = sum(parameter.numel() for parameter in network.parameters())
        table.add_row(name, f"{parameters / 1e6:.2f}", f"{costs[name].macs / 1e9:.1f}" if name in costs else "")
    return table
