"""evaluate_bag --live before it plays: which node it waits for."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from node_harness import DOMAIN, LATCHED, NODE, client
from small_recording import write_bag

from coop_perception.evaluation import live, player
from coop_perception.evaluation.evaluation import EvaluationError, NotAloneError
from coop_perception.evaluation.node_process import cpu_seconds
from coop_perception.recordings.recording import Recording
from coop_perception_msgs.msg import ModelInfo, PipelineStatus

PATIENCE_S = 3.0


@pytest.fixture
def ros(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(live, "MODEL_INFO_S", PATIENCE_S)
    rclpy.init(domain_id=DOMAIN)
    yield
    rclpy.try_shutdown()


@pytest.mark.usefixtures("ros")
def test_a_node_that_loads_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    """It answers nobody meanwhile."""
    with client(DOMAIN) as ours:
        asked, loaded = threading.Event(), threading.Event()

        def state(request: GetState.Request, response: GetState.Response) -> GetState.Response:
            asked.set()
            loaded.wait(60)
            return response

        ours.node.create_service(GetState, f"{NODE}/get_state", state)
        publisher = ours.node.create_publisher(ModelInfo, f"{NODE}/model_info", LATCHED)

        def load() -> None:
            asked.wait(60)
            loaded.wait(3 * PATIENCE_S)  # the time that loading takes
            publisher.publish(ModelInfo(bundle_name="toy"))
            loaded.set()

        loading = threading.Thread(target=load)
        loading.start()
        ours.spin()
        assert live._model_info(NODE).bundle_name == "toy"
        loading.join()
    assert "is there and busy: waiting until it has loaded" in capsys.readouterr().err


@pytest.mark.usefixtures("ros")
def test_a_node_that_nobody_configures_is_not() -> None:
    with client(DOMAIN) as ours:

        def state(request: GetState.Request, response: GetState.Response) -> GetState.Response:
            response.current_state.id = State.PRIMARY_STATE_UNCONFIGURED
            return response

        ours.node.create_service(GetState, f"{NODE}/get_state", state)
        ours.spin()
        with pytest.raises(EvaluationError, match="no node publishes /coop_perception/model_info within 3 s"):
            live._model_info(NODE)


@pytest.mark.usefixtures("ros")
def test_several_nodes_are_seen_while_one_is_waited_for(tmp_path: Path) -> None:
    """Nobody subscribes to the images: it is not waited for that until the time is over."""
    bag = write_bag(tmp_path / "bag")
    with client(DOMAIN) as ours, Recording(bag) as recording:
        for _ in range(2):
            ours.node.create_publisher(PipelineStatus, f"{NODE}/status", 1)
        ours.spin()
        with pytest.raises(NotAloneError, match="2 nodes are called /coop_perception"):
            player.play(recording, "/front/image_raw", NODE, tmp_path / "out")


def test_a_process_that_computes_shows_it() -> None:
    before = cpu_seconds(os.getpid())
    while cpu_seconds(os.getpid()) == before:
        pass
    assert cpu_seconds(2**30) == 0
