"""``wheeltap lens``."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from wheeltap.cli.telling import STDOUT, Telling

if TYPE_CHECKING:
    from wheeltap.runs.recorded import Imported

_TELLING = Telling()


def lens(
    *files: Annotated[Path, Parameter(help="Recorded answers; of two files, the second is compared with the first.")],
    votes: Annotated[Path | None, Parameter(help="Votes of people on the same items, in a file of their own.")] = None,
    store: Annotated[
        Path | None,
        Parameter(help="Keep what was read in this file; it is judged again without the answers: wheeltap judge."),
    ] = None,
    telling: Telling = _TELLING,
) -> int:
    """What a benchmark's score leaves out: from recorded answers, without a model.

    Try it:

      wheeltap lens base.jsonl rl.jsonl
      wheeltap lens samples_gsm8k.jsonl --out gsm8k/
      wheeltap lens answers.jsonl --votes votes.jsonl
    """
    from wheeltap.core.errors import UsageError
    from wheeltap.report import words
    from wheeltap.report.lines import terminal, wrapped
    from wheeltap.runs.recorded import imported
    from wheeltap.runs.stored import judge
    from wheeltap.sources.recorded import read

    if not files and votes is None:
        raise UsageError("There is no file to look at.", expected="wheeltap lens FILE [FILE]", got="none")
    telling.prepare()
    telling.require_apart(store)
    several = (*files, *([] if votes is None else [votes]))
    held = imported([read(path) for path in several])
    with tempfile.TemporaryDirectory(prefix="wheeltap-") as passing:
        kept = Path(passing) / "lens.wheeltap" if store is None else store
        new = held.put(kept)
        if not telling.quiet and telling.json != STDOUT:
            for line in _read(several, held, None if store is None else new):
                wrapped(terminal(), words.plain(line), style="dim")
            print()
        return telling.tell(judge(kept))


def _read(files: Sequence[Path], held: "Imported", new: int | None) -> list[str]:
    """What was read, a line a file, and what was left out; what of it is new to a store that is kept."""
    lines = [f"{file.name}: {says}." for file, says in zip(files, held.says, strict=True)]
    if new is not None:
        lines.append(f"{new} of {len(held.outcomes)} outcomes are new to the store"
                     f"{'' if new else ': it had all of them, and nothing was run'}.")  # fmt: skip
    return [*lines, *dict.fromkeys(held.notes)]
