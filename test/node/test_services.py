"""Bundles and stages exchanged while frames flow."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from node_harness import (
    DEADLINE,
    DOMAIN,
    LATCHED,
    NODE,
    Client,
    change_state,
    client,
    connected,
    image_message,
    loaded,
    node_process,
    pixels,
    publish_until,
    set_parameters,
    settle,
)
from rcl_interfaces.srv import GetParameters
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from test_documents import BOMB
from toy_bundle import HEIGHT, WIDTH, edit_manifest, never_ending, rewrite_network, write_toy_bundle

from coop_perception.images import decode, to_mask
from coop_perception.model.bundle import MANIFEST
from coop_perception_msgs.msg import ImageCondition, ModelInfo
from coop_perception_msgs.srv import LoadBundle, SetStages

SWITCHES = 60
PENDING = 50
"""Masks while a bundle is loaded; about a second's."""
GAP, GAP_LOADED = 5, 25
"""The most frames from the old bundle's last mask to the new one's first, and where the machine has other work."""


def load(ours: Client, path: object) -> LoadBundle.Response:
    return ours.call(LoadBundle, f"{NODE}/load_bundle", LoadBundle.Request(path=str(path)))


def set_stages(ours: Client, refinement: bool, restoration: bool) -> SetStages.Response:
    return ours.call(SetStages, f"{NODE}/set_stages", SetStages.Request(refinement=refinement, restoration=restoration))


def parameter(ours: Client, name: str) -> object:
    (value,) = ours.call(GetParameters, f"{NODE}/get_parameters", GetParameters.Request(names=[name])).values
    return value.string_value or value.bool_value


class Held:
    """A file that whoever opens it waits for, until it is let go (a lease of fcntl's)."""

    def __init__(self, path: Path) -> None:
        signal.signal(signal.SIGIO, lambda *_: None)  # which tells of the first to wait
        self._file = os.open(path, os.O_RDWR)
        fcntl.fcntl(self._file, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    def is_read(self) -> bool:
        """Whether somebody waits."""
        return fcntl.fcntl(self._file, fcntl.F_GETLEASE) != fcntl.F_WRLCK

    def let_go(self) -> None:
        fcntl.fcntl(self._file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        os.close(self._file)


@contextmanager
def flowing(publisher: Publisher, image: np.ndarray) -> Iterator[Callable[[], int]]:
    """Frames of one image, with the seconds 1, 2, ... as stamps; gives what tells the newest."""
    newest, stop = [0], threading.Event()

    def run() -> None:
        while not stop.wait(0.02):
            newest[0] += 1
            publisher.publish(image_message(image, newest[0]))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield lambda: newest[0]
    finally:
        stop.set()
        thread.join()


def test_a_bundle_is_exchanged_while_frames_flow(active: Callable[..., Client], tmp_path: Path, bundle: Path) -> None:
    ours = active()
    infos = ours.listen(ModelInfo, f"{NODE}/model_info", LATCHED)
    masks = ours.listen(Image, "/front/coop/mask")
    image = pixels(0, 2 * HEIGHT, 2 * WIDTH)
    fine = write_toy_bundle(tmp_path / "fine", 2 * HEIGHT)
    edit_manifest(fine, name="fine")
    manifest = Held(fine / MANIFEST)
    broken = write_toy_bundle(tmp_path / "broken")
    (broken / "restoration.onnx").write_bytes(b"nothing")
    publisher = connected(ours, Image, "/front/image_raw")
    with flowing(publisher, image) as newest, ThreadPoolExecutor(1) as asking:

        def served(frames: int, what: str) -> None:
            """So many masks of frames that are sent from now on."""
            first = newest() + 1

            def count() -> int:
                return sum(mask.header.stamp.sec >= first for mask in masks[-frames:])

            ours.wait(lambda: count() >= frames, what)

        served(1, "a mask")
        coarse = to_mask(masks[-1])
        assert (coarse != image[..., 1]).any()
        for path, says in ((tmp_path, "bundle.yaml: not found"), (broken, "restoration.onnx: altered")):
            answer = load(ours, path)
            assert not answer.success
            assert says in answer.message
            served(1, "a mask after a bundle was refused")
            np.testing.assert_array_equal(to_mask(masks[-1]), coarse)
        assert parameter(ours, "bundle") == str(bundle)
        asked = asking.submit(load, ours, fine)
        ours.wait(manifest.is_read, "the new bundle is being loaded")
        served(PENDING, "masks while the new bundle is loaded")
        np.testing.assert_array_equal(to_mask(masks[-1]), coarse)
        assert not asked.done()
        manifest.let_go()
        answer = asked.result()
        assert (answer.success, answer.message) == (True, "bundle fine is in use")
        served(5, "masks of the new bundle")  # of which the first may have been in work when the answer came
        assert parameter(ours, "bundle") == str(fine)
    exchanged = next(i for i, mask in enumerate(masks) if (to_mask(mask) == image[..., 1]).all())  # at its resolution
    assert all((to_mask(mask) == image[..., 1]).all() for mask in masks[exchanged:])
    seconds = [mask.header.stamp.sec for mask in masks]
    assert seconds == sorted(set(seconds))
    assert seconds[exchanged] - seconds[exchanged - 1] <= (GAP_LOADED if loaded() else GAP)
    ours.wait(lambda: infos[-1].bundle_name == "fine", "model info anew")
    assert {d.reason for d in ours.status("front").dropped} <= {"superseded", "unwatched"}
    # It stays where the node is configured anew.
    assert change_state(ours, Transition.TRANSITION_DEACTIVATE)
    assert change_state(ours, Transition.TRANSITION_CLEANUP)
    assert change_state(ours, Transition.TRANSITION_CONFIGURE)
    ours.wait(lambda: len(infos) > 2 and infos[-1].bundle_name == "fine", "model info of the new configuration")


def test_a_bundle_that_cannot_be_described_is_not_used(
    active: Callable[..., Client], tmp_path: Path, bundle: Path
) -> None:
    """Its path is no text that a topic can carry; that comes out when everything else has been done."""
    ours = active()
    infos = ours.listen(ModelInfo, f"{NODE}/model_info", LATCHED)
    masks = ours.listen(Image, "/front/coop/mask")
    fine = write_toy_bundle(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")), 2 * HEIGHT)
    (tmp_path / "link").symlink_to(fine)
    answer = load(ours, tmp_path / "link")
    assert not answer.success
    assert "UnicodeEncodeError" in answer.message
    publisher, image = connected(ours, Image, "/front/image_raw"), pixels()
    publish_until(ours, publisher, image_message(image, 1), lambda: bool(masks), "a mask")
    np.testing.assert_array_equal(to_mask(masks[-1]), image[..., 1])
    assert parameter(ours, "bundle") == str(bundle)
    assert {info.bundle_name for info in infos} == {"toy"}
    assert {info.input_height for info in infos} == {HEIGHT}


@pytest.mark.parametrize(
    ("text", "says"),
    [('name: "\\ud800"', "half of a surrogate pair"), (BOMB + "name: *a12", "its aliases written out")],
)
def test_a_bundle_whose_manifest_attacks_is_refused_while_frames_flow(
    active: Callable[..., Client], tmp_path: Path, text: str, says: str
) -> None:
    ours = active()
    masks = ours.listen(Image, "/front/coop/mask")
    attacking = write_toy_bundle(tmp_path / "attacking")
    manifest = attacking / MANIFEST
    manifest.write_text(manifest.read_text().replace("name: toy", text))
    with flowing(connected(ours, Image, "/front/image_raw"), pixels()) as newest:
        answer = load(ours, attacking)
        first = newest() + 1
        assert not answer.success
        assert says in answer.message
        ours.wait(lambda: bool(masks) and masks[-1].header.stamp.sec >= first, "a mask after it")


def test_a_bundle_that_never_ends_to_load_is_refused_in_time(active: Callable[..., Client], tmp_path: Path) -> None:
    """Neither frames nor the next bundle wait for it."""
    ours = active(load_timeout="15.0", backend="onnxruntime")
    masks = ours.listen(Image, "/front/coop/mask")
    endless, fine = write_toy_bundle(tmp_path / "endless"), write_toy_bundle(tmp_path / "fine", 2 * HEIGHT)
    rewrite_network(endless, "restoration", never_ending())
    with flowing(connected(ours, Image, "/front/image_raw"), pixels()) as newest:
        answer = load(ours, endless)
        first = newest() + 1
        assert not answer.success
        assert f"{endless}: not loaded within 15 s" in answer.message
        ours.wait(lambda: bool(masks) and masks[-1].header.stamp.sec >= first, "a mask after it")
        assert set_parameters(ours, load_timeout=60.0) == ""
        assert load(ours, fine).success


def test_many_bundles_at_once_are_all_answered(active: Callable[..., Client], tmp_path: Path) -> None:
    ours = active(backend="onnxruntime")
    fine = write_toy_bundle(tmp_path / "fine", 2 * HEIGHT)
    deep = QoSProfile(depth=100)
    service = ours.node.create_client(LoadBundle, f"{NODE}/load_bundle", qos_profile=deep)
    assert service.wait_for_service(DEADLINE)
    answers = [service.call_async(LoadBundle.Request(path=str(fine))) for _ in range(60)]
    ours.wait(lambda: all(answer.done() for answer in answers), "60 answers")
    done = [answer.result().success for answer in answers]
    assert any(done)
    refused = [answer.result().message for answer in answers if not answer.result().success]
    assert all("is being loaded; ask again" in message for message in refused)
    assert parameter(ours, "bundle") == str(fine)


def test_bundles_are_loaded_from_the_operators_folders_only(active: Callable[..., Client], tmp_path: Path) -> None:
    inside, outside = tmp_path / "roots", write_toy_bundle(tmp_path / "elsewhere/toy")
    allowed = write_toy_bundle(inside / "toy")
    (inside / "linked").symlink_to(outside)
    manifest_linked = inside / "manifest_linked"
    manifest_linked.mkdir()
    (manifest_linked / MANIFEST).symlink_to(outside / MANIFEST)
    ours = active(bundle_roots=f"[{inside}]", backend="onnxruntime")
    started_with = parameter(ours, "bundle")
    for path in (outside, inside / "linked", manifest_linked, inside / "../elsewhere/toy", ""):
        answer = load(ours, path)
        assert not answer.success
        assert f"is in none of the folders that bundles are loaded from ({inside})" in answer.message
    for path in (allowed, started_with):
        assert load(ours, path).success
    assert "read-only" in set_parameters(ours, bundle_roots=["/"])


def test_a_bundle_is_not_exchanged_where_there_is_none(bundle: Path, tmp_path: Path) -> None:
    with client(DOMAIN) as ours, node_process(DOMAIN, tmp_path / "log", bundle=str(bundle)):
        ours.spin()
        answer = load(ours, bundle)
        assert not answer.success
        assert "not configured" in answer.message


@pytest.mark.parametrize("by_service", [True, False])
def test_stages_are_switched_while_frames_flow(active: Callable[..., Client], by_service: bool) -> None:
    ours = active()
    names = ("mask", "mask_raw", "confidence", "image_restored")
    outputs = {name: ours.listen(Image, f"/front/coop/{name}") for name in names}
    conditions = ours.listen(ImageCondition, "/front/coop/condition")
    publisher = connected(ours, Image, "/front/image_raw")
    image = pixels()
    image[:, : WIDTH // 2, 0] = 200  # fog, and restored

    def switch(refinement: bool, restoration: bool) -> None:
        if by_service:
            answer = set_stages(ours, refinement, restoration)
            assert answer.success
            words = {True: "on", False: "off"}
            in_vain = ", but without effect while refinement is off" if restoration and not refinement else ""
            assert answer.message == f"refinement {words[refinement]}, restoration {words[restoration]}{in_vain}"
            assert parameter(ours, "refinement") is refinement
        else:
            assert set_parameters(ours, refinement=refinement, restoration=restoration) == ""

        def said() -> bool:
            status = ours.received[f"{NODE}/status"][-1:]
            return [(s.refinement, s.restoration) for s in status] == [(refinement, restoration)]

        ours.wait(said, "the status says so")

    def frame(second: int, *expected: str) -> None:
        """All of these are published, and once they are, nothing else has been."""

        def published() -> set[str]:
            return {name for name, messages in outputs.items() if any(m.header.stamp.sec == second for m in messages)}

        publish_until(
            ours, publisher, image_message(image, second), lambda: published() >= set(expected), "expected outputs"
        )
        assert published() == set(expected)
        assert ("confidence" in expected) or not any(m.header.stamp.sec == second for m in conditions)
        np.testing.assert_array_equal(to_mask(outputs["mask_raw"][-1]), image[..., 0])

    publish_until(ours, publisher, image_message(image, 1), lambda: all((*outputs.values(), conditions)), "all outputs")

    def stages() -> list[str]:
        status = ours.status("front")
        return [stage.name for stage in status.stages] if status else []

    in_order = ["decode", "segmenter", "refinement", "restoration", "publish"]
    ours.wait(lambda: stages() == in_order, "where the time goes")
    np.testing.assert_array_equal(to_mask(outputs["mask"][-1]), image[..., 1])
    np.testing.assert_array_equal(decode(outputs["image_restored"][-1]), 255 - image)
    switch(False, True)
    frame(2, "mask", "mask_raw")  # nobody says what there is to restore
    np.testing.assert_array_equal(to_mask(outputs["mask"][-1]), image[..., 0])
    switch(False, False)
    frame(3, "mask", "mask_raw")
    switch(True, False)
    frame(4, "mask", "mask_raw", "confidence")
    np.testing.assert_array_equal(to_mask(outputs["mask"][-1]), image[..., 1])
    switch(True, True)
    frame(5, *names)


def test_no_frame_has_a_mixture_of_stages(active: Callable[..., Client]) -> None:
    """Both are switched at once, over and over: a frame has the outputs of both, or of neither."""
    names = ("confidence", "image_restored")
    deep = {f"qos_overrides./front/coop/{name}.publisher.depth": "1000" for name in names}  # none is lost
    ours = active(**deep)
    outputs = {name: ours.listen(Image, f"/front/coop/{name}", QoSProfile(depth=1000)) for name in names}
    publisher = connected(ours, Image, "/front/image_raw")
    publish_until(ours, publisher, image_message(pixels(), 0), lambda: all(outputs.values()), "both outputs")
    service = ours.node.create_client(SetStages, f"{NODE}/set_stages")
    assert service.wait_for_service(DEADLINE)
    with flowing(publisher, pixels()):
        for on in (False, True) * SWITCHES:
            answer = service.call_async(SetStages.Request(refinement=on, restoration=on))
            ours.wait(answer.done, "an answer")
            assert answer.result().success
    settle(ours, "front")
    ours.wait(lambda: len({messages[-1].header.stamp.sec for messages in outputs.values()}) == 1, "the last of both")
    of_both = [{message.header.stamp.sec for message in messages} for messages in outputs.values()]
    assert of_both[0] == of_both[1]
    assert len(of_both[0]) > SWITCHES / 2, "hardly a frame had them"
    assert ours.dropped("front", "unwatched"), "none had neither"
