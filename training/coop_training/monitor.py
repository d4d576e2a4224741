"""What a stage shows of itself while it runs: progress bar, logs, panels."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TypeVar

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from coop_training.log import StageLog
from coop_training.run import Run
from coop_training.terms import Losses
from coop_training.validation import in_words

T = TypeVar("T")

LOG_EVERY = 20
PANELS_EVERY = 250


class Monitor:
    """Follows the steps of one stage; to be entered. Only the first of several processes writes and draws.

    Args:
        run: what the stage is part of.
        stage: its name.
        first: step that it begins or goes on with.
        seconds: that it has taken before.
    """

    def __init__(self, run: Run, stage: str, first: int, seconds: float) -> None:
        self.run, self.stage, self.steps = run, stage, run.settings(stage).steps
        self.losses: dict[str, float] = {}
        """The last logged, means over processes."""
        reports = run.fabric.is_global_zero
        self._log = StageLog(run.out, stage, first) if reports else None
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=run.console, disable=not reports)
        self._task = self._bar.add_task(stage, total=self.steps, completed=first)
        self._window = time.monotonic()
        self._begun = self._window - seconds
        self._waited = 0.0

    def __enter__(self) -> Monitor:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()
        if self._log:
            self._log.close()

    @property
    def seconds(self) -> float:
        """That the stage has taken, interruptions left out."""
        return time.monotonic() - self._begun

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches; the wait for each is counted."""
        iterator = iter(batches)
        while True:
            asked = time.monotonic()
            batch = next(iterator, None)
            self._waited += time.monotonic() - asked
            if batch is None:
                return
            yield batch

    def stepped(self, step: int, learning_rate: float, losses: Losses) -> None:
        """Take note of a step that has been done."""
        last = step == self.steps - 1
        if step % LOG_EVERY == 0 or last:
            self._tell(step, learning_rate, losses)
        if (step + 1) % PANELS_EVERY == 0 and not last:
            self.draw(step + 1)
        self._bar.update(self._task, completed=step + 1)

    def validated(self, step: int, figures: Mapping[str, float], best: bool) -> None:
        """Take note of what the averaged networks are worth after a step."""
        if self._log:
            self._log.validation(step, figures, self.seconds)
        so_far = ", the best so far" if best else ""
        self.run.console.print(f"{self.stage}, step {step + 1}: {in_words(figures)}{so_far}")

    def draw(self, steps: int) -> None:
        """Draw what the networks do after so many steps."""
        if self._log:
            self._log.image(steps, "panels", self.run.panels.draw(self.run.model))

    def _tell(self, step: int, learning_rate: float, losses: Losses) -> None:
        means = self.run.fabric.all_reduce(torch.stack(list(losses.values())), reduce_op="mean")
        assert isinstance(means, Tensor)
        self.losses = {name: float(f"{mean:.6g}") for name, mean in zip(losses, means.tolist(), strict=True)}
        now = time.monotonic()
        data_wait = self._waited / max(now - self._window, 1e-9)
        self._window, self._waited = now, 0.0
        if self._log:
            self._log.scalars(step, learning_rate, self.losses, data_wait, self.seconds)
        description = f"{self.stage}: loss {self.losses['total']:.3f}, data-wait {data_wait:.0%}"
        self._bar.update(self._task, description=description)
