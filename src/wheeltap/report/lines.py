"""Lines of text in the terminal: as they are (no markup, no highlighting), wrapped, never inside an interval."""

import textwrap
from typing import TYPE_CHECKING

from wheeltap.core.plain import terminal
from wheeltap.report import words

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["terminal", "wrapped"]


def wrapped(console: "Console", text: str, *, style: str = "", indent: int = 0, hang: int = 0) -> None:
    """Print text without control characters, in a style; lines after the first are indented by ``hang`` more."""
    from rich.text import Text

    pad = " " * indent
    lines = textwrap.wrap(
        words.hold(words.plain(text)),
        max(console.width, 40),
        initial_indent=pad,
        subsequent_indent=pad + " " * hang,
        break_on_hyphens=False,
    )
    for line in lines or [""]:
        console.print(Text(line.replace("\u00a0", " "), style=style), highlight=False, soft_wrap=True)
