"""The node of benchmarks/overlap.py, whose networks sleep: it serves, with steps that overlap and without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from node_harness import DOMAIN, client, connected, environment, image_message, pixels
from sensor_msgs.msg import Image

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("way", ["overlapping", "sequential"])
def test_it_serves_a_frame(way: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/support/sleeping_node.py"), "napping", "0.0", way]
    variables = {**environment(DOMAIN), "PYTHONPATH": str(ROOT / "benchmarks")}
    log = tmp_path / "log"
    with log.open("w") as file, client(DOMAIN) as ours:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=variables)
        try:
            masks = ours.listen(Image, "/napping/coop/mask")
            ours.spin()
            publisher = connected(ours, Image, "/napping/image_raw")

            def served() -> bool:
                assert process.poll() is None, log.read_text()
                publisher.publish(image_message(pixels(), 1))
                return bool(masks)

            ours.wait(served, "a mask")
        finally:
            process.kill()
            process.wait()
