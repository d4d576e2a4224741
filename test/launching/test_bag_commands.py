"""What the launch files start: topics that are recorded, names under which a recording is played, the transport."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from coop_perception import topics
from coop_perception.launching.bag_commands import CAMERA_TOPICS, record_command, recorded_topics, replay, used_topics
from coop_perception.launching.transport import PROFILE_VARIABLES, default_profile, profile_environment
from coop_perception.recordings.messages import CAMERA_INFO_TYPE, COMPRESSED_IMAGE_TYPE, IMAGE_TYPE
from coop_perception.recordings.recording import RecordingError
from coop_perception.recordings.writer import RecordingWriter
from coop_perception.resources import share


def test_topics_are_recorded_by_their_whole_names() -> None:
    *rest, expression = record_command("drives/today", ["/front/image_raw", "/a.b"])
    assert rest == ["ros2", "bag", "record", "--output", "drives/today", "--regex"]
    assert re.search(expression, "/front/image_raw")
    for other in ("/front/image_raw/compressed", "/x/front/image_raw", "/axb"):
        assert not re.search(expression, other)


def test_inputs_outputs_and_what_the_node_says_of_itself_are_recorded() -> None:
    recorded = recorded_topics("left/cam")
    assert {f"/left/cam/{topic}" for topic in CAMERA_TOPICS} < set(recorded)
    assert {"/coop_perception/model_info", "/coop_perception/status", "/diagnostics"} < set(recorded)


def test_what_is_drawn_or_packed_of_it_is_not() -> None:
    others = (topics.OVERLAY, topics.RESTORED + topics.COMPRESSED, topics.CLEAN_IMAGE)
    assert not {f"/front/{topic}" for topic in others} & set(recorded_topics("front"))


def test_a_node_that_reads_no_images_is_not_recorded_yet() -> None:
    own = {"/coop_perception/status": "coop_perception_msgs/msg/PipelineStatus"}
    assert used_topics({"/front/camera_info": CAMERA_INFO_TYPE}, own) == set()
    assert "/coop_perception/status" in used_topics({"/image": IMAGE_TYPE}, own)


def write(path: Path, **types: str) -> Path:
    """A recording with one message on each topic; `__` stands for `/`."""
    with RecordingWriter(path) as writer:
        for name, kind in types.items():
            writer.write("/" + name.replace("__", "/"), np.zeros(16, np.uint8).tobytes(), kind, 1)
    return path


def play(command: list[str], bag: Path) -> tuple[set[str], dict[str, str]]:
    """Topics that are played, and their new names."""
    assert command[:4] == ["ros2", "bag", "play", str(bag)]
    _, _, listed = " ".join(command).partition(" --topics ")
    played, _, renamed = listed.partition(" --remap ")
    return set(played.split()), dict(rule.split(":=") for rule in renamed.split())


def test_a_recording_of_a_camera_is_played_as_it_is(tmp_path: Path) -> None:
    bag = write(
        tmp_path / "bag",
        front__image_raw=IMAGE_TYPE,
        front__camera_info=CAMERA_INFO_TYPE,
        front__reference__image=IMAGE_TYPE,
        front__reference__mask=IMAGE_TYPE,
        front__coop__mask=IMAGE_TYPE,
        elsewhere=IMAGE_TYPE,
    )
    replayed = replay(bag, "/front/image_raw", rate=0.5)
    played, renamed = play(replayed.command, bag)
    assert (replayed.camera, replayed.transport, replayed.depth) == ("front", "raw", False)
    assert played == {"/front/image_raw", "/front/camera_info", "/front/reference/image", "/front/reference/mask"}
    assert renamed == {}
    assert replayed.command[replayed.command.index("--rate") + 1] == "0.5"


def test_on_its_way_to_the_degrade_node_the_images_are_the_clean_ones(tmp_path: Path) -> None:
    bag = write(
        tmp_path / "bag",
        front__image_raw__compressed=COMPRESSED_IMAGE_TYPE,
        front__camera_info=CAMERA_INFO_TYPE,
        front__depth__image_raw=IMAGE_TYPE,
        front__reference__image=IMAGE_TYPE,
        front__reference__mask=IMAGE_TYPE,
    )
    replayed = replay(bag, "/front/image_raw/compressed", degraded=True)
    played, renamed = play(replayed.command, bag)
    assert (replayed.camera, replayed.transport, replayed.depth) == ("front", "compressed", True)
    assert played == {
        "/front/image_raw/compressed",
        "/front/camera_info",
        "/front/depth/image_raw",
        "/front/reference/mask",
    }
    assert renamed == {
        "/front/image_raw/compressed": "/front/clean/image_raw/compressed",
        "/front/camera_info": "/front/clean/camera_info",
    }


def test_images_of_any_name_become_a_cameras(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", picture=IMAGE_TYPE, camera_info=CAMERA_INFO_TYPE)
    replayed = replay(bag)
    assert replayed.camera == "camera"
    assert play(replayed.command, bag)[1] == {
        "/picture": "/camera/image_raw",
        "/camera_info": "/camera/camera_info",
    }
    with pytest.raises(RecordingError, match="no such recording"):
        replay(tmp_path / "nowhere")


def test_transport_profile_of_a_process() -> None:
    profile = str(share("config/fastdds.xml"))
    assert profile_environment(profile) == dict.fromkeys(PROFILE_VARIABLES, profile)
    assert profile_environment("") == profile_environment("none") == {}
    with pytest.raises(FileNotFoundError, match=r"rmw_profile: nowhere\.xml is no file"):
        profile_environment("nowhere.xml")


def test_a_profile_of_the_users_own_is_the_default() -> None:
    """Under the name of either version of Fast DDS; the newer one's wins."""
    fastrtps, fastdds = {"FASTRTPS_DEFAULT_PROFILES_FILE": "older.xml"}, {"FASTDDS_DEFAULT_PROFILES_FILE": "newer.xml"}
    assert default_profile({}) == str(share("config/fastdds.xml"))
    assert default_profile(fastrtps) == "older.xml"
    assert default_profile(fastdds) == default_profile(fastdds | fastrtps) == "newer.xml"
