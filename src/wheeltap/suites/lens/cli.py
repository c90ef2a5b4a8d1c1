"""``wheeltap lens``."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from wheeltap.cli.telling import STDOUT, Telling

if TYPE_CHECKING:
    from wheeltap.suites.lens.recorded import Recording
    from wheeltap.suites.lens.runs import Imported

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
    from wheeltap.core.errors import DataError, UsageError
    from wheeltap.report.lines import terminal, wrapped
    from wheeltap.runs.stored import judge
    from wheeltap.suites.lens.recorded import read
    from wheeltap.suites.lens.runs import imported

    if not files and votes is None:
        raise UsageError("There is no file to look at.", expected="wheeltap lens FILE [FILE]", got="none")
    telling.prepare()
    telling.require_apart(store)
    several = (*files, *([] if votes is None else [votes]))
    recordings = [read(path) for path in several]
    try:
        held = imported(recordings if votes is None else _apart(recordings, votes))
    except DataError as error:
        raise error if error.where else error.at(", ".join(map(str, several))) from error
    with tempfile.TemporaryDirectory(prefix="wheeltap-") as passing:
        kept = Path(passing) / "lens.wheeltap" if store is None else store
        new = held.put(kept)
        if not telling.quiet and telling.json != STDOUT:
            for line in _read(several, held, None if store is None else new):
                wrapped(terminal(), line, style="dim")
            print()
        return telling.tell(judge(kept))


def _apart(recordings: Sequence["Recording"], votes: Path) -> list["Recording"]:
    """The same with the votes of the last file alone, and nobody's answers of it: it is no competitor.

    Raises:
        DataError: If it has none.
    """
    from wheeltap.core.errors import DataError

    *answers, people = recordings
    if people.votes is None:
        raise DataError(
            "There are no votes in this file.",
            where=str(votes),
            expected="how many people chose each label, item by item",
            got=people.says,
            do="Name a file of answers without --votes; see docs/lens.md for what a file of votes looks like.",
        )
    note = f"Votes are those of {votes.name}: others are left out."
    kept = [replace(one, votes=None, notes=(*one.notes, note) if one.votes is not None else one.notes)
            for one in answers]  # fmt: skip
    return [*kept, replace(people, systems=(), labels=())]


def _read(files: Sequence[Path], held: "Imported", new: int | None) -> list[str]:
    """What was read, a line a file, and what was left out; what of it is new to a store that is kept."""
    lines = [f"{file.name}: {says}." for file, says in zip(files, held.says, strict=True)]
    if new is not None:
        lines.append(f"{new} of {len(held.outcomes)} outcomes are new to the store"
                     f"{'' if new else ': it had all of them, and nothing was run'}.")  # fmt: skip
    return [*lines, *dict.fromkeys(held.notes)]
