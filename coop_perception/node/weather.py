"""What a batch's frames show over time, and which of them are restored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coop_perception.model.conditions import Conditions
from coop_perception.model.over_time import CameraConditions, OverTime


@dataclass(frozen=True, slots=True)
class Shown:
    """A frame whose conditions may be asked for: its stamp, its height, width and frame_id, and whether it is to be
    restored for anybody."""

    stamp_ns: int
    source: tuple[int, int, str]
    to_restore: bool


class BatchWeather:
    """Of one batch. Each frame is taken into its camera's conditions once, however often the networks are run.

    Args:
        cameras: each one's conditions so far.
        frames: of the batch, by camera.
        parameters: the node's, of which condition_time_constant and skip_when_clear are used.
    """

    def __init__(
        self, cameras: Mapping[str, CameraConditions], frames: Mapping[str, Shown], parameters: Mapping[str, Any]
    ) -> None:
        self._cameras, self._frames = cameras, frames
        self._how = OverTime(parameters["condition_time_constant"], parameters["skip_when_clear"])
        self._taken: dict[str, tuple[Conditions, bool]] = {}

    def decide(self, cameras: Sequence[str]) -> Callable[[int, Conditions], Conditions | None]:
        """For `Pipeline.run` with these cameras' frames: what restoration of each is conditioned on."""

        def decided(index: int, estimate: Conditions) -> Conditions | None:
            now, restore = self._take(cameras[index], estimate)
            return now if restore and self._frames[cameras[index]].to_restore else None

        return decided

    def over_time(self, camera: str, estimate: Conditions | None) -> Conditions | None:
        """What holds at a camera's frame, once the networks have been run; None where nothing was estimated.

        Args:
            camera: its name.
            estimate: the frame's own, where it was asked for.
        """
        if estimate is not None:
            self._take(camera, estimate)
        return self._taken[camera][0] if camera in self._taken else None

    def _take(self, camera: str, estimate: Conditions) -> tuple[Conditions, bool]:
        if camera not in self._taken:
            frame = self._frames[camera]
            self._taken[camera] = self._cameras[camera].take(estimate, frame.stamp_ns, frame.source, self._how)
        return self._taken[camera]
