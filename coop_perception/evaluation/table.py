"""A run's rows as columns: in memory for scores, on disk as frames.parquet."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coop_perception.evaluation.evaluation import EvaluationError
from coop_perception.evaluation.rows import BY_KEY, COUNTS, NUMBERS, TEXTS, WHOLE, Row
from coop_perception.replacing import write_whole
from coop_perception.shown import plain, written

NAME = "frames.parquet"
_CHUNK = 1000
"""Rows in memory as Python objects at a time."""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of n frames, those of a camera in order.

    numbers: float64 [n], NaN where there is none; `presence.fog` and the like too. counts: int64 [n, d], rows of zeros
    where there are none. texts: [n] strings. whole: int64 [n].
    """

    numbers: Mapping[str, NDArray[np.float64]]
    counts: Mapping[str, NDArray[np.int64]]
    texts: Mapping[str, NDArray[np.object_]]
    whole: Mapping[str, NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.whole["frame"])

    def by_key(self, name: str) -> dict[str, NDArray[np.float64]]:
        """The columns of one of BY_KEY, by stage or condition."""
        return {key.removeprefix(f"{name}."): v for key, v in self.numbers.items() if key.startswith(f"{name}.")}

    def of(self, chosen: NDArray[np.bool_]) -> Table:
        """The chosen rows."""
        return Table(*({key: v[chosen] for key, v in part.items()} for part in self._parts))

    def at(self, rows: NDArray[np.intp]) -> Table:
        """The rows of these numbers, in their order."""
        return Table(*({key: v[rows] for key, v in part.items()} for part in self._parts))

    @property
    def _parts(self) -> tuple[Mapping[str, NDArray[Any]], ...]:
        return self.numbers, self.counts, self.texts, self.whole


def together(tables: Sequence[Table]) -> Table:
    """Tables one behind the other; a column that one lacks is empty there."""

    def joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        names = dict.fromkeys(name for part in parts for name in part)
        columns: dict[str, NDArray[Any]] = {}
        for name in names:
            like = next(part[name] for part in parts if name in part)
            empty = np.nan if like.dtype.kind == "f" else 0
            columns[name] = np.concatenate(
                [
                    part[name] if name in part else np.full((len(table), *like.shape[1:]), empty, like.dtype)
                    for part, table in zip(parts, tables, strict=True)
                ]
            )
        return columns

    return Table(*(joined(parts) for parts in zip(*(table._parts for table in tables), strict=True)))


def read_parquet(path: Path) -> Table:
    """What `save` has written.

    Raises:
        EvaluationError: there is no such file, or it holds no frames of an evaluation.
    """
    try:
        with path.open("rb") as file:  # of a path, pyarrow would take one that is no text for none
            arrow = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise EvaluationError(f"{path}: cannot be read as a run's frames ({plain(error, 200)})") from error
    missing = [name for name in (*WHOLE, *TEXTS, *NUMBERS) if name not in arrow.column_names]
    if missing:
        raise EvaluationError(f"{path}: has no column {missing[0]}; expected a run's {NAME}")
    return _from_arrow(arrow)


def save(path: Path, rows: Iterable[Row]) -> Table:
    """Rows to a file, which appears when it is whole, and as a table.

    Raises:
        OSError: it cannot be written.
    """
    arrow = _to_arrow(rows)
    buffer = io.BytesIO()
    pq.write_table(arrow, buffer, compression="zstd")
    write_whole(path, buffer.getvalue())
    return _from_arrow(arrow)


def _to_arrow(rows: Iterable[Row]) -> pa.Table:
    parts, waiting = [], []
    for row in rows:
        waiting.append(row.flat())
        if len(waiting) == _CHUNK:
            parts.append(_chunk(waiting))
            waiting = []
    parts.append(_chunk(waiting))
    return pa.concat_tables(parts, promote_options="default")


def _chunk(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    names = dict.fromkeys([*TEXTS, *WHOLE, *NUMBERS, *COUNTS, *(name for row in rows for name in row)])
    return pa.table({name: pa.array([_value(row.get(name)) for row in rows], _type(name)) for name in names})


def _value(value: Any) -> Any:
    return written(value) if isinstance(value, str) else value


def _type(name: str) -> pa.DataType:
    if name in COUNTS:
        return pa.list_(pa.int64())
    return pa.string() if name in TEXTS else pa.int64() if name in WHOLE else pa.float64()


def _from_arrow(arrow: pa.Table) -> Table:
    def is_number(name: str) -> bool:
        return name in NUMBERS or name.partition(".")[0] in BY_KEY

    def counts(name: str) -> NDArray[np.int64] | None:
        column = arrow.column(name).combine_chunks()
        there = np.asarray(column.is_valid())
        if not there.any():
            return None
        values = np.asarray(column.drop_null().flatten(), np.int64).reshape(int(there.sum()), -1)
        filled = np.zeros((len(there), values.shape[1]), np.int64)
        filled[there] = values
        return filled

    return Table(
        numbers={
            name: np.asarray(arrow.column(name).to_numpy(zero_copy_only=False), np.float64)
            for name in arrow.column_names
            if is_number(name)
        },
        counts={name: found for name in COUNTS if name in arrow.column_names and (found := counts(name)) is not None},
        texts={name: np.array(arrow.column(name).to_pylist(), object) for name in TEXTS},
        whole={name: np.asarray(arrow.column(name), np.int64) for name in WHOLE},
    )
