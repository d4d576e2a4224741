"""What an earlier run left in the output folder, put aside where a stage begins anew."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from coop_training.log import LOG, TENSORBOARD, drop_lines
from coop_training.record import RECORD


def put_aside(out: Path, stages: Sequence[str], files: Sequence[Path]) -> None:
    """Move what `out` holds of these stages to a new folder `earlier-N` in it; nothing is deleted.

    Log and record are copied, for they are of other stages too; the log forgets these.

    Args:
        out: the output folder.
        stages: that begin anew.
        files: of theirs, in `out`.
    """
    events = [out / TENSORBOARD / stage for stage in stages]
    batches = [path for stage in stages for path in sorted(out.glob(f"nonfinite-{stage}-*"))]
    moved = [path for path in (*files, *events, *batches) if path.exists()]
    if not moved:
        return
    aside = next(folder for number in count(1) if not (folder := out / f"earlier-{number}").exists())
    aside.mkdir()
    for name in (LOG, RECORD):
        if (out / name).exists():
            shutil.copy2(out / name, aside)
    for path in moved:
        place = aside / path.relative_to(out)
        place.parent.mkdir(exist_ok=True)
        path.rename(place)
    for stage in stages:
        drop_lines(out, stage)
