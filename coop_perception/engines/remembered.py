"""What was measured once on this machine, as small JSON files in the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coop_perception.documents import parse_json
from coop_perception.engines.private_files import make_folder, read_own, write_own


def place(directory: Path, kind: str, facts: Mapping[str, object]) -> Path:
    """The file that remembers a measurement of a kind for whatever these facts are true of."""
    return directory / f"{kind}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}.json"


def read(file: Path) -> Mapping[str, Any] | None:
    """What a file of `remember` holds; None where there is none that can be read and trusted."""
    try:
        known = parse_json(read_own(file).decode(), str(file))
    except ValueError:
        return None
    return known if isinstance(known, dict) else None


def remember(file: Path, facts: Mapping[str, object]) -> str:
    """Writes it whole or not at all; says what became of it."""
    try:
        make_folder(file.parent)
        write_own(file, json.dumps(facts, indent=2).encode())
    except OSError as error:
        return f"not remembered: {error}"
    return f"remembered in {file}"
