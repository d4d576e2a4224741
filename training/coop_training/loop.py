"""The steps of one stage, from the first or from where an interruption left it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from coop_training.batches import Batch, batch_loader, share
from coop_training.checkpoint import CheckpointError, load_progress, read_facts, save_progress, save_tensors
from coop_training.config import StageConfig
from coop_training.ema import WeightAverage
from coop_training.interrupt import Interrupt
from coop_training.monitor import Monitor
from coop_training.run import Run, TrainingError, TrainingInterrupted
from coop_training.stages import Stage
from coop_training.step import NonFiniteError, StageStep, error_in_any_process, in_any_process
from coop_training.validation import Best, Validation

WARMUP_STEPS = 100
CHECKPOINT_SECONDS = 120.0
PROGRESS = "progress.safetensors"


@dataclass(frozen=True, slots=True)
class Trained:
    """How a stage ended: seconds that it took, interruptions left out, the last logged losses, and which averaged
    weights were the best (None: there was nothing to validate on)."""

    seconds: float
    losses: Mapping[str, float]
    best: Best | None


def run_stage(run: Run, name: str, stage: Stage, facts: Mapping[str, str], interrupt: Interrupt) -> Trained:
    """Train one stage; the model is left with the moving average of its weights, of the step at which it scored best.

    It begins where out/progress.safetensors says, if that holds this stage, and writes that file every few minutes and
    after the last step, for what is then fitted to the stage's result. An interrupted stage ends as an uninterrupted
    one does, on a CPU to the bit.

    Args:
        run: what it is part of.
        name: the stage's.
        stage: what is trained.
        facts: what the progress file's header says besides how far it is.
        interrupt: looked at after each step.

    Raises:
        TrainingError: a loss or gradient is not finite; the batch is saved.
        TrainingInterrupted: a stop was asked for before the last step; progress is saved.
        DatasetError: a file of the data set cannot be used; progress is saved.
        CheckpointError: the progress file cannot be used.
    """
    fabric, parts, settings = run.fabric, run.model.parts(), run.settings(name)
    descend = StageStep(fabric, run.model, stage, settings, run.config.discriminator_rate)
    average = WeightAverage({part: parts[part] for part in stage.trained}, run.config.ema)
    progress, first, seconds = run.out / PROGRESS, 0, 0.0
    if (before := reached(progress, name, settings.steps)) is not None:
        load_progress(progress, parts, average, descend.optimizers)
        first, seconds = before

    def save(steps: int) -> None:
        if fabric.is_global_zero:
            now = {**facts, "steps": str(steps), "seconds": str(monitor.seconds)}
            save_progress(progress, parts, average, descend.optimizers, now)

    validation = Validation(run, name, stage, first > 0)
    rank, processes = fabric.global_rank, fabric.world_size
    shares = [share(step, settings.batch, rank, processes) for step in range(first, settings.steps)]
    loader = batch_loader(run.samples(name, stage), shares, fabric.device, processes)
    batches = fabric.setup_dataloaders(loader, use_distributed_sampler=False)
    with Monitor(run, name, first, seconds) as monitor:
        saved = time.monotonic()
        for step, batch in enumerate(monitor.timed(batches), first):
            error = error_in_any_process(fabric, batch)
            if error is not None:
                save(step)
                raise error
            torch.manual_seed(run.seed(name, step, rank))
            rate = learning_rate(step, settings)
            try:
                losses = descend(batch, rate)
            except NonFiniteError as error:
                path = save_batch(run, name, step, batch, shares[step - first], error)
                raise TrainingError(
                    f"stage {name}, step {step}: {error}; its batch is in {path}. Go on from the last checkpoint in "
                    f"full precision (--resume --precision 32-true), or begin the stage again with a lower learning "
                    f"rate (--stage {name} --set stages.{name}.learning_rate={settings.learning_rate / 2:g})"
                ) from error
            average.update(step)
            monitor.stepped(step, rate, losses)
            if validation.due(step):
                monitor.validated(step, *validation.scored(step, average))
            last = step + 1 == settings.steps
            stop = not last and in_any_process(fabric, interrupt.requested)
            if last or stop or time.monotonic() - saved > CHECKPOINT_SECONDS:
                save(step + 1)
                saved = time.monotonic()
            if stop:
                raise TrainingInterrupted(f"stopped in stage {name} after step {step + 1} of {settings.steps}")
        average.apply()
        best = validation.take_best()
        monitor.draw(settings.steps)
        return Trained(monitor.seconds, monitor.losses, best)


def reached(progress: Path, stage: str, steps: int) -> tuple[int, float] | None:
    """After how many of a stage's steps, and seconds, a progress file was written; None where it is not this stage's.

    Raises:
        CheckpointError: it does not say it.
    """
    if not progress.exists():
        return None
    facts = read_facts(progress)
    try:
        if facts["stage"] != stage:
            return None
        done, seconds = int(facts["steps"]), float(facts["seconds"])
    except (KeyError, ValueError):
        done, seconds = -1, 0.0
    if not (0 <= done <= steps and 0 <= seconds < math.inf):
        raise CheckpointError(f"{progress}: does not say how far it is; begin anew with --force")
    return done, seconds


def learning_rate(step: int, settings: StageConfig) -> float:
    """Linear warm-up over a tenth of the steps, 100 at most, then half a cosine to zero at the last step."""
    warmup = min(1.0, (step + 1) / min(WARMUP_STEPS, settings.steps / 10))
    return settings.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * step / settings.steps))


def save_batch(run: Run, stage: str, step: int, batch: Batch, indices: range, error: NonFiniteError) -> Path:
    """Write this process's share of a batch that cannot be learnt from, and what is needed to make it again."""
    rank = run.fabric.global_rank
    path = run.out / f"nonfinite-{stage}-{step}{f'-rank{rank}' if rank else ''}.safetensors"
    facts = {"stage": stage, "step": step, "seed": run.config.seed, "indices": list(indices), "error": error}
    save_tensors(path, batch, {key: str(value) for key, value in facts.items()})
    return path
