"""A training run: the segmenter's own training and the three stages of Algorithm 1, each from where the last ended."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pydantic import ValidationError
from rich.console import Console
from torch import nn

from coop_perception.replacing import open_results
from coop_perception.shown import shown
from coop_training.bundle_weights import load_bundle_weights
from coop_training.checkpoint import load_weights, read_facts, save_weights
from coop_training.config import TrainConfig
from coop_training.earlier import put_aside
from coop_training.estimator import fit_estimator
from coop_training.frames import load_frames, own_oddities, validation_frames
from coop_training.interrupt import Interrupt
from coop_training.label_survey import check_labels, class_weights, dark_frames, label_counts
from coop_training.loop import PROGRESS, run_stage
from coop_training.model import Cooperative
from coop_training.networks.encoder import load_pretrained
from coop_training.networks.refinement import Refinement
from coop_training.networks.segmenter import Segmenter
from coop_training.problems import problems
from coop_training.progress_panels import Panels
from coop_training.record import commit, read_record, write_stage_record
from coop_training.run import Run, TrainingError, TrainingInterrupted, result_file
from coop_training.stages import stages
from coop_training.step import in_any_process
from coop_training.summary import cost_table, deployed_costs
from coop_training.validation import BEST, FRAMES


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
    fabric: Fabric,
    precision: str,
    config: TrainConfig,
    out: Path,
    wanted: tuple[str, ...],
    resume: bool = False,
    force: bool = False,
) -> None:
    """Run the stages wanted, each from the weights the one before left in `out`.

    Writes out/<stage>.safetensors (weights of all networks as they are after it), out/progress.safetensors (to resume
    from), out/log.jsonl, out/tensorboard and out/run.json. Without `resume`, what an earlier run left of these stages
    in `out` is put aside, but only once all that the training needs is there; results only with `force`.

    Raises:
        TrainingError: a batch cannot be split between the processes, a loss or gradient is no longer finite, a stage's
            starting weights are missing, what is to be resumed was begun with another configuration, a later stage's
            result would be left beside a stage that is trained anew, or there are results and neither `resume` nor
            `force` says what is to become of them.
        TrainingInterrupted: a stop was asked for; what is needed to go on is saved.
        DatasetError: the data cannot be used.
        BundleError: what the run begins with is no bundle.
        CheckpointError: its weights, or an earlier stage's, cannot be used.
        AdapterError: the configuration's own segmenter cannot be used.
        OSError: nothing can be written to `out`.
    """
    open_results(out, (), force)
    results = {name: result_file(out, name) for name in config.stages.present}
    progress = out / PROGRESS
    passing = (progress, out / BEST)
    left = [name for name in wanted if not (resume and results[name].exists())]
    check_nothing_follows(left, results)
    if resume:
        for path in (*(results[name] for name in wanted if name not in left), progress):
            check_same_run(path, config)
    elif not force:
        check_nothing_replaced([*(results[name] for name in wanted), progress])
    check_can_begin(left, results, config, fabric.world_size)
    read_record(out)  # for what cannot be added to, nobody trains for hours

    console = Console(stderr=True, quiet=not fabric.is_global_zero, markup=False)
    torch.manual_seed(config.seed)
    model = Cooperative(config).to(memory_format=torch.channels_last)
    fabric.to_device(model)
    if config.start_from is not None:
        anew = load_bundle_weights(config.start_from, model, config)
        if isinstance(model.segmenter, Segmenter):
            model.segmenter.keeps_statistics = True
        for network, weights in anew.items():
            if weights:
                console.print(f"{config.start_from} does not hold {', '.join(weights)} of {network}: these begin anew")
    if config.segmenter_from is not None and config.segmenter is None:
        load_weights(config.segmenter_from, {"segmenter": model.segmenter})
    if config.refinement_from is not None:
        load_weights(config.refinement_from, {"refinement": model.refinement})
    costs = deployed_costs(model)
    console.print(cost_table(model, costs))
    frames = load_frames(config.data, config.conditions)
    validation = validation_frames(config.data, config.conditions, FRAMES)  # in all processes, to fail in all
    console.print(f"{len(frames)} training frames, {len(validation)} to validate on")
    counts = label_counts(frames)
    for line in filter(None, [*check_labels(counts, config.data), dark_frames(frames), *own_oddities(config.data)]):
        console.print(f"warning: {line}")
    if config.mixtures and not config.data.can_show("fog"):
        console.print(f"warning: there is no fog, nor rain's veil, for want of depth: {config.data.lacks_depth}")
    table = stages(config, fabric.to_device(class_weights(counts, len(config.data.label_sets))))
    run = Run(fabric, precision, config, model, frames, validation, Panels(config, frames), out, console)
    fabric.barrier()
    if fabric.is_global_zero and not resume:
        put_aside(out, wanted, [*(results[name] for name in wanted), *passing])
    fabric.barrier()
    with Interrupt() as interrupt:
        for name in left:
            before = stages_before(name, config)
            if before:
                load_weights(results[before[-1]], model.parts())
            if name == "refinement" and isinstance(model.refinement, Refinement) and config.start_from is None:
                start_refinement(model.refinement, model.segmenter, config)
            facts = {"stage": name, "config": config.model_dump_json(), "commit": commit()}
            trained = run_stage(run, name, table[name], facts, interrupt)
            if "refinement" in table[name].trained:
                fit_estimator(run, name, interrupt)
            if fabric.is_global_zero:
                record = write_stage_record(run, name, trained, costs)
                save_weights(results[name], model.parts(), {**facts, "record": json.dumps(record)})
                for path in passing:  # only now: a run that is killed in between loses nothing
                    path.unlink(missing_ok=True)
            fabric.barrier()
            if name != left[-1] and in_any_process(fabric, interrupt.requested):
                raise TrainingInterrupted(f"stopped after stage {name}")


def start_refinement(refinement: Refinement, segmenter: nn.Module, config: TrainConfig) -> None:
    """From the reference segmenter's features: the run's own or another's. Without one it begins with ImageNet's."""
    if isinstance(segmenter, Segmenter):
        refinement.start_from(segmenter)
    elif config.segmenter_from is not None:
        reference = Segmenter(len(config.data.class_list.classes))
        load_weights(config.segmenter_from, {"segmenter": reference})
        refinement.start_from(reference)
    else:
        load_pretrained(refinement.encoder)


def stages_before(name: str, config: TrainConfig) -> tuple[str, ...]:
    return config.stages.present[: config.stages.present.index(name)]


def check_same_run(path: Path, config: TrainConfig) -> None:
    if not path.exists():
        return
    try:
        before = TrainConfig.model_validate_json(read_facts(path).get("config", ""))
        found = "; ".join(differences(before.model_dump(mode="json"), config.model_dump(mode="json")))
    except ValidationError as error:
        found = f"of another version: {problems(error)}"
    if found:
        raise TrainingError(
            f"{path}: was made with another configuration: {found}; give that one, begin anew with --force, or take "
            "another --out"
        )


def differences(before: Any, now: Any, field: str = "") -> Iterator[str]:
    """A line for each field in which two configurations differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in {**before, **now}:
            yield from differences(before.get(name), now.get(name), f"{field}.{name}" if field else name)
    elif before != now:
        yield f"{field} is {shown(now)}, was {shown(before)}"


def check_nothing_replaced(paths: Sequence[Path]) -> None:
    there = [str(path) for path in paths if path.exists()]
    if there:
        raise TrainingError(
            f"{', '.join(there)}: of an earlier run; go on with --resume, begin anew with --force, or take another "
            "--out"
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
