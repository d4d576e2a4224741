"""Many recordings together: exactly what all their frames give, without all of them in memory."""

from __future__ import annotations

import numpy as np
import pytest
from test_measures import CLASSES, drive, rows_of

from coop_perception.evaluation.bootstrap import BLOCKS
from coop_perception.evaluation.measures import Collected, scores
from coop_perception.evaluation.table import save, together


def test_recordings_of_which_only_sums_are_kept_score_as_all_their_frames(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    frames = [drive(seed)[:4] for seed in range(BLOCKS)]
    tables = [save(folder / f"{seed}.parquet", rows_of(part)) for seed, part in enumerate(frames)]
    fleet, whole = scores(tables, CLASSES), scores([together(tables)], CLASSES)
    assert fleet["all"]["frames"] == 4 * BLOCKS
    for kind, part in (("all", fleet["all"]), *fleet["condition"].items()):
        other = whole["all"] if kind == "all" else whole["condition"][kind]
        assert part.keys() == other.keys()
        for name, one in part.items():
            if isinstance(one, dict):
                assert one["value"] == pytest.approx(other[name]["value"], rel=1e-9), name
    assert fleet["all"]["miou"]["low"] < fleet["all"]["miou"]["value"] < fleet["all"]["miou"]["high"]
    collected = Collected(CLASSES, BLOCKS)
    for table in tables:
        collected.add(table)
    kept = [sums for entries in collected._sums.values() for sums in entries]
    assert all(len(sums) == 1 for sums in kept)
    assert (collected.totals["confusion"] == together(tables).counts["confusion"].sum(axis=0)).all()
    assert np.isfinite(fleet["class"]["Car"]["iou"]["value"])
