"""What rviz shows of any cameras, from a configuration that shows one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from coop_perception import topics

TEMPLATE_CAMERA = "front"


def rviz_config(template: str, cameras: Sequence[str], compressed: bool) -> str:
    """An rviz configuration (YAML) with the displays of another one for each camera.

    Args:
        template: shows the topics of camera `front`.
        cameras: names; rviz's fixed frame becomes the first one's.
        compressed: read the input from `<camera>/image_raw/compressed`.
    """
    config = yaml.safe_load(template)
    manager = config["Visualization Manager"]
    displays = manager["Displays"]
    manager["Displays"] = [_display(display, camera, compressed) for camera in cameras for display in displays]
    manager["Global Options"]["Fixed Frame"] = f"{cameras[0]}_optical_frame"
    return yaml.safe_dump(config, sort_keys=False)


def _display(display: dict[str, Any], camera: str, compressed: bool) -> dict[str, Any]:
    topic = display["Topic"]["Value"].removeprefix(f"{TEMPLATE_CAMERA}/")
    suffix = topics.COMPRESSED if compressed and topic == topics.IMAGE else ""
    return {
        **display,
        "Name": f"{camera}: {display['Name']}",
        "Topic": {**display["Topic"], "Value": topics.of(camera, topic) + suffix},
    }
