"""The layouts of rviz and Foxglove show topics and fields that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from coop_perception import topics
from coop_perception.launching.rviz import rviz_config
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


def test_rviz_shows_any_cameras_with_the_input_that_they_have() -> None:
    template = share("config/pipeline.rviz").read_text()
    config = yaml.safe_load(rviz_config(template, ["left", "rear/cam"], compressed=True))
    displays = config["Visualization Manager"]["Displays"]
    per_camera = (topics.IMAGE + topics.COMPRESSED, topics.OVERLAY, topics.RESTORED, topics.CONFIDENCE)
    expected = [topics.of(camera, topic) for camera in ("left", "rear/cam") for topic in per_camera]
    assert [display["Topic"]["Value"] for display in displays if display["Enabled"]] == expected
    assert len({display["Name"] for display in displays}) == len(displays)
    assert "front" not in yaml.safe_dump(config)

    same = yaml.safe_load(rviz_config(template, [CAMERA], compressed=False))
    names = [display.pop("Name") for display in same["Visualization Manager"]["Displays"]]
    original = yaml.safe_load(template)
    assert names == [f"{CAMERA}: {display.pop('Name')}" for display in original["Visualization Manager"]["Displays"]]
    assert same == original


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
