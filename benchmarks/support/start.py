"""What a node's start takes at least: its imports, and its networks' engines. Prints a line when it has them."""

from __future__ import annotations

import sys
from pathlib import Path

import coop_perception.node.lifecycle  # noqa: F401 (with all that the node imports)
from coop_perception.contracts import STAGES
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.model.bundle import load_bundle

if __name__ == "__main__":
    engines = load_engines(load_bundle(Path(sys.argv[1])), STAGES, EngineSettings())
    print("loaded", flush=True)
