"""The perception node as a process of its own, for an evaluation that brings its node along."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from coop_perception import topics
from coop_perception.evaluation.evaluation import EvaluationError, NotAloneError
from coop_perception.evaluation.node_outputs import RECORDED
from coop_perception.ros.initialising import initialise
from coop_perception.ros.lifecycle_client import LifecycleError, bring_up

STOP_S = 5.0
DISCOVERY_S = 1.0
"""How long a node that runs already may take to be seen."""


@contextmanager
def running_node(bundle: Path, camera: str, transport: str, log: Path) -> Iterator[None]:
    """The perception node as a process of its own, active; stopped at the end.

    Raises:
        EvaluationError: it does not come up, or another node of its name is there.
    """
    image_topic = topics.of(camera, topics.IMAGE) + (topics.COMPRESSED if transport == "compressed" else "")
    parameters = {
        "bundle": json.dumps(str(bundle), ensure_ascii=False),  # YAML: `#` and the like are its own without quotes
        "cameras": f"['{camera}']",
        "image_transport": transport,
        "status_period": "0.2",
        # A frame may be dropped by the node, which counts it, but lost neither on the way to it nor on the way back.
        f"qos_overrides./{image_topic}.subscription.reliability": "reliable",
        f"qos_overrides./{image_topic}.subscription.history": "keep_all",
        **{f"qos_overrides./{topics.of(camera, t)}.publisher.history": "keep_all" for t in RECORDED.values()},
    }
    command = [sys.executable, "-m", "coop_perception.commands.perception_node", "--ros-args"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    log.parent.mkdir(parents=True, exist_ok=True)
    initialise(signal_handler_options=SignalHandlerOptions.NO)
    client = Node("demo")
    try:
        _check_alone(client)
    finally:
        client.destroy_node()
        rclpy.try_shutdown()
    with (
        log.open("a") as file,
        # A session of its own: Ctrl-C is for this process, which then stops the node.
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True) as process,
    ):
        try:
            initialise(signal_handler_options=SignalHandlerOptions.NO)
            client = Node("demo")
            executor = SingleThreadedExecutor()
            executor.add_node(client)

            def alive() -> bool:
                _check_count(client, own=1)
                return process.poll() is None

            try:
                bring_up(client, executor, f"/{topics.NODE}", alive, work=lambda: cpu_seconds(process.pid))
            except LifecycleError:
                _check_alone(client, own=1)  # on a busy machine another may not have been seen before
                raise
            executor.shutdown()
            client.destroy_node()
            rclpy.try_shutdown()
            yield
            if process.poll() is not None:
                raise EvaluationError(f"the node ended with exit code {process.returncode} while it was played to")
        except NotAloneError:
            raise  # our node's log knows nothing of it
        except (LifecycleError, EvaluationError) as error:
            end = (log.read_text().strip().splitlines() or ["it printed nothing"])[-1]
            raise EvaluationError(f"{error}; the end of {log}: {end}") from error
        finally:
            rclpy.try_shutdown()
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def cpu_seconds(process: int) -> int:
    """How long a process has computed, in whole seconds: one that loads networks does so however busy the machine is,
    and one that hangs does not. 0 where the system does not tell."""
    try:
        # Behind the name, which may hold anything, the 12th and 13th field: in user mode and in the kernel.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) // os.sysconf("SC_CLK_TCK")


def _check_alone(client: Node, own: int = 0) -> None:
    """Another node of the same name would answer what is meant for ours, of which there are `own`."""
    deadline = time.monotonic() + DISCOVERY_S
    while time.monotonic() < deadline:
        _check_count(client, own)
        time.sleep(0.05)


def _check_count(client: Node, own: int) -> None:
    if client.get_node_names_and_namespaces().count((topics.NODE, "/")) > own:
        raise NotAloneError(2, f"/{topics.NODE}")
