"""What is known of a camera's conditions over time: one frame's estimate is noisy, weather is not."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coop_perception.model.conditions import Conditions

LONGEST_GAP_S = 3.0
"""What was seen before a longer gap says nothing of now."""
SUREST = 1e-3
"""Presences count as at least this far from 0 and 1: beyond, one frame would outweigh many."""
UNFAMILIAR = 0.25
"""What a frame of familiarity 0 counts against one of 1: how far a restoration is to be trusted is not all that is
known of its weather, and a change to what no restoration mends is a change, too."""


class ConditionFilter:
    """Exponential averages of one camera's conditions: presence in log-odds, strength as it is. Each frame is weighted
    by its familiarity, from UNFAMILIAR on, and by the time since the one before.

    After a change has lasted a time constant, 63 % of it has been followed, at any frame rate. Where all frames are
    equally unfamiliar they are what there is, and count as familiar ones do. The average starts anew where another
    camera's image comes, and where stamps do not advance, or by more than LONGEST_GAP_S.
    """

    def __init__(self) -> None:
        self._stamp_s = math.nan
        self._source: tuple[object, ...] | None = None
        self.began = True
        """Whether the last frame is the first that counts: what was seen before it says nothing of now."""
        self._average: Conditions | None = None
        """Of presences, their log-odds."""

    def update(
        self, frame: Conditions, stamp_s: float, source: tuple[object, ...], time_constant_s: float
    ) -> Conditions:
        """Take a frame in, and say what holds now.

        A frame with a number that is not finite changes nothing; before any other, it gives no condition, for it is no
        ground to change an image.

        Args:
            frame: as the networks say of one frame; not kept.
            stamp_s: its time in seconds, by one clock for all frames of the camera.
            source: what another camera's image differs in: height, width, and frame_id where there is one.
            time_constant_s: 0 for no filter, the frame's own conditions.

        Returns:
            All finite; presence within SUREST of the average's, familiarity that of the frames that it rests on.
        """
        passed_s = stamp_s - self._stamp_s
        self.began = not 0 < passed_s <= LONGEST_GAP_S or source != self._source
        if self.began or time_constant_s <= 0:
            self._average = None
        self._stamp_s, self._source = stamp_s, source
        if not all(np.isfinite(value).all() for value in (frame.presence, frame.strength, frame.familiarity)):
            if self._average is None:
                return Conditions(np.zeros_like(frame.presence), np.zeros_like(frame.strength), 0.0)
        elif time_constant_s <= 0:
            return frame
        elif self._average is None:
            self._average = Conditions(_log_odds(frame.presence), frame.strength.copy(), frame.familiarity)
        else:
            self._average = _towards(self._average, frame, -math.expm1(-passed_s / time_constant_s))
        average = self._average
        assert average is not None
        return Conditions(_probability(average.presence), average.strength.copy(), average.familiarity)


def _towards(average: Conditions, frame: Conditions, share: float) -> Conditions:
    """The average once `share` of what it rests on is replaced by a frame, as far as that is familiar."""
    familiarity = average.familiarity + share * (frame.familiarity - average.familiarity)
    weight = share * _counted(frame.familiarity) / _counted(familiarity)
    return Conditions(
        average.presence + np.float32(weight) * (_log_odds(frame.presence) - average.presence),
        average.strength + np.float32(weight) * (frame.strength - average.strength),
        familiarity,
    )


def _counted(familiarity: float) -> float:
    return UNFAMILIAR + (1 - UNFAMILIAR) * familiarity


def _log_odds(presence: NDArray[np.float32]) -> NDArray[np.float32]:
    sure = np.clip(presence, SUREST, 1 - SUREST)
    return np.asarray(np.log(sure / (1 - sure)), np.float32)


def _probability(log_odds: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-log_odds)), np.float32)
