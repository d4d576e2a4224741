"""Command `demo`: the main job on one recording: a real node in its own process, real DDS, scores and pictures."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from coop_perception import make_bag, topics
from coop_perception.bundle import BundleError, load_bundle
from coop_perception.evaluate_bag import EvaluationError, choose_topics, finish
from coop_perception.output_scoring import RECORDED
from coop_perception.recordings import COMPRESSED_IMAGE_TYPE, Recording, RecordingError, camera_of
from coop_perception.resources import default_bundle
from coop_perception.scoring import ScoringError

SAMPLE_ARGUMENTS = ("--condition", "fog", "--level", "2", "--rate", "10", "--frames", "120", "--seed", "7")
"""The default recording: a sample drive that no network was trained on, in fog, at a rate that two cores can follow."""

STOP_S = 5.0


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        SystemExit: with one line, when it cannot do its work or a frame is unaccounted for.
    """
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    # On this machine only, and apart from whatever else runs here.
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    try:
        bundle = load_bundle(options.bundle)
        bag = options.bag
        if bag is None:
            bag = options.out / "recording"
            make_bag.main(["--out", str(bag), "--force", *SAMPLE_ARGUMENTS])
        with Recording(bag) as recording:
            chosen = choose_topics(recording, options.topic, None, None)
            compressed = recording.topics[chosen.image].type == COMPRESSED_IMAGE_TYPE
            from coop_perception.live_evaluation import evaluate_live

            camera = camera_of(chosen.image)
            log = options.out / "node.log"
            console.print(f"node: bundle {bundle.name}, camera {camera}, log in {log}")
            with running_node(options.bundle, camera, "compressed" if compressed else "raw", log):
                evaluation = evaluate_live(recording, chosen, bundle, f"/{topics.NODE}", options.out)
        finish(evaluation, bundle, options.out)
    except (RecordingError, BundleError, ScoringError, EvaluationError, OSError) as error:
        raise SystemExit(f"demo: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--bag", type=Path, help="recording to play (default: a sample drive in fog, made anew)")
    parser.add_argument("--topic", help="its image topic (default: the only one)")
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="model bundle (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder of results (default: %(default)s)")
    return parser


@contextmanager
def running_node(bundle: Path, camera: str, transport: str, log: Path) -> Iterator[None]:
    """The perception node as a process of its own, active; stopped at the end.

    Raises:
        EvaluationError: it does not come up.
    """
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node

    from coop_perception.lifecycle_client import LifecycleError, bring_up

    image_topic = topics.of(camera, topics.IMAGE) + (topics.COMPRESSED if transport == "compressed" else "")
    parameters = {
        "bundle": str(bundle),
        "cameras": f"['{camera}']",
        "image_transport": transport,
        "status_period": "0.2",
        "fused": "false",  # for each network's own time in the summary
        # A frame may be dropped by the node, which counts it, but lost neither on the way to it nor on the way back.
        f"qos_overrides./{image_topic}.subscription.reliability": "reliable",
        f"qos_overrides./{image_topic}.subscription.history": "keep_all",
        **{f"qos_overrides./{topics.of(camera, t)}.publisher.history": "keep_all" for t in RECORDED.values()},
    }
    command = [sys.executable, "-m", "coop_perception.perception_node", "--ros-args"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
        try:
            rclpy.init()
            client = Node("demo")
            executor = SingleThreadedExecutor()
            executor.add_node(client)
            bring_up(client, executor, f"/{topics.NODE}", lambda: process.poll() is None)
            executor.shutdown()
            client.destroy_node()
            rclpy.try_shutdown()
            yield
            if process.poll() is not None:
                raise EvaluationError(f"the node ended with exit code {process.returncode} while it was played to")
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


if __name__ == "__main__":
    main()
