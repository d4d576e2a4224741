"""What a node's start takes at least: its imports, its networks' engines, and a first frame, for whose size some
backends build them. Arguments: bundle, width, height. Prints a line when it is through."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import coop_perception.node.lifecycle  # noqa: F401 (with all that the node imports)
from coop_perception.contracts import STAGES
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.model.bundle import load_bundle
from coop_perception.model.pipeline import OUTPUTS, Pipeline

if __name__ == "__main__":
    bundle, width, height = load_bundle(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    Pipeline(bundle, load_engines(bundle, STAGES, EngineSettings())).run(
        [np.zeros((height, width, 3), np.uint8)], OUTPUTS
    )
    print("restored", flush=True)
