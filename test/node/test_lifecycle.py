"""Configuring, ending and starting over, at any moment."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from node_harness import (
    DOMAIN,
    NODE,
    RELIABLE,
    Client,
    change_state,
    client,
    connected,
    image_message,
    loaded,
    node_process,
    pixels,
    publish_until,
)
from onnx import TensorProto, helper, numpy_helper
from sensor_msgs.msg import Image
from toy_bundle import rewrite_network, write_toy_bundle

from coop_perception.engines.backends import ON_CPU
from coop_perception.ros.lifecycle_client import bring_up

END_S = 2.0
LOADED_MACHINE_S = 3.0
"""How much later a test still takes it where the machine is busy with other things than the node."""
CYCLES, ROUNDS = 8, 8
"""Of configuring, activating, deactivating and cleaning up: in a round, and rounds at most until nothing is added."""
ADDED_MB = 1.0
"""What a round may still add to the memory that is held in all of it: less than a frame for each cycle."""
ENDLESS = 2**40


def endless(directory: Path, at: int) -> Path:
    """A toy bundle whose segmenter counts for hours on a frame whose first red value is `at`."""
    proto = onnx.load(write_toy_bundle(directory) / "segmenter.onnx")
    node = next(n for n in proto.graph.node if n.output[0] == "mask_raw")
    node.output[0] = "red"
    count = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["sum", "step"], ["next"]),
        ],
        "count",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.INT64, []),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.INT64, []),
        ],
    )
    constants = {
        "at": np.array(at, np.int64),
        "step": np.array(0, np.int64),
        "often": np.array(ENDLESS, np.int64),
        "zero": np.array(0, np.int64),
        "always": np.array(True),
        "first": np.array([0, 0, 0, 0], np.int64),
    }
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    proto.graph.node.extend(
        [
            helper.make_node("GatherND", ["image", "first"], ["value"]),
            helper.make_node("Cast", ["value"], ["value_int"], to=TensorProto.INT64),
            helper.make_node("Equal", ["value_int", "at"], ["long"]),
            helper.make_node("Where", ["long", "often", "zero"], ["times"]),
            helper.make_node("Loop", ["times", "always", "zero"], ["counted"], body=count),
            helper.make_node("Cast", ["counted"], ["counted_byte"], to=TensorProto.UINT8),
            helper.make_node("Add", ["red", "counted_byte"], ["mask_raw"]),
        ]
    )
    rewrite_network(directory, "segmenter", proto)
    return directory


def limit_s() -> float:
    return END_S + (LOADED_MACHINE_S if loaded() else 0.0)


def ends_in_time(process: subprocess.Popen[bytes], number: signal.Signals, log: Path) -> None:
    begun = time.monotonic()
    process.send_signal(number)
    process.send_signal(number)  # launch and the terminal may both send it
    assert process.wait(60) == 0, log.read_text()
    assert time.monotonic() - begun < limit_s()
    assert "Traceback" not in log.read_text()


def wait_for(log: Path, text: str, process: subprocess.Popen[bytes], ours: Client) -> None:
    ours.wait(lambda: text in log.read_text() or process.poll() is not None, f"{text!r} in the log")
    assert process.poll() is None, log.read_text()


def test_a_node_that_cannot_bring_itself_up_ends_with_status_1(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    with node_process(DOMAIN, log, "--autostart", bundle=str(tmp_path / "nowhere")) as process:
        assert process.wait(60) == 1, log.read_text()
    assert "nowhere/bundle.yaml: not found" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_a_node_that_could_not_be_configured_says_why_until_it_is(tmp_path: Path) -> None:
    log, bundle = tmp_path / "node.log", tmp_path / "toy"
    with client(DOMAIN) as ours, node_process(DOMAIN, log, "--autostart", "--stay", bundle=str(bundle)) as process:
        said = ours.listen(DiagnosticArray, "/diagnostics")
        ours.spin()

        def reason() -> str:
            entry = ours.diagnostic("lifecycle")
            return entry.message if entry and entry.level == DiagnosticStatus.ERROR else ""

        ours.wait(lambda: "toy/bundle.yaml: not found" in reason() or process.poll() is not None, "the reason")
        write_toy_bundle(bundle)
        assert change_state(ours, Transition.TRANSITION_CONFIGURE)
        said.clear()
        assert change_state(ours, Transition.TRANSITION_ACTIVATE)
        ours.wait(lambda: bool(said), "diagnostics of the active node")
        entry = ours.diagnostic("lifecycle")  # stays, for an aggregator would keep the error as a stale entry
        assert (entry.level, entry.message) == (DiagnosticStatus.OK, "active")


@pytest.mark.parametrize("flags", [[], ["--autostart"]], ids=["asked to", "by itself"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_networks_warm_up(tmp_path: Path, number: signal.Signals, flags: list[str]) -> None:
    log, bundle = tmp_path / "log", endless(tmp_path / "endless", 0)
    with client(DOMAIN) as ours, node_process(DOMAIN, log, *flags, bundle=str(bundle)) as process:
        if not flags:
            service = ours.node.create_client(ChangeState, f"{NODE}/change_state")
            assert service.wait_for_service(30)
            ours.spin()
            service.call_async(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE)))
        wait_for(log, "loaded restoration in", process, ours)
        ends_in_time(process, number, log)
    assert "loaded segmenter in" in log.read_text()  # progress was said
    assert "warmed up" not in log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_network_runs(tmp_path: Path, number: signal.Signals) -> None:
    log, bundle = tmp_path / "log", endless(tmp_path / "endless", 255)
    with client(DOMAIN) as ours, node_process(DOMAIN, log, bundle=str(bundle), **RELIABLE) as process:
        bring_up(ours.node, ours.executor, NODE)
        masks = ours.listen(Image, "/front/coop/mask_raw")
        ours.spin()
        publisher = connected(ours, Image, "/front/image_raw")
        publish_until(ours, publisher, image_message(pixels(), 1), lambda: bool(masks), "a mask")
        long = pixels()
        long[0, 0, 0] = 255
        # Whichever of them is taken first is not done for long: once others take each other's place, one is in work.
        endlessly = image_message(long, 2)
        publish_until(ours, publisher, endlessly, lambda: ours.dropped("front", "superseded") > 3, "one is in work")
        ends_in_time(process, number, log)
    assert masks[-1].header.stamp.sec == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_there_is_anything(tmp_path: Path, number: signal.Signals) -> None:
    """As soon as the process answers for signals at all, which is long before its imports are done."""
    log = tmp_path / "log"
    with node_process(DOMAIN, log) as process:
        status = Path(f"/proc/{process.pid}/status")
        caught = 0
        while not caught >> (signal.SIGTERM - 1) & 1:  # a bit per signal that has a handler
            assert process.poll() is None
            caught = int(re.search(r"SigCgt:\s+(\w+)", status.read_text())[1], 16)
        ends_in_time(process, number, log)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_until_the_very_end(tmp_path: Path, number: signal.Signals) -> None:
    """Not one of them kills a process that is already ending."""
    log = tmp_path / "log"
    with client(DOMAIN) as ours, node_process(DOMAIN, log) as process:
        assert ours.state() == "unconfigured"
        begun = time.monotonic()
        while process.poll() is None:
            process.send_signal(number)
            assert time.monotonic() - begun < limit_s()
        assert process.returncode == 0, log.read_text()


@pytest.mark.parametrize("flags", [[], ["--autostart"]], ids=["asked to", "by itself"])
def test_networks_that_never_end_to_load_are_given_up(tmp_path: Path, flags: list[str]) -> None:
    """Not loaded a second time beside the first, and in nobody's way when the process is told to end."""
    log, bundle = tmp_path / "log", endless(tmp_path / "endless", 0)
    parameters = {"bundle": str(bundle), "configure_timeout": "3.0"}
    with client(DOMAIN) as ours, node_process(DOMAIN, log, *flags, **parameters) as process:
        if flags:
            assert process.wait(60) == 1, log.read_text()
        else:
            ours.spin()
            for _ in range(2):
                assert not change_state(ours, Transition.TRANSITION_CONFIGURE)
            ends_in_time(process, signal.SIGINT, log)
    assert f"on_configure: {bundle}: not loaded within 3 s" in log.read_text()
    assert ("was given up, but is still being loaded" in log.read_text()) == (not flags)
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("parameters", "said", "state"),
    [
        ({"bundle": "/nowhere"}, "on_configure: /nowhere", "unconfigured"),
        ({"qos_overrides./front/image_raw.subscription.reliability": "none"}, "on_activate: ", "inactive"),
    ],
)
def test_a_node_that_cannot_come_up_by_itself_may_stay(
    tmp_path: Path, bundle: Path, parameters: dict[str, str], said: str, state: str
) -> None:
    """It says why and is left in the state before, for somebody to mend it."""
    log = tmp_path / "log"
    parameters = {"bundle": str(bundle), "use_sim_time": "true", **parameters}  # whose clock stands still here
    with client(DOMAIN) as ours, node_process(DOMAIN, log, "--autostart", "--stay", **parameters):
        assert ours.state() == state, log.read_text()
    assert said in log.read_text()
    assert "Traceback" not in log.read_text()


def held(process: subprocess.Popen[bytes]) -> list[float]:
    """Resident memory in MB, threads and open files of a process."""
    directory = Path(f"/proc/{process.pid}")
    resident = int(re.search(r"VmRSS:\s+(\d+)", (directory / "status").read_text())[1]) / 1024
    return [resident, *(len(list((directory / kind).iterdir())) for kind in ("task", "fd"))]


@pytest.mark.parametrize("backend", ON_CPU)
def test_cleanup_gives_back_memory_threads_and_files(tmp_path: Path, backend: str) -> None:
    """The first cycles bring what libraries keep, and their caches fill and empty. Then a round holds at its least no
    more than the one before; what was kept of each cycle would be more in every round."""
    parameters = {"bundle": str(write_toy_bundle(tmp_path / "toy", 352)), "backend": backend, **RELIABLE}
    with client(DOMAIN) as ours, node_process(DOMAIN, tmp_path / "log", **parameters) as process:
        ours.spin()
        masks = ours.listen(Image, "/front/coop/mask")
        publisher = ours.node.create_publisher(Image, "/front/image_raw", 10)
        least: list[list[float]] = []
        for first in range(1, 1 + CYCLES * ROUNDS, CYCLES):
            cycles = []
            for second in range(first, first + CYCLES):
                assert change_state(ours, Transition.TRANSITION_CONFIGURE)
                assert change_state(ours, Transition.TRANSITION_ACTIVATE)
                message = image_message(pixels(second, 480, 640), second)
                publish_until(
                    ours, publisher, message, lambda s=second: masks and masks[-1].header.stamp.sec == s, "a mask"
                )
                assert change_state(ours, Transition.TRANSITION_DEACTIVATE)
                assert change_state(ours, Transition.TRANSITION_CLEANUP)
                cycles.append(held(process))
            least.append([min(kind) for kind in zip(*cycles, strict=True)])
            if len(least) > 1:
                memory, threads, files = (now - before for before, now in zip(*least[-2:], strict=True))
                if memory < ADDED_MB and threads <= 0 and files <= 0:
                    return
    pytest.fail(f"each round of {CYCLES} cycles added; MB, threads and files of each at their least: {least}")
