"""What restoration of a camera's next frame is conditioned on: for the node and for evaluations alike."""

from __future__ import annotations

from dataclasses import dataclass

from coop_perception.model.clear_weather import needs_restoration
from coop_perception.model.condition_filter import ConditionFilter
from coop_perception.model.conditions import Conditions


@dataclass(frozen=True, slots=True)
class OverTime:
    """time_constant_s: over which conditions are filtered; 0: not. skip_when_clear: whether a frame in which nothing is
    present stays as it is."""

    time_constant_s: float = 0.5
    skip_when_clear: bool = True


DEFAULT = OverTime()


class CameraConditions:
    """One camera's conditions from frame to frame, by one bundle. Not for two threads at once."""

    def __init__(self) -> None:
        self._filter = ConditionFilter()
        self._restored = False

    def take(
        self, frame: Conditions, stamp_ns: int, source: tuple[object, ...], how: OverTime = DEFAULT
    ) -> tuple[Conditions, bool]:
        """Take the next frame in.

        Args:
            frame: its own estimate.
            stamp_ns: its header's stamp.
            source: of the image, as `ConditionFilter.update` takes it.
            how: may change from frame to frame.

        Returns:
            What holds now, and whether the frame is to be restored, conditioned on that.
        """
        now = self._filter.update(frame, stamp_ns / 1e9, source, how.time_constant_s)
        self._restored = needs_restoration(now.presence, self._restored and not self._filter.began)
        return now, self._restored or not how.skip_when_clear
