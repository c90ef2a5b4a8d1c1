"""Where a report's numbers come from, where they were not measured by the run that shows them; what is missing."""

from typing import Final

import msgspec

from wheeltap.core.report import ReportRecord
from wheeltap.report import words

UNREAD: Final = "store"
"""Name in the provenance of what in the store does not count."""

NOT_REUSED: Final = "not reused"
"""Name in the provenance of why stored outcomes were not reused."""

FILE: Final = "reported in"
"""Name in the provenance of the file that a report was read from."""


def origin(record: ReportRecord) -> tuple[str, ...]:
    """What was not measured now, and what was not read; empty where all was measured."""
    cost, stated = record.cost, list[str]()
    if FILE in record.provenance:
        file = words.plain(str(record.provenance[FILE]))
        stated.append(f"As reported in {file}, not measured again: this file decides nothing.")
    elif cost.reused and all(subject.role != "recorded" for subject in record.subjects):
        stated.append(
            f"{cost.reused:,} of {cost.trials + cost.reused:,} results reused from the store (same weights, same data)."
        )
    if NOT_REUSED in record.provenance:
        stated.append(words.plain(str(record.provenance[NOT_REUSED])))
    if UNREAD in record.provenance:
        text = str(record.provenance[UNREAD])
        stated.append(words.plain(f"{text[:1].upper()}{text[1:]}."))
    return tuple(stated)


MISSING = "missing_trials"
"""Name in the provenance."""


def unfinished(record: ReportRecord, missing: int, *, again: str = "", shard: str = "") -> ReportRecord:
    """The report on what is there, with how many trials are missing in its first line and its provenance, if any are.

    It says what to do: ``again`` is the command that resumes it, where that is known; ``shard`` the one that was run
    alone, where one was: the others have the rest.
    """
    if not missing:
        return record
    trials = "trial has" if missing == 1 else "trials have"
    known = f" ({again})" if again else ""
    do = f"Run the same command again{known}: it resumes where it stopped."
    if shard:
        do = f"This is shard {shard} alone. Merge the stores of all: wheeltap merge --help"
    note = f"Unfinished: at least {missing:,} {trials} not run, so what follows is not the result. {do}"
    return msgspec.structs.replace(
        record, headline=f"{note}\n{record.headline}", provenance={**record.provenance, MISSING: missing}
    )


def missing_trials(record: ReportRecord) -> int:
    """How many trials a report says are missing."""
    return int(record.provenance.get(MISSING, 0))
