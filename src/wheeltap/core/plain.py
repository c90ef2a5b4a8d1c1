"""What is printed: text from outside, made safe to show, and numbers, rounded in one way.

Names, paths and files that others wrote reach terminals through here.
"""

import re
import sys
import unicodedata
from typing import TYPE_CHECKING, Final, TextIO, final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment


_SINGLE: Final = 1e-7
"""What single precision may take off a number, as a share of it."""


def fixed(value: float, digits: int, *, sign: bool = False) -> str:
    """A number with so many digits after the point: halves are rounded away from zero, and nothing is -0.

    The same mean comes as .4725 from counts and as .47249999 or .47250001 from numbers of single precision: all of them
    are .473.

    Args:
        value: The number.
        digits: After the point.
        sign: Whether a plus is written.
    """
    return f"{rounded(value, digits):{'+' if sign else ''}.{digits}f}"


def rounded(value: float, digits: int) -> float:
    """The number that ``fixed`` writes."""
    return round(float(value) * (1.0 + _SINGLE), digits) + 0.0


_UNSAFE: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control, direction, surrogate and line-breaking characters."""


@final
class _Table(dict[int, str]):
    """What takes a character's place; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = made = "?" if unicodedata.category(character) in _UNSAFE else character
        return made


_LINE, _LINES = _Table({9: " ", 10: " "}), _Table({9: "\t", 10: "\n", 13: "\n"})


def plain(text: str, *, lines: bool = False) -> str:
    """``text`` without control and direction characters, which could repaint a terminal or reverse a line.

    Args:
        text: Any.
        lines: Whether it stays in several lines; else it becomes one.
    """
    return text if text.isascii() and text.isprintable() else text.translate(_LINES if lines else _LINE)


def many(count: int, noun: str) -> str:
    """So many of them: 1 item, 2 items."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


_OTHER: Final = re.compile("[^\x00-\x7e]")


def escaped(json: bytes) -> bytes:
    r"""JSON of the same value in which control and direction characters are written as ``\u``: safe in a terminal."""
    if json.isascii() and b"\x7f" not in json:
        return json

    def escape(found: re.Match[str]) -> str:
        units = found[0].encode("utf-16-be")
        safe = plain(found[0]) == found[0]
        return found[0] if safe else "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))

    return _OTHER.sub(escape, json.decode()).encode()


def readable(text: str, encoding: str | None) -> str:
    """``text`` in its lines as ``plain`` gives it, with a question mark for what an encoding lacks."""
    shown, encoding = plain(text, lines=True), encoding or "utf-8"
    return shown if shown.isascii() else shown.encode(encoding, "replace").decode(encoding)


@final
class Screen:
    """A stream of text that passes on no control or direction characters, and none that its encoding lacks.

    Args:
        under: Where the text goes.
    """

    def __init__(self, under: TextIO) -> None:
        self.under = under

    def write(self, text: str) -> int:
        """Writes text; gives its length."""
        self.under.write(readable(text, self.under.encoding))
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self.under, name)


def terminal(*, errors: bool = False, file: TextIO | None = None, width: int | None = None) -> "Console":
    """The console on which everything is printed; colors only where it is a terminal.

    What is printed on it has no markup, and passes ``plain``: escapes are rich's own.

    Args:
        errors: On standard error instead of standard output.
        file: In its place.
        width: Of its lines, where it is not the terminal's.
    """
    from rich.console import Console
    from rich.segment import Segment

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            """Lets a broken pipe through: rich would end the process with 1, which here means "a finding"."""
            raise BrokenPipeError

        def render(self, renderable: "RenderableType", options: "ConsoleOptions | None" = None) -> "Iterable[Segment]":
            """See ``Console``: without control characters."""
            for text, style, control in super().render(renderable, options):
                yield Segment(text if control else readable(text, self.encoding), style, control)

    under = file or (sys.stderr if errors else sys.stdout)
    # In a notebook, rich would display every line by itself, whatever the file is.
    return Terminal(
        file=getattr(under, "under", under),
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        force_jupyter=False,
    )
