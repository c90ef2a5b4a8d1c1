"""Lines of text in the terminal: as they are (no markup, no highlighting), wrapped, never inside an interval."""

import textwrap
from typing import TYPE_CHECKING

from wheeltap.report import words

if TYPE_CHECKING:
    from rich.console import Console


def terminal() -> "Console":
    """A console on standard output; colors only where it is a terminal."""
    from rich.console import Console

    class Pipe(Console):
        """Lets a broken pipe through: rich would end the process with 1, which here means "a finding"."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Pipe(highlight=False, markup=False, emoji=False)


def paragraph(console: "Console", text: str, *, indent: int = 0) -> None:
    """Print text without its control characters, wrapped between words and never inside an interval."""
    wrapped(console, words.plain(text), indent=indent)


def heading(console: "Console", text: str) -> None:
    """Print text as ``paragraph`` does, in bold."""
    wrapped(console, words.plain(text), style="bold")


def wrapped(console: "Console", text: str, *, style: str = "", indent: int = 0, hang: int = 0) -> None:
    """Print text that has no control characters, in a style; lines after the first are indented by ``hang`` more."""
    from rich.text import Text

    pad = " " * indent
    lines = textwrap.wrap(
        words.hold(text),
        max(console.width, 40),
        initial_indent=pad,
        subsequent_indent=pad + " " * hang,
        break_on_hyphens=False,
    )
    for line in lines or [""]:
        console.print(Text(line.replace("\u00a0", " "), style=style), highlight=False, soft_wrap=True)
