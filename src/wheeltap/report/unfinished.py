"""A report on a run that is not over: it says so first, and how to go on."""

import msgspec

from wheeltap.core.report import ReportRecord

MISSING = "missing_trials"
"""Name in the provenance."""


def unfinished(record: ReportRecord, missing: int, *, again: str = "") -> ReportRecord:
    """The report with what is missing in its first line and in its provenance; as it is where nothing is.

    Args:
        record: The report on what is there.
        missing: Trials known to be wanted that have not run.
        again: The command that resumes it; empty where it is not known.
    """
    if not missing:
        return record
    trials = "trial has" if missing == 1 else "trials have"
    known = f" ({again})" if again else ""
    note = (
        f"Unfinished: at least {missing:,} {trials} not run, so what follows is not the result. Run the same command "
        f"again{known}: it resumes where it stopped."
    )
    return msgspec.structs.replace(
        record, headline=f"{note}\n{record.headline}", provenance={**record.provenance, MISSING: missing}
    )


def missing_trials(record: ReportRecord) -> int:
    """How many trials a report says are missing."""
    return int(record.provenance.get(MISSING, 0))
