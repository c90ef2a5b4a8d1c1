"""Where a report's numbers come from, where they were not measured by the run that shows them: one line each."""

from typing import Final

from wheeltap.core.report import ReportRecord
from wheeltap.report import words

UNREAD: Final = "store"
"""Name in the provenance of what in the store does not count."""

FILE: Final = "reported in"
"""Name in the provenance of the file that a report was read from."""


def origin(record: ReportRecord) -> tuple[str, ...]:
    """What was not measured now, and what was not read; empty where all was measured."""
    cost, told = record.cost, list[str]()
    if FILE in record.provenance:
        told.append(f"As reported in {words.plain(str(record.provenance[FILE]))}, not measured again.")
    elif cost.reused and all(subject.role != "recorded" for subject in record.subjects):
        told.append(
            f"{cost.reused:,} of {cost.trials + cost.reused:,} outcomes: from the store (your key), not measured now."
        )
    if UNREAD in record.provenance:
        text = str(record.provenance[UNREAD])
        told.append(words.plain(f"{text[:1].upper()}{text[1:]}."))
    return tuple(told)
