"""The gate: whether a report passes, what stands in the way, and whether a loss is shown to stay under a limit."""

import math
from collections.abc import Container, Mapping
from typing import Any, Final, SupportsFloat, final

from wheeltap.audits.case import TOO_FEW
from wheeltap.audits.headline import percent
from wheeltap.audits.schemes import scheme
from wheeltap.audits.slices import FEWEST, part_of, title_of
from wheeltap.core.errors import UnknownName, UsageError, WheeltapError
from wheeltap.core.records import UNCOVERED, Estimate, Finding, FindingStatus
from wheeltap.core.report import FailOn, ReportRecord
from wheeltap.core.settings import checked
from wheeltap.report import words
from wheeltap.report.origin import FILE, missing_trials
from wheeltap.stats.draws import NINE_OF_TEN

PASSED, FAILED, NO_RESULT, VOID = 0, 1, 2, 3
"""Exit codes: nothing stands in the way; a verdict does; there is no result to go by; a control failed."""

MEASURED: Final[tuple[FindingStatus, ...]] = ("found", "excluded", "inconclusive", "measured")
"""Statuses of findings whose numbers count."""


@final
class GateError(WheeltapError, AssertionError):
    """A report that does not pass, or a loss that is not shown to stay under its limit; with Markdown, in a test."""

    exit_code = FAILED
    markdown: str = ""


def require_measured(record: ReportRecord) -> None:
    """Check that the report comes from a run or a store: a JSON file can be edited, so it must not decide anything.

    Raises:
        UsageError: If it was loaded from a JSON file.
    """
    if FILE in record.provenance:
        raise UsageError(
            "A report file decides nothing: its verdicts can be edited.",
            where=words.plain(str(record.provenance[FILE])),
            expected="a report of this run, or of a store that your key signs",
            got="a report loaded from a JSON file",
            do="Judge the store instead: wheeltap report STORE, or wheeltap.judge(STORE).",
        )


@checked
def failing(record: ReportRecord, fail_on: FailOn) -> tuple[Finding, ...]:
    """Return the findings that fail, in the order of the report.

    Args:
        record: The report.
        fail_on: The mildest verdict that fails. With ``undecided``, a finding without a verdict fails only where no
            finding has one; ``cannot-tell`` fails each of them.
    """
    if fail_on == "undecided":
        has_verdict = any(finding.status in ("found", "excluded") for finding in _asked(record))
        fail_on = "may-cost" if has_verdict else "cannot-tell"
    return tuple(finding for finding in record.findings if fails(finding, fail_on))


def fails(finding: Finding, fail_on: FailOn) -> bool:
    """Return whether one finding fails by itself: see ``failing``."""
    if fail_on == "never":
        return False
    if finding.verdict == UNCOVERED:
        return False  # no result, which does not pass either
    if finding.status == "not_applicable" and finding.scheme:
        return fail_on == "cannot-tell"  # it was asked for, and there is no answer
    if finding.status == "inconclusive":
        return fail_on == "cannot-tell" or (fail_on == "may-cost" and finding.leaning)
    return finding.status == "error" or (finding.status == "found" and finding.alarm)


def uncovered(record: ReportRecord) -> tuple[Finding, ...]:
    """The findings that conclude nothing because most of the weights were left alone: they never pass."""
    return tuple(finding for finding in record.findings if finding.verdict == UNCOVERED)


def unanswered(record: ReportRecord) -> tuple[Finding, ...]:
    """Return the findings that say why there is no answer: to anything that was asked, or to anything on one test set.

    What comes with every audit of a model, its score and the census of its weights, is no answer.
    """
    sets = {one.name for one in record.task.sets}
    by_set: dict[str, list[Finding]] = {}
    for finding in _asked(record):
        part = _part(record, finding)
        by_set.setdefault(part if part in sets else "", []).append(finding)
    silent = [findings for findings in by_set.values() if all(_is_silent(record, finding) for finding in findings)]
    # A score that fails is a result: of a model at chance nothing else has an answer.
    fails_by_score = any(finding.status == "found" for finding in failing(record, "costs"))
    if len(silent) == len(by_set) and (uncovered(record) or fails_by_score):
        return ()
    return tuple(finding for findings in silent for finding in findings)


def is_unasked(record: ReportRecord, fail_on: FailOn) -> bool:
    """Return whether nothing was asked that has a verdict, although the gate wants verdicts."""
    return fail_on in ("undecided", "cannot-tell") and not _asked(record)


def _asked(record: ReportRecord) -> list[Finding]:
    """Return the findings on what was asked, without those that come with every audit or with every converted copy."""
    if any(subject.role == "recorded" for subject in record.subjects):
        return [*record.findings]
    questions = [(record.instrument(finding.code).asks, finding) for finding in record.findings]
    unasked = {"score", "census"}
    if any(question == "deployment" for question, _ in questions):
        unasked.add("file")
    return [finding for question, finding in questions if question not in unasked]


def _is_silent(record: ReportRecord, finding: Finding) -> bool:
    """Return whether a finding has no answer, or a loss is undecided on fewer examples than a slice must have."""
    if finding.status != "inconclusive":
        return finding.status in ("error", "not_applicable", "skipped")
    is_loss = record.instrument(finding.code).asks in ("deployment", "slices")
    few = is_loss and bool(finding.estimates) and finding.estimates[0].n < FEWEST
    return few or finding.verdict == TOO_FEW


@checked
def exit_code(record: ReportRecord, fail_on: FailOn) -> int:
    """What a program that acts on the report ends with, where ``fail_on`` is the mildest verdict that fails.

    2 where the run is not over; 3 where a control failed; then 0 if nothing is to fail; 2 where nothing that was asked
    has an answer, or nothing on one test set; 1 where a finding fails (of a model at chance its score does); 2 where a
    finding has no answer because too few of the weights were disturbed; else 0.

    Raises:
        UsageError: See ``require_measured``.
    """
    require_measured(record)
    if missing_trials(record):
        return NO_RESULT
    if record.void:
        return VOID
    if fail_on == "never":
        return PASSED
    if unanswered(record) or is_unasked(record, fail_on):
        return NO_RESULT
    if failing(record, fail_on):
        return FAILED
    return NO_RESULT if uncovered(record) else PASSED


@checked
def require_passed(record: ReportRecord, fail_on: FailOn) -> None:
    """Raises ``GateError`` where ``exit_code`` is not 0."""
    _require_result(record)
    if fail_on == "never":
        return
    silent = unanswered(record)
    if silent or is_unasked(record, fail_on):
        raise GateError(
            "Nothing that was asked has an answer.",
            where=", ".join(dict.fromkeys(words.plain(finding.subject) for finding in silent)) or _subjects(record),
            expected="an answer to at least one question on each test set",
            got="; ".join(dict.fromkeys(words.plain(finding.because) for finding in silent)) or "the score alone",
            do="Ask another audit, or give data that it can be asked of: wheeltap list audits.",
        )
    found = failing(record, fail_on)
    if found:
        raise GateError(
            "The report does not pass.",
            where=_subjects(record),
            expected=f"no verdict that fails (fail_on={fail_on!r})",
            got="; ".join(_in_line(finding) for finding in found),
            do="Read the report: report.print(full=True).",
        )
    _require_covered(uncovered(record))


def require_losses(record: ReportRecord, max_loss: Mapping[str, float]) -> None:
    """Raises if a scheme is not shown to cost every model of the report at most its limit, on each test set and slice.

    ``max_loss`` is from a scheme's name to its limit, in units of the measure; see ``Report.check``. Shown means that
    the upper end of the loss's interval, as tables print it, is at most the limit. With intervals of 95 % that is a
    test at a nominal one-sided level of 97.5 %. Intervals are approximate: of a share of right answers and one draw,
    where few answers change and all for the worse, the level is 93 % (counted exactly). It holds for any number of
    schemes and models at once, for all pass only if the worst one does.

    Of a random scheme it is the loss that nine draws in ten stay under, one of which is deployed.

    This is weaker than a verdict of ``safe``, which is corrected for all tests of the report and allows for rare and
    skewed losses: ``cannot tell`` may stand beside a loss that is shown here to stay under the margin. For that, give
    the limit as the ``margin`` of the audit, and check with ``fail_on="cannot-tell"``.

    Raises:
        GateError: If one is not shown, or the report has no result to go by.
        UnknownName: If the report holds no such scheme.
        UsageError: If a limit cannot be used, or none is given.

    Source: Berger (1982), "Multiparameter hypothesis testing and acceptance sampling": intersection-union tests need no
    correction.
    """
    if not isinstance(max_loss, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(
            "The largest losses cannot be used.",
            where="max_loss",
            expected='a limit for each scheme: {"int4": 0.01}',
            got=repr(max_loss)[:120],
            do="A verdict is named by itself: report.check(fail_on=...).",
        )
    limits: dict[str, float] = {}
    for name, value in max_loss.items():
        known, limit = _known(record, name), _limit(name, value, record.task.in_points)
        limits[known] = min(limit, limits.get(known, limit))  # one scheme may go by two names
    if not limits:
        raise UsageError(
            "No scheme is named.", where="max_loss", expected="a limit for each scheme", got="none", do='{"int4": 0.01}'
        )
    _require_result(record)
    open_ones = [gap for name in limits for gap in _gaps(record, name, limits)]
    if open_ones:
        rows = (row for row in record.findings if row.estimates and _limited_by(record, row, limits))
        least = min((_limited(row).level for row in rows), default=0.95)
        level = words.percent((1.0 + least) / 2.0)
        raise GateError(
            "A loss is not shown to stay under its limit.",
            where=_subjects(record),
            expected=f"the upper end of each loss's interval at most its limit (one-sided level {level})",
            got="; ".join(open_ones),
            do="More examples (or draws, of what is random) make intervals narrower; or accept a larger loss.",
        )
    _require_covered(tuple(row for row in record.findings if row.partly and _limited_by(record, row, limits)))


def _limited_by(record: ReportRecord, row: Finding, names: Container[str]) -> str:
    """Which of these names has the limit of a row: its own, or of a test set or slice its scheme's; empty for none."""
    whole = row.scheme.removesuffix(title_of("", _part(record, row)))
    return next((name for name in (row.scheme, whole) if name and name in names), "")


def _part(record: ReportRecord, row: Finding) -> str:
    """The test set or slice that a row is about; empty where it is all examples."""
    return part_of(row)[1] if record.instrument(row.code).asks == "slices" else ""


def _gaps(record: ReportRecord, name: str, limits: Mapping[str, float]) -> list[str]:
    """For each model, and each of its sets and slices, of which it is not shown that it loses at most the limit."""
    found: list[str] = []
    for subject in record.subjects:
        whose = f" of {words.plain(subject.name)}" if len(record.subjects) > 1 else ""
        mine = (row for row in record.findings if row.subject == subject.name)
        rows = [row for row in mine if _limited_by(record, row, limits) == name]
        if not any(row.scheme == name for row in rows):
            found.append(f"{name}{whose}: not measured")
        found += [f"{row.scheme}{whose}: {why}" for row in rows if (why := _not_shown(row, limits[name]))]
    return found


def _not_shown(row: Finding, limit: float) -> str:
    """Why this finding does not show that at most the limit is lost; empty where it does, or too few weights did."""
    if row.status not in MEASURED or not row.estimates:
        return "" if row.partly else f"not measured ({row.verdict or row.status.replace('_', ' ')})"
    lost = _limited(row)
    if lost.high is None:
        return f"loses {words.interval(lost)}, its interval is open"
    return f"loses {words.interval(lost)}, more than {limit:g} is not ruled out" if lost.high > limit else ""


def _limited(row: Finding) -> Estimate:
    """The loss that a limit is for: the mean over examples; where it is drawn, what nine draws in ten stay under."""
    return next((one for one in row.estimates if one.name == NINE_OF_TEN), row.estimates[0])


def _known(record: ReportRecord, name: str) -> str:
    """The scheme of the report with this name, or the one that it is another name of."""
    models = {subject.name for subject in record.subjects}  # a limit is one of a loss: a pair has none
    schemes = {row.scheme for row in record.findings if row.scheme and row.subject in models}
    if name in schemes:
        return name
    parts = {title_of("", part) for row in record.findings if (part := _part(record, row))}
    on = next((part for part in parts if name.endswith(part)), "")
    try:
        known = scheme(name.removesuffix(on)).name + on
    except UnknownName:
        known = ""
    if known in schemes:
        return known
    if not schemes:
        raise UsageError(
            "The report holds no deployment scheme.",
            where="max_loss",
            expected="an audit that asks about deployment",
            got=", ".join(sorted({row.code for row in record.findings})) or "no finding",
            do='audits=("score", "deployment"), or --for NAME',
        )
    raise UnknownName("deployment scheme in this report", name, schemes)


def _limit(name: str, value: Any, of_answers: bool) -> float:
    """In units of the measure; of right answers less than all of them: 5 was meant as points."""
    number = isinstance(value, SupportsFloat) and not isinstance(value, bool)
    if not (number and 0.0 <= float(value) < (1.0 if of_answers else math.inf)):
        raise UsageError(
            "The largest loss cannot be used.",
            where=f"max_loss of {name}",
            expected="a number of 0 or more, in units of the measure (0.01 is one point of right answers)",
            got=str(value),
            do="For five points of right answers, write 0.05.",
        )
    return float(value)


def _require_result(record: ReportRecord) -> None:
    """Raises where the report comes from a file, the run is not over, or a control failed."""
    require_measured(record)
    missing = missing_trials(record)
    if missing:
        raise GateError(
            "The run is not over, so there is no result to go by.",
            where=_subjects(record),
            got=f"at least {missing:,} trials have not run",
            do="Run the same command again: it resumes where it stopped.",
        )
    if record.void:
        failed = [words.plain(control.name) for control in record.controls if control.status == "failed"]
        raise GateError(
            "A control failed, so this run proves nothing about the model.",
            where=_subjects(record),
            expected="controls that passed",
            got=f"failed: {', '.join(failed)}",
            do="See the controls: report.print(full=True).",
        )


def _require_covered(found: tuple[Finding, ...]) -> None:
    if found:
        least = min((finding.coverage for finding in found if finding.coverage is not None), default=0.0)
        raise GateError(
            "Too few of the weights were disturbed to call anything safe.",
            where=", ".join(dict.fromkeys(words.plain(finding.subject) for finding in found)),
            expected="at least 90 % of them, biases and norms not counted",
            got=percent(least),
            do="Give partial=True (--partial) to conclude all the same.",
        )


def _subjects(record: ReportRecord) -> str:
    return ", ".join(words.plain(subject.name) for subject in record.subjects)


def _in_line(finding: Finding) -> str:
    """A finding in one line."""
    said = finding.verdict or words.status(finding.status)
    number = f" {words.interval(finding.estimates[0])}" if finding.estimates else ""
    why = f" ({words.plain(finding.because)})" if finding.status == "error" else ""
    return f"{words.plain(finding.subject)}, {words.plain(finding.title)}: {said}{number}{why}"
