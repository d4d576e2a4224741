"""What pipeline, node and messages add to the networks' own time, to out/bench/pipeline.json.

The pipeline alone, the node and a plain node (support/plain_node.py) take turns of some seconds, each resting while the
others work. The nodes are processes of their own that subscribe to a camera's raw images; a second process, this one,
always has two frames with the node it loads. The node is compared with what the pipeline alone does before it and
after.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import rclpy
from numpy.typing import NDArray
from rich.progress import track
from sensor_msgs.msg import Image
from support.frames import street
from support.goals import Goal, report
from support.no_networks import no_networks
from support.nodes import IN_FLIGHT, Camera, Served, process

from coop_perception import topics
from coop_perception.contracts import CONTRACTS, STAGES, Bundle
from coop_perception.engines.frame_pass import outputs_of, with_engines
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.images import decode, fill_image
from coop_perception.launching.transport import profile_environment
from coop_perception.model.bundle import load_bundle
from coop_perception.model.pipeline import OUTPUTS, Pipeline
from coop_perception.resources import default_bundle, share
from coop_perception.ros.lifecycle_client import bring_up

SIZE = (640, 480)
"""Width and height of frames that networks run on."""
FULL_HD = (1080, 1920)
COPIES = 60
"""How often a frame is copied and converted."""
WANTED = ("mask", "restored")
"""What is subscribed to."""
CAMERA, PLAIN = "front", "plain"
SUPPORT = Path(__file__).parent / "support"
LOGS = Path("out/bench")

Run = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="model bundle (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="turns of everybody (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of a node's turn (default: %(default)s)")
    parser.add_argument("--starts", type=int, default=4, help="of the node (default: %(default)s)")
    options = parser.parse_args()
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ |= profile_environment(str(share("config/fastdds.xml")))  # as the launch file does
    os.environ["PYTHONPATH"] = os.pathsep.join([str(SUPPORT.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as cache:
        os.environ["COOP_PERCEPTION_CACHE"] = cache
        bundle = load_bundle(options.bundle)
        engines = load_engines(bundle, STAGES, EngineSettings(), print)  # which fills the cache
        pipeline = Pipeline(bundle, engines)
        copies, copies_measured = image_path(bundle)
        rclpy.init()
        starts, starts_measured = node_starts(bundle, options.starts)
        turns, turns_measured = take_turns(bundle, pipeline, options.rounds, options.seconds)
        rclpy.try_shutdown()
    measured = {
        "bundle": bundle.name,
        "size": SIZE,
        "backend": f"{engines['segmenter'].backend} {engines['segmenter'].precision}",
        "rmw": rclpy.get_rmw_implementation_identifier(),
        "turns": turns_measured,
        "copies": copies_measured,
        "starts": starts_measured,
    }
    report("pipeline", [*turns, *copies, *starts], measured)


def take_turns(bundle: Bundle, pipeline: Pipeline, rounds: int, seconds: float) -> tuple[list[Goal], dict[str, object]]:
    """Engines, pipeline and nodes on frames of SIZE."""
    image = street(*SIZE)
    engines = with_engines(pipeline.engines)
    given = outputs_of(bundle, image, engines)

    def networks() -> None:
        """Each on what it gets of the frame, whose views are there already."""
        for name, contract in CONTRACTS.items():
            engines(name, {key: given[key] for key in contract.inputs}, contract.outputs)

    alone: dict[str, Run] = {
        "engines": networks,
        "pipeline": lambda: pipeline.run([image], OUTPUTS),
        "pipeline, mask and restored": lambda: pipeline.run([image], WANTED),
    }
    ms: dict[str, list[float]] = {name: [] for name in alone}
    pipeline_fps: list[float] = []
    served: dict[str, list[Served]] = {CAMERA: [], PLAIN: []}

    def engines_turn() -> None:
        times = in_turns(alone, seconds)
        for name, values in times.items():
            ms[name] += values
        pipeline_fps.append(1e3 / statistics.mean(times["pipeline, mask and restored"]))

    with ExitStack() as stack:
        cameras = {name: Camera(name, image) for name in served}
        node = stack.enter_context(process(node_command(bundle), LOGS / "pipeline_node.log"))
        bring_up(cameras[CAMERA].node, cameras[CAMERA].executor, f"/{topics.NODE}", lambda: node.poll() is None)
        plain = [str(SUPPORT / "plain_node.py"), str(bundle.directory), PLAIN]
        stack.enter_context(process(plain, LOGS / "pipeline_plain_node.log"))
        for camera in cameras.values():
            camera.first_mask(every_s=5.0)
            camera.settle()
        engines_turn()
        for _ in track(range(rounds), description="pipeline"):
            for name, camera in cameras.items():
                served[name].append(camera.saturate(seconds))
                if name == CAMERA:
                    engines_turn()

    fps = {name: [turn.fps for turn in turns] for name, turns in served.items()}
    latencies = {name: [ms for turn in turns for ms in turn.latencies_ms] for name, turns in served.items()}
    p99 = {name: float(np.percentile(values, 99)) for name, values in latencies.items()}
    around = [statistics.mean(pair) for pair in pairwise(pipeline_fps)]
    goals = [
        Goal(
            "pipeline over engines, frames/s",
            statistics.median(ms["engines"]) / statistics.median(ms["pipeline"]),
            0.97,
        ),
        Goal("node over pipeline, frames/s", median_ratio(fps[CAMERA], around), 0.9),
        Goal("node over plain node, frames/s", median_ratio(fps[CAMERA], fps[PLAIN]), 3.0),
        Goal("node over plain node, p99 latency", p99[CAMERA] / p99[PLAIN], 0.5, at_most=True),
    ]
    return goals, {
        "frames_in_flight": IN_FLIGHT,
        "ms": {name: spread(values) for name, values in ms.items()},
        "pipeline_fps": rounded(pipeline_fps),
        "fps": {name: rounded(values) for name, values in fps.items()},
        "latency_ms": {
            name: dict(zip(("p50", "p95", "p99"), rounded(np.percentile(values, (50, 95, 99))), strict=True))
            for name, values in latencies.items()
        },
        "masks": {name: sum(len(turn.arrived_s) for turn in turns) for name, turns in served.items()},
        "restored": {name: sum(turn.restored for turn in turns) for name, turns in served.items()},
        "weights_of_the_plain_node": "random, of the same shapes",
    }


def image_path(bundle: Bundle) -> tuple[list[Goal], dict[str, object]]:
    """1920x1080 rgb8: message to frame, and array to message, over one copy of the frame; and what the networks' views
    of it cost."""
    height, width = FULL_HD
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    message, output, target = Image(), Image(), np.zeros_like(frame)
    fill_image(message, frame, "rgb8")
    pipeline = Pipeline(bundle, no_networks(bundle))
    result = pipeline.run([decode(message)], WANTED)[0]
    assert result.restored is not None
    restored: NDArray[np.uint8] = result.restored
    times = in_turns(
        {
            "copy of the frame": lambda: np.copyto(target, frame),
            "message to frame": lambda: decode(message),
            "array to message": lambda: fill_image(output, restored, "rgb8"),
            "message to networks": lambda: pipeline.run([decode(message)], ["restored"]),
            "message to networks, and a mask of the frame's size": lambda: pipeline.run([decode(message)], WANTED),
        },
        runs=COPIES,
    )
    copy, to_frame, to_message, to_networks, with_mask = (statistics.median(values) for values in times.values())
    goals = [
        Goal("image message to frame, in copies of the frame", to_frame / copy, 2.0, at_most=True),
        Goal("array to image message, in copies of the frame", to_message / copy, 2.0, at_most=True),
        Goal("image message to the networks' inputs, views included", to_networks / copy, None),
        Goal("... with a mask of the frame's size", with_mask / copy, None),
    ]
    return goals, {"size": [width, height], "ms": {name: spread(values) for name, values in times.items()}}


def node_starts(bundle: Bundle, count: int) -> tuple[list[Goal], dict[str, object]]:
    """From a process's start to its first mask, over imports, engines and a first frame alone; the cache is warm."""
    camera = Camera(CAMERA, street(*SIZE))
    loads, masks = [], []
    for _ in track(range(count), description="starts"):
        begun = time.monotonic()
        command = [sys.executable, str(SUPPORT / "start.py"), str(bundle.directory), *map(str, SIZE)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as load:
            assert load.stdout is not None
            if not load.stdout.readline():
                raise SystemExit(f"{command} failed")
            loads.append(time.monotonic() - begun)
        begun = time.monotonic()
        with process(node_command(bundle), LOGS / "pipeline_start.log") as node:
            bring_up(camera.node, camera.executor, f"/{topics.NODE}", lambda node=node: node.poll() is None)
            masks.append(camera.first_mask(every_s=0.02) - begun)
            camera.settle()
        camera.alone()
    goal = Goal("start to first mask over imports, engines and a frame", min(masks) / min(loads), 1.5, at_most=True)
    return [goal], {"imports_engines_frame_s": rounded(loads), "first_mask_s": rounded(masks)}


def node_command(bundle: Bundle) -> list[str]:
    # All networks for each frame, whatever it shows.
    parameters = {"bundle": bundle.directory, "cameras": f"['{CAMERA}']", "skip_when_clear": "false"}
    given = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    return ["-m", "coop_perception.commands.perception_node", "--ros-args", *given]


def in_turns(what: dict[str, Run], seconds: float = 0.0, runs: int = 0) -> dict[str, list[float]]:
    """Milliseconds of each, one after another and then the other way round, for that long or so often.

    A first time is not counted. None is always behind the same other one, whose caches and memory it finds.
    """
    ms: dict[str, list[float]] = {name: [] for name in what}
    for run in what.values():
        run()
    begun = time.monotonic()
    while time.monotonic() - begun < seconds or len(ms[next(iter(ms))]) < max(runs, 2):
        order = list(what) if len(ms[next(iter(ms))]) % 2 else list(reversed(what))
        for name in order:
            start = time.perf_counter()
            what[name]()
            ms[name].append((time.perf_counter() - start) * 1e3)
    return ms


def median_ratio(over: list[float], under: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "runs": len(values)}


def rounded(values: list[float] | NDArray[np.float64]) -> list[float]:
    return [round(float(value), 2) for value in values]


if __name__ == "__main__":
    main()
