"""coop-train: the segmenter's own training and the three stages of Algorithm 1."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, default_collate

from coop_perception.labelled_images import DatasetError
from coop_training.checkpoint import (
    CheckpointError,
    load_progress,
    load_weights,
    read_facts,
    save_progress,
    save_weights,
)
from coop_training.config import ConfigError, StageConfig, TrainConfig, load_config
from coop_training.data import AdverseCrops, LabelledFrame, Sample, class_weights, load_frames
from coop_training.model import Cooperative
from coop_training.stages import Stage, parameters, stages

WARMUP_STEPS = 100
CHECKPOINT_SECONDS = 120.0
LOG_EVERY = 20
PROGRESS = "progress.safetensors"


def main() -> int:
    parser = argparse.ArgumentParser(prog="coop-train", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="YAML configuration")
    parser.add_argument("--stage", default="all", choices=["all", "segmenter", "refinement", "restoration", "joint"])
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    parser.add_argument("--out", type=Path, help="folder of checkpoints and logs (default: out/train/<name>)")
    arguments = parser.parse_args()
    try:
        config = load_config(arguments.config)
        out = arguments.out or Path("out/train") / config.name
        train(config, out, None if arguments.stage == "all" else arguments.stage, arguments.resume)
    except (ConfigError, DatasetError, CheckpointError, TrainingError) as error:
        print(f"coop-train: {error}", file=sys.stderr)
        return 1
    return 0


class TrainingError(RuntimeError):
    """Training cannot go on; the message says what was found and what to do."""


def train(config: TrainConfig, out: Path, only: str | None, resume: bool) -> None:
    """Run the stages (or `only` one of them), each from the weights the one before left in `out`.

    Writes out/<stage>.safetensors (weights of the networks trained so far), out/progress.safetensors (to resume
    from) and out/log.jsonl (one object per logged step). Without `resume`, what an earlier run left of these stages in
    `out` is removed first.

    Raises:
        TrainingError: a loss or gradient is no longer finite, a stage's starting weights are missing, or what is to be
            resumed was begun with another configuration.
        DatasetError: the data cannot be used.
        CheckpointError: an earlier stage's weights cannot be used.
    """
    out.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    torch.manual_seed(config.seed)
    model = Cooperative(config).to(memory_format=torch.channels_last)
    for name, network in model.parts().items():
        console.print(f"{name}: {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters")
    results = {name: out / f"{name}.safetensors" for name in type(config.stages).model_fields}
    progress = out / PROGRESS
    if not resume:
        for path in (*(results[name] for name in results if only in (None, name)), progress):
            path.unlink(missing_ok=True)
        if only is None:
            (out / "log.jsonl").unlink(missing_ok=True)
    frames = load_frames(config.data, config.conditions)
    console.print(f"{len(frames)} training frames")
    table = stages(config, class_weights(frames, len(config.data.class_list.classes)))
    trained: dict[str, torch.nn.Module] = {}
    previous: Path | None = None
    for name, result in results.items():
        before = dict(trained)
        trained |= {part: model.parts()[part] for part in table[name].trained}
        if only is None and result.exists():
            check_same_run(result, config)
        elif only in (None, name):
            if previous is not None:
                if not previous.exists():
                    raise TrainingError(
                        f"{previous}: missing; run stage {previous.stem} first (--stage {previous.stem})"
                    )
                load_weights(previous, before)
            run_stage(name, table[name], getattr(config.stages, name), config, model, frames, out, console)
            save_weights(result, trained, stage_facts(name, config))
            progress.unlink(missing_ok=True)  # only now: a run that is killed in between loses nothing
        previous = result


def stage_facts(stage: str, config: TrainConfig) -> dict[str, str]:
    return {"stage": stage, "config": config.model_dump_json(), "commit": commit()}


def check_same_run(path: Path, config: TrainConfig) -> None:
    if read_facts(path).get("config") != config.model_dump_json():
        raise TrainingError(
            f"{path}: was made with another configuration; give that one, train without --resume, or take another --out"
        )


def commit() -> str:
    """The source's commit, marked where the tree differs from it; `unknown` outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def run_stage(
    name: str,
    stage: Stage,
    settings: StageConfig,
    config: TrainConfig,
    model: Cooperative,
    frames: list[LabelledFrame],
    out: Path,
    console: Console,
) -> None:
    """Train one stage in place, from where its progress file, if there is one, says."""
    trained = parameters(model, stage.trained)
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    progress_file, first = out / PROGRESS, 0
    if progress_file.exists() and read_facts(progress_file)["stage"] == name:
        check_same_run(progress_file, config)
        first = load_progress(progress_file, model.parts(), optimizer)
    model.requires_grad_(False)
    model.eval()
    for part in stage.trained:
        model.parts()[part].train().requires_grad_(True)
    data = AdverseCrops(
        frames,
        settings.steps * settings.batch,
        settings.crop or config.data.crop,
        config.conditions if stage.adverse else (),
        config.clear,
        # Each stage draws its own samples.
        config.seed * 10 + list(type(config.stages).model_fields).index(name),
        (0.75, 1.6) if not stage.adverse else (0.9, 1.3),
        first * settings.batch,
    )
    loader = DataLoader(data, settings.batch, num_workers=1, prefetch_factor=4, collate_fn=collate)
    saved = waited = time.monotonic()
    waiting = 0.0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar, (out / "log.jsonl").open("a") as log:
        task = bar.add_task(name, total=settings.steps, completed=first)
        begun = waited
        for step, batch in enumerate(loader, first):
            waiting += time.monotonic() - waited
            rate = schedule(step, settings)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast("cpu", torch.bfloat16):
                losses = stage.losses(model, batch)
            total = losses["total"]
            if not torch.isfinite(total):
                raise TrainingError(f"stage {name}, step {step}: loss is {total.item()}; lower its learning_rate")
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
            if not torch.isfinite(norm):
                raise TrainingError(f"stage {name}, step {step}: gradient is {norm.item()}; lower its learning_rate")
            optimizer.step()
            if step % LOG_EVERY == 0:
                values = {key: round(value.item(), 5) for key, value in losses.items()}
                elapsed = time.monotonic() - begun
                facts = {"stage": name, "step": step, "lr": rate, **values, "seconds": round(elapsed, 1)}
                log.write(json.dumps(facts) + "\n")
                log.flush()
                shown = " ".join(f"{key} {value:.3f}" for key, value in values.items())
                bar.update(task, description=f"{name} {shown} data-wait {waiting / max(elapsed, 1e-9):.0%}")
            bar.update(task, completed=step + 1)
            waited = time.monotonic()
            if waited - saved > CHECKPOINT_SECONDS:
                save_progress(progress_file, stage_facts(name, config), step + 1, model.parts(), optimizer)
                saved = waited


def collate(samples: list[Sample]) -> Sample:
    return Sample(*(default_collate(list(values)) for values in zip(*map(_fields, samples), strict=True)))


def _fields(sample: Sample) -> tuple[torch.Tensor, ...]:
    return sample.clear, sample.degraded, sample.mask, sample.condition, sample.strength


def schedule(step: int, settings: StageConfig) -> float:
    """Learning rate: linear warm-up, then half a cosine to zero at the last step."""
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    return settings.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * step / settings.steps))


if __name__ == "__main__":
    sys.exit(main())
