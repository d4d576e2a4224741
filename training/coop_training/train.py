"""coop-train: the segmenter's own training and the three stages of Algorithm 1."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from rich.console import Console
from torch import nn

from coop_perception.image_files import DatasetError
from coop_perception.model.bundle import BundleError
from coop_training.adapters import AdapterError
from coop_training.bundle_weights import load_bundle_weights
from coop_training.checkpoint import CheckpointError, load_weights, read_facts, save_weights
from coop_training.config import ConfigError, TrainConfig, load_config
from coop_training.data import class_weights, load_frames
from coop_training.estimator import fit_estimator
from coop_training.evaluate import positive
from coop_training.interrupt import Interrupt
from coop_training.log import remove_logs
from coop_training.loop import PROGRESS, run_stage
from coop_training.model import Cooperative
from coop_training.networks.refinement import Refinement
from coop_training.networks.segmenter import Segmenter
from coop_training.progress_panels import Panels
from coop_training.record import commit, write_stage_record
from coop_training.run import STAGES, Run, TrainingError, TrainingInterrupted, result_file
from coop_training.stages import stages
from coop_training.step import in_any_process
from coop_training.summary import cost_table, deployed_costs

PRECISIONS = ("bf16-mixed", "32-true")


def main() -> int:
    parser = argparse.ArgumentParser(prog="coop-train", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="YAML configuration")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        dest="overrides",
        help="set a field over the file's, as stages.joint.steps=100; may be given again",
    )
    parser.add_argument("--stage", default="all", choices=["all", *STAGES])
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    parser.add_argument("--out", type=Path, help="folder of checkpoints and logs (default: out/train/<name>)")
    parser.add_argument("--accelerator", default="auto", choices=["auto", "cpu", "gpu"])
    parser.add_argument(
        "--devices", type=positive, default=1, help="GPUs, or processes on a CPU, that share each batch"
    )
    parser.add_argument("--precision", default=PRECISIONS[0], choices=PRECISIONS)
    arguments = parser.parse_args()
    try:
        config = load_config(arguments.config, arguments.overrides)
        if arguments.stage not in ("all", *config.stages.present):
            raise ConfigError(f"{arguments.config}: has no stage {arguments.stage}, only {config.stages.present}")
        wanted = config.stages.present if arguments.stage == "all" else (arguments.stage,)
        fabric = launch(arguments.accelerator, arguments.devices, arguments.precision)
        out = arguments.out or Path("out/train") / config.name
        train(fabric, arguments.precision, config, out, wanted, arguments.resume)
    except (DatasetError, TrainingError) as error:
        complain(str(error))
        # All processes end with these. One that fails makes Fabric kill the first, which still saves.
        return 1 if is_first_process() else 0
    except (ConfigError, BundleError, CheckpointError, AdapterError, OSError) as error:
        complain(str(error))
        return 1
    except (TrainingInterrupted, KeyboardInterrupt) as stop:
        again = sys.argv[1:] if arguments.resume else [*sys.argv[1:], "--resume"]
        complain(f"{str(stop) or 'stopped'}; go on with: coop-train {shlex.join(again)}")
        return 130 if is_first_process() else 0
    return 0


def is_first_process() -> bool:
    """Of those that Fabric starts for several devices; known before and after Fabric is there."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def complain(message: str) -> None:
    if is_first_process():
        print(f"coop-train: {message}", file=sys.stderr)


def launch(accelerator: str, devices: int, precision: str) -> Fabric:
    """Start the other processes, if there are to be any, and join them.

    Raises:
        TrainingError: there are no such devices.
    """
    # Which parts of the networks a stage's losses leave unused is up to the configuration, but the same in each step.
    strategy = DDPStrategy(static_graph=True) if devices > 1 else "auto"
    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, strategy=strategy, precision=precision)
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        raise TrainingError(f"--accelerator {accelerator} --devices {devices}: {error}") from error
    fabric.launch()
    return fabric


def train(
    fabric: Fabric, precision: str, config: TrainConfig, out: Path, wanted: tuple[str, ...], resume: bool
) -> None:
    """Run the stages wanted, each from the weights the one before left in `out`.

    Writes out/<stage>.safetensors (weights of all networks as they are after it), out/progress.safetensors (to resume
    from), out/log.jsonl, out/tensorboard and out/run.json. Without `resume`, what an earlier run left of these stages
    in `out` is removed first.

    Raises:
        TrainingError: a batch cannot be split between the processes, a loss or gradient is no longer finite, a stage's
            starting weights are missing, what is to be resumed was begun with another configuration, or a later stage's
            result would be left beside a stage that is trained anew.
        TrainingInterrupted: a stop was asked for; what is needed to go on is saved.
        DatasetError: the data cannot be used.
        BundleError: what the run begins with is no bundle.
        CheckpointError: its weights, or an earlier stage's, cannot be used.
        AdapterError: the configuration's own segmenter cannot be used.
        OSError: nothing can be written to `out`.
    """
    out.mkdir(parents=True, exist_ok=True)
    results = {name: result_file(out, name) for name in config.stages.present}
    progress = out / PROGRESS
    left = [name for name in wanted if not (resume and results[name].exists())]
    check_nothing_follows(left, results)
    fabric.barrier()
    if fabric.is_global_zero and not resume:
        for path in (*(results[name] for name in wanted), progress):
            path.unlink(missing_ok=True)
        remove_logs(out, wanted)
    fabric.barrier()
    for path in (*(results[name] for name in wanted if name not in left), progress):
        check_same_run(path, config)
    check_can_begin(left, results, config, fabric.world_size)

    console = Console(stderr=True, quiet=not fabric.is_global_zero, markup=False)
    torch.manual_seed(config.seed)
    model = Cooperative(config).to(memory_format=torch.channels_last)
    fabric.to_device(model)
    if config.start_from is not None:
        anew = load_bundle_weights(config.start_from, model, config)
        for network, weights in anew.items():
            if weights:
                console.print(f"{config.start_from} does not hold {', '.join(weights)} of {network}: these begin anew")
    if config.segmenter_from is not None and config.segmenter is None:
        load_weights(config.segmenter_from, {"segmenter": model.segmenter})
    costs = deployed_costs(model)
    console.print(cost_table(model, costs))
    frames = load_frames(config.data, config.conditions)
    console.print(f"{len(frames)} training frames")
    table = stages(config, fabric.to_device(class_weights(frames, len(config.data.label_sets))))
    run = Run(fabric, precision, config, model, frames, Panels(config, frames), out, console)
    with Interrupt() as interrupt:
        for name in left:
            before = stages_before(name, config)
            if before:
                load_weights(results[before[-1]], model.parts())
            if name == "refinement" and isinstance(model.refinement, Refinement) and config.start_from is None:
                start_refinement(model.refinement, model.segmenter, config)
            facts = {"stage": name, "config": config.model_dump_json(), "commit": commit()}
            seconds, losses = run_stage(run, name, table[name], facts, interrupt)
            if "refinement" in table[name].trained:
                fit_estimator(run, name, interrupt)
            if fabric.is_global_zero:
                record = write_stage_record(run, name, seconds, losses, costs)
                save_weights(results[name], model.parts(), {**facts, "record": json.dumps(record)})
                progress.unlink(missing_ok=True)  # only now: a run that is killed in between loses nothing
            fabric.barrier()
            if name != left[-1] and in_any_process(fabric, interrupt.requested):
                raise TrainingInterrupted(f"stopped after stage {name}")


def start_refinement(refinement: Refinement, segmenter: nn.Module, config: TrainConfig) -> None:
    """From the reference segmenter's features: the run's own or another's. Without one it learns them from nothing."""
    if isinstance(segmenter, Segmenter):
        refinement.start_from(segmenter)
    elif config.segmenter_from is not None:
        reference = Segmenter(len(config.data.class_list.classes))
        load_weights(config.segmenter_from, {"segmenter": reference})
        refinement.start_from(reference)


def stages_before(name: str, config: TrainConfig) -> tuple[str, ...]:
    return config.stages.present[: config.stages.present.index(name)]


def check_same_run(path: Path, config: TrainConfig) -> None:
    if path.exists() and read_facts(path).get("config") != config.model_dump_json():
        raise TrainingError(
            f"{path}: was made with another configuration; give that one, train without --resume, or take another --out"
        )


def check_nothing_follows(left: Sequence[str], results: Mapping[str, Path]) -> None:
    """Whether a stage that is to be trained has none behind it whose result, begun with what it was, would stay."""
    names = list(results)
    for name in names[names.index(left[0]) :] if left else ():
        if name not in left and results[name].exists():
            raise TrainingError(
                f"{results[name]}: came of another run of stage {left[0]} than the one that is asked for; move it away "
                "or take another --out"
            )


def check_can_begin(left: Sequence[str], results: Mapping[str, Path], config: TrainConfig, processes: int) -> None:
    """Before time is spent: whether the first stage has weights to start from, and batches divide evenly."""
    before = stages_before(left[0], config) if left else ()
    if before and not results[before[-1]].exists():
        raise TrainingError(f"{results[before[-1]]}: missing; run stage {before[-1]} first (--stage {before[-1]})")
    for name in left:
        batch = getattr(config.stages, name).batch
        if batch % processes:
            raise TrainingError(
                f"stages.{name}.batch is {batch}, which {processes} processes cannot share evenly; "
                "give another --devices or batch"
            )


if __name__ == "__main__":
    sys.exit(main())
