"""A stage's logs: lines of JSON, and TensorBoard events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from coop_perception.replacing import write_whole

LOG = "log.jsonl"
TENSORBOARD = "tensorboard"


class StageLog:
    """Appends to `out`/log.jsonl, one object per logged step of any stage and one per validation, and to
    `out`/tensorboard/<stage>.

    What an earlier run logged of this stage from step `first` on is dropped: it is about to be done again.
    """

    def __init__(self, out: Path, stage: str, first: int) -> None:
        self.stage = stage
        drop_lines(out, stage, first)
        self._lines = (out / LOG).open("a")
        self._events = SummaryWriter(str(out / TENSORBOARD / stage), purge_step=first)

    def scalars(
        self, step: int, learning_rate: float, losses: Mapping[str, float], data_wait: float, seconds: float
    ) -> None:
        """data_wait: share of the time since the last call in which no batch was ready; seconds: since the stage's
        beginning."""
        facts = {"stage": self.stage, "step": step, "lr": learning_rate, "losses": dict(losses)}
        self._lines.write(json.dumps({**facts, "data_wait": round(data_wait, 3), "seconds": round(seconds, 1)}) + "\n")
        self._lines.flush()
        scalars = {f"loss/{name}": value for name, value in losses.items()}
        for name, value in {**scalars, "learning_rate": learning_rate, "data_wait": data_wait}.items():
            self._events.add_scalar(name, value, step)

    def validation(self, step: int, figures: Mapping[str, float], seconds: float) -> None:
        """figures: of the averaged networks after the step; seconds: since the stage's beginning."""
        facts = {"stage": self.stage, "step": step, "validation": dict(figures), "seconds": round(seconds, 1)}
        self._lines.write(json.dumps(facts) + "\n")
        self._lines.flush()
        for name, value in figures.items():
            self._events.add_scalar(f"validation/{name}", value, step)
        self._events.flush()

    def image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """image: uint8 [H,W,3] RGB."""
        self._events.add_image(name, image, step, dataformats="HWC")
        self._events.flush()

    def close(self) -> None:
        self._lines.close()
        self._events.close()


def drop_lines(out: Path, stage: str, first: int = 0) -> None:
    """Take what was logged of a stage from step `first` on out of `out`/log.jsonl."""
    path = out / LOG
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines():
        try:
            logged = json.loads(line)
        except (ValueError, RecursionError):
            continue  # cut short by the end of a process
        step = logged.get("step") if isinstance(logged, dict) and logged.get("stage") == stage else None
        if not isinstance(step, int) or step < first:
            kept.append(line + b"\n")
    write_whole(path, b"".join(kept))
