"""``wheeltap lens``."""

import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from wheeltap.cli.options import STDOUT, Output
from wheeltap.core.errors import UsageError

_OUTPUT = Output()

lens = App(name="lens", group="Ask", help_format="plaintext")


@lens.default
def _files(
    *files: Annotated[Path, Parameter(help="Recorded answers; of two files, the second is compared with the first.")],
    example: Annotated[
        bool, Parameter(help="Analyze a small example in the place of files: 20 items, two systems, five raters.")
    ] = False,
    votes: Annotated[Path | None, Parameter(help="Votes of people on the same items, in a file of their own.")] = None,
    store: Annotated[
        Path | None,
        Parameter(help="Keep what was read in this file; it is judged again without the answers: wheeltap report."),
    ] = None,
    output: Output = _OUTPUT,
) -> int:
    """What a benchmark's score leaves out: from recorded answers, without a model.

    Try it:

      wheeltap lens --example
      wheeltap lens base.jsonl rl.jsonl
      wheeltap lens samples_gsm8k.jsonl --out gsm8k/
      wheeltap lens answers.jsonl --votes votes.jsonl
    """
    from wheeltap.core.plain import terminal
    from wheeltap.report.words import wrapped
    from wheeltap.runs.stored import judge
    from wheeltap.suites.lens.runs import EXAMPLE, of_files

    if example and (files or votes is not None):
        raise UsageError("Files and the example cannot be analyzed together.", expected="wheeltap lens --example",
                         got="--example and files", do="Leave out --example, or the files.")  # fmt: skip
    if example:
        files = (EXAMPLE,)
    if not files and votes is None:
        raise UsageError("There is no file to analyze.", expected="wheeltap lens FILE [FILE]", got="none",
                         do="Give a file of recorded answers, or try: wheeltap lens --example")  # fmt: skip
    output.prepare(store)
    held = of_files(files, votes=votes)
    with tempfile.TemporaryDirectory(prefix="wheeltap-") as folder:
        place = Path(folder) / "lens.wheeltap" if store is None else store
        new = held.put(place)
        if not output.quiet and output.json != STDOUT:
            names = [path.name for path in (*files, *([] if votes is None else [votes]))]
            lines = [f"{name}: {says}." for name, says in zip(names, held.says, strict=True)]
            if store is not None:
                old = "" if new else ": it had all of them, and nothing was run"
                lines.append(f"{new} of {len(held.outcomes)} outcomes are new to the store{old}.")
            for line in (*lines, *dict.fromkeys(held.notes)):
                wrapped(terminal(), line, style="dim")
            print()
        return output.give(judge(place))
