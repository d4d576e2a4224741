"""Fixtures of the tests that run a perception node in a process of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from toy_bundle import write_toy_bundle

settings.register_profile("on any machine", deadline=None)
settings.load_profile("on any machine")


@pytest.fixture(scope="session", autouse=True)
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["COOP_PERCEPTION_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """What a shell runs in the background ignores SIGINT, and so would all processes that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy")


@pytest.fixture
def node_log(tmp_path: Path) -> Path:
    """What the node that `active` started prints."""
    return tmp_path / "node.log"


@pytest.fixture
def active(bundle: Path, node_log: Path, tmp_path: Path) -> Iterator[Callable[..., object]]:
    """Starts a node with the toy bundle and gives a client of it, once it is active."""
    from node_harness import DOMAIN, NODE, RELIABLE, Client, client, node_process

    from coop_perception.ros.lifecycle_client import bring_up

    with client(DOMAIN) as ours:
        started = []

        def start(**parameters: str) -> Client:
            process = node_process(
                DOMAIN, node_log, **{"bundle": str(bundle), "bundle_roots": f"[{tmp_path}]", **RELIABLE, **parameters}
            )
            started.append(process)
            process.__enter__()
            bring_up(ours.node, ours.executor, NODE)
            ours.spin()
            return ours

        try:
            yield start
        finally:
            for process in started:
                process.__exit__(None, None, None)
