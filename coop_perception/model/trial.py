"""A bundle tried in a process of its own: a graph that never ends, or that ends its process, costs nobody else.

The process is `coop_perception.model.trial_process`.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

from coop_perception.documents import parse_json
from coop_perception.engines import EngineError
from coop_perception.engines.loading import EngineSettings
from coop_perception.model.bundle import BundleError

KINDS: dict[str, type[Exception]] = {kind.__name__: kind for kind in (BundleError, EngineError)}
"""Errors that come back as what they are, by name."""
PROCESS = "coop_perception.model.trial_process"


def try_bundle(directory: Path, copy: Path, settings: EngineSettings, limit_s: float) -> None:
    """Load a bundle once, elsewhere. Its snapshot is in `copy` after that.

    Args:
        directory, settings: as for `coop_perception.model.loading.load_pipeline`.
        copy: a folder to make.
        limit_s: seconds that it may take.

    Raises:
        BundleError, EngineError: what loading it there raised; the process took longer, or died.
    """
    command = [sys.executable, "-m", PROCESS]
    given = pickle.dumps((os.getpid(), directory, copy, settings))
    try:
        done = subprocess.run(command, input=given, stdout=subprocess.PIPE, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise EngineError(too_late(directory, limit_s, "load_timeout")) from None
    try:
        kind, message = parse_json(done.stdout.decode(), "the process's answer:")
    except ValueError:
        raise EngineError(
            f"{directory}: the process that tried it ended with status {done.returncode}: its networks take more "
            "memory than there is, or end the runtime that loads them"
        ) from None
    if kind:
        raise KINDS.get(kind, EngineError)(message)


def too_late(directory: Path, limit_s: float, parameter: str) -> str:
    """What is said of a bundle that took longer than a parameter of the node allows."""
    return (
        f"{directory}: not loaded within {limit_s:g} s; where its engines have to be built, build them beforehand "
        f"(build_engines) or raise parameter {parameter}"
    )
