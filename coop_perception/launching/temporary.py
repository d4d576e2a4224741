"""Files that launched processes read, gone when the launch has ended."""

from __future__ import annotations

import atexit
from pathlib import Path
from tempfile import NamedTemporaryFile


def temporary_file(text: str, suffix: str) -> str:
    """The path of a new file, which is removed when this process ends."""
    with NamedTemporaryFile("w", prefix="coop_perception_", suffix=suffix, delete=False) as file:
        file.write(text)
    atexit.register(Path(file.name).unlink, missing_ok=True)
    return file.name
