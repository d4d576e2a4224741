"""The layouts of rviz and Foxglove show topics and fields that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from coop_perception import topics
from coop_perception.resources import share
from coop_perception_msgs.msg import CameraStatus, PipelineStatus

CAMERA = "front"
PICTURES = {topics.of(CAMERA, t) for t in (topics.IMAGE, topics.OVERLAY, topics.RESTORED, topics.CONFIDENCE)}
MASKS = {topics.of(CAMERA, t) for t in (topics.MASK, topics.MASK_RAW)}


def test_rviz_shows_the_cameras_pictures_and_offers_its_masks() -> None:
    displays = yaml.safe_load(share("config/pipeline.rviz").read_text())["Visualization Manager"]["Displays"]
    shown = {display["Topic"]["Value"] for display in displays if display["Enabled"]}
    assert shown == PICTURES
    assert {display["Topic"]["Value"] for display in displays} == PICTURES | MASKS


def panels(layout: Any) -> Iterator[str]:
    if isinstance(layout, str):
        yield layout
    else:
        yield from panels(layout["first"])
        yield from panels(layout["second"])


def test_foxglove_shows_the_same_and_the_nodes_status() -> None:
    content = json.loads(share("config/foxglove.json").read_text())
    configurations = content["configById"]
    assert sorted(panels(content["layout"])) == sorted(configurations)
    images = {c["imageMode"]["imageTopic"] for name, c in configurations.items() if name.startswith("Image!")}
    assert images == {f"/{topic}" for topic in PICTURES}
    plotted = [p["value"] for name, c in configurations.items() if name.startswith("Plot!") for p in c["paths"]]
    assert "cameras" in PipelineStatus.get_fields_and_field_types()
    for path in plotted:
        match = re.fullmatch(r'/coop_perception/status\.cameras\[:\]\{name=="front"\}\.(\w+)', path)
        assert match, path
        assert match[1] in CameraStatus.get_fields_and_field_types()
