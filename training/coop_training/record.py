"""The run's record, run.json: what trained, on what, for how long, and how it ended."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import lightning_fabric
import numpy as np
import torch

from coop_perception.documents import DocumentError, read_json
from coop_perception.replacing import write_whole
from coop_training.config import TrainConfig
from coop_training.log import LOG
from coop_training.loop import Trained
from coop_training.losses.features import describe_features
from coop_training.networks.cost import Cost
from coop_training.run import Run, TrainingError, result_file
from coop_training.validation import in_words

RECORD = "run.json"
LIBRARIES = (torch, lightning_fabric, np, cv2)


def read_record(out: Path) -> dict[str, Any]:
    """The record in `out`: the configuration, and an entry for each stage done; without one, no stage.

    Raises:
        TrainingError: there is something else of that name.
    """
    path = out / RECORD
    if not path.exists():
        return {"stages": {}}
    try:
        record = read_json(path)
    except DocumentError as error:
        raise TrainingError(f"{error}; move it away") from error
    stages = record.get("stages", {}) if isinstance(record, dict) else None
    if not isinstance(stages, dict) or not all(isinstance(entry, dict) for entry in stages.values()):
        raise TrainingError(f"{path}: is no record of a run; move it away")
    return {"config": {}, **record, "stages": stages}


def write_stage_record(run: Run, stage: str, trained: Trained, costs: Mapping[str, Cost]) -> dict[str, Any]:
    """Put a stage that has ended into the record in `out` and return the record.

    `config` at its top is the latest stage's; an entry made under another one holds that one itself.

    Args:
        run: what the stage was part of.
        stage: its name.
        trained: how it ended.
        costs: of the networks, by name.
    """
    record = read_record(run.out)
    config = run.config.model_dump(mode="json")
    # One without a result is of a run that has since been begun anew.
    stages = {name: entry for name, entry in record["stages"].items() if result_file(run.out, name).exists()}
    for earlier in stages.values():
        if record["config"] != config:
            earlier.setdefault("config", record["config"])
    entry = {
        "commit": commit(),
        "seed": run.config.seed,
        "device": device_name(run.fabric.device),
        "processes": run.fabric.world_size,
        "precision": run.precision,
        "versions": {"python": platform.python_version(), **{m.__name__: m.__version__ for m in LIBRARIES}},
        "hours": float(f"{trained.seconds / 3600:.4g}"),
        "features": describe_features(run.config.losses),
        "losses": dict(trained.losses),
    }
    if trained.best is not None:
        entry["validation"] = {**trained.best.figures, "steps": trained.best.steps, "frames": len(run.validation)}
    networks = {name: asdict(cost) for name, cost in costs.items()}
    record = {"config": config, "networks": networks, "stages": {**stages, stage: entry}}
    write_whole(run.out / RECORD, (json.dumps(record, indent=2) + "\n").encode())
    return record


def ended(config: TrainConfig, out: Path, stage: str) -> str:
    """A line about what a run has left, and what its last stage's result is worth."""
    validation = read_record(out)["stages"][stage].get("validation")
    worth = "not validated, for no frame was held out"
    if validation is not None:
        steps = getattr(config.stages, stage).steps
        worth = f"{in_words(validation)} on {validation['frames']} frames, after {validation['steps']} of {steps} steps"
    return f"{result_file(out, stage)}: {worth}; {RECORD} and {LOG} beside it; curves: tensorboard --logdir {out}"


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"


def commit() -> str:
    """The source's commit, marked where the tree differs from it; `unknown` outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
