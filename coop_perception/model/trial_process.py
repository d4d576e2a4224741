"""The process that `coop_perception.model.trial` starts: takes a bundle's snapshot, loads that, runs its networks once,
and says on its standard output what came of it."""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import signal
import sys
from pathlib import Path

from coop_perception.model.loading import load_snapshot
from coop_perception.model.snapshot import take_snapshot
from coop_perception.model.trial import KINDS
from coop_perception.shown import plain

_PR_SET_PDEATHSIG = 1


def main() -> None:
    # With the parent this process ends, and it is the one to end where memory is short.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C, which the parent gets too
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass
    parent, directory, copy, settings = pickle.load(sys.stdin.buffer)  # the parent's own
    if os.getppid() != parent:  # which was gone before it could be asked for
        os._exit(1)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # for what runtimes print
    try:
        take_snapshot(directory, copy)
        load_snapshot(directory, copy, settings, lambda _: None)
        result = ("", "")
    except Exception as error:
        kind = type(error).__name__
        result = (kind, plain(error if kind in KINDS else f"{kind}: {error}"))
    json.dump(result, answer)
    answer.flush()
    os._exit(0)  # whatever threads runtimes have left


if __name__ == "__main__":
    main()
