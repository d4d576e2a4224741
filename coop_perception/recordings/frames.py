"""Messages of a recording that belong to one frame: image, calibration, references and outputs share a header stamp."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

from coop_perception.recordings.recording import MOST_WAITING, Message, Recording, RecordingError

LATEST_NS = 2_000_000_000
"""How much later than a frame's first message, in log time, its others may come."""

EARLIEST_NS, NEWEST_NS = -(2**31) * 10**9, 2**31 * 10**9 - 1
"""Stamps that a header can have, nanoseconds below a second."""

_STAMP = {True: struct.Struct("<iI"), False: struct.Struct(">iI")}
_STAMP_OFFSET = 4  # behind the CDR encapsulation header


def header_stamp(raw: bytes) -> int:
    """Stamp, in ns, of a serialised (CDR) message that begins with a std_msgs/Header."""
    seconds, nanoseconds = _STAMP[raw[1] & 1 == 1].unpack_from(raw, _STAMP_OFFSET)
    return int(seconds) * 10**9 + int(nanoseconds)


def with_header_stamp(raw: bytes, stamp_ns: int) -> bytes:
    """The same serialised message with another header stamp."""
    copy = bytearray(raw)
    _STAMP[raw[1] & 1 == 1].pack_into(copy, _STAMP_OFFSET, *divmod(stamp_ns, 10**9))
    return bytes(copy)


def frames(recording: Recording, topics: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Message]]]:
    """Groups of messages with equal header stamps, as (stamp in ns, message by topic), in order of arrival.

    A topic that has no message with a frame's stamp is missing from its group, as it is where more than MOST_WAITING
    bytes of others came before it.

    Raises:
        RecordingError: after the last frame that can be read, when the recording is damaged.
    """
    waiting: dict[int, dict[str, Message]] = {}
    held = 0  # bytes of those
    messages = recording.messages(topics)
    damage: RecordingError | None = None
    while True:
        try:
            message = next(messages)
        except StopIteration:
            break
        except RecordingError as error:
            damage = error
            break
        stamp = header_stamp(message.raw)
        if message.topic in waiting.get(stamp, {}):
            held -= sum(len(m.raw) for m in waiting[stamp].values())
            yield stamp, waiting.pop(stamp)  # a stamp that repeats (unset, say) makes another frame, and loses none
        waiting.setdefault(stamp, {})[message.topic] = message
        held += len(message.raw)
        while waiting:
            stamp, group = next(iter(waiting.items()))
            first = min(m.stamp_ns for m in group.values())
            if len(group) < len(topics) and message.stamp_ns - first < LATEST_NS and held <= MOST_WAITING:
                break
            held -= sum(len(m.raw) for m in group.values())
            yield stamp, waiting.pop(stamp)
    yield from waiting.items()
    if damage is not None:
        raise damage
