"""Values from outside as messages show them: short, on one line, and with nothing in them that a terminal obeys."""

from __future__ import annotations

import reprlib

LONGEST = 80
"""Characters of a value."""
LONGEST_NAME = 100
LONGEST_MESSAGE = 4000
"""Of what ends a command, which may list a recording's topics."""
_CUT = "…"


class _Short(reprlib.Repr):
    """Looks at a few elements of a few levels, so that a value is never written out to be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 3, LONGEST, LONGEST, LONGEST
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 12

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() > 4 * LONGEST:  # Python refuses to write out those of thousands of digits
            return f"a number of {x.bit_length()} bits"
        return super().repr_int(x, level)


_SHORT = _Short()


def shown(value: object, longest: int = LONGEST) -> str:
    """A value as Python writes it, its beginning where that is longer."""
    if isinstance(value, str):
        return repr(value) if len(value) <= longest else repr(value[:longest]) + _CUT
    return _cut(plain(_SHORT.repr(value), longest + 1), longest)


def plain(text: object, longest: int = 1000) -> str:
    """A text without quotes, such as a name, a path or another library's message: what cannot be printed escaped, line
    breaks spaces."""
    words = " ".join(str(text)[: longest + 1].split())
    return _cut("".join(c if c.isprintable() else repr(c)[1:-1] for c in words), longest)


def written(text: object) -> str:
    """A text, or a path, as files in UTF-8 hold it: names on a disk may have bytes that are no character, which are
    escaped."""
    return str(text).encode(errors="backslashreplace").decode()


def is_name(text: str) -> bool:
    """Whether a text can name something on a topic, in a log and in a table: it can be printed, and is no longer than
    LONGEST_NAME."""
    return text.isprintable() and len(text) <= LONGEST_NAME


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[:longest] + _CUT
