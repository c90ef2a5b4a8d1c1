"""Lines of text in the terminal: as they are (no markup, no highlighting), wrapped, never inside an interval."""

import sys
import textwrap
from typing import TYPE_CHECKING

from wheeltap.core.plain import readable
from wheeltap.report import words

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment


def terminal(*, errors: bool = False, file: "TextIO | None" = None, width: int | None = None) -> "Console":
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
    return Terminal(file=getattr(under, "under", under), width=width, highlight=False, markup=False, emoji=False)


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
