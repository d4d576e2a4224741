"""Prints what config/pipeline.yaml must be, from the one definition of the node's parameters."""

from __future__ import annotations

from coop_perception.node.parameters import parameters_yaml

if __name__ == "__main__":
    print(parameters_yaml(), end="")
