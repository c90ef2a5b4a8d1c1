"""Whether a report that was read from a file follows from the findings, estimates and controls that it holds.

That shows what was edited in part. What was edited throughout, or never measured, no file can show.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from wheeltap import __version__
from wheeltap.audits.base import audits, suite_answers
from wheeltap.audits.case import TOO_FEW
from wheeltap.audits.claims import CLAIM, LOSS, PAIR
from wheeltap.audits.headline import READ, at_level, headline, own_lines
from wheeltap.core.errors import FileFormatError
from wheeltap.core.records import UNCOVERED, Finding
from wheeltap.core.report import ReportRecord
from wheeltap.plans.plan import ALPHA, MARGIN, Plan
from wheeltap.report.origin import FILE, missing_trials, unfinished
from wheeltap.studies import rules
from wheeltap.studies.base import VOID

_SETTLED: Final = ("found", "excluded", "inconclusive")
_WORDS: Final = (LOSS, PAIR, CLAIM)
_REPORTED: Final = "The answer in the study's own words, as reported and not recomputed:"
_ROUNDING: Final = 1e-9
"""Relative: what a number in a file may differ from itself by."""


def read_from(record: ReportRecord, where: str) -> ReportRecord:
    """The report of a file, which says that it is one.

    Raises:
        FileFormatError: If its verdicts, or its answer, do not follow from what it holds, or it is about no model.
    """
    if not record.subjects:
        raise FileFormatError(
            "The report is about no model.", where=where, expected="subjects: one model at least", got="subjects: []",
            do="Run the command that wrote it again.",
        )  # fmt: skip
    wrong = next(_contradictions(record), "")
    answers = _answers(record)
    stated, study = record.headline, record.study
    if answers and stated not in answers:
        # The words of another version may be others; its findings are what counts. A study may have words of its own.
        stated = answers[0]
        if study is not None and not record.void:
            own = f"{_REPORTED} {' '.join(record.headline.split())}"
            study = msgspec.structs.replace(study, notes=(*study.notes, own))
        elif not wrong and record.provenance.get("wheeltap") == __version__ and _known(record):
            wrong = f"the answer {record.headline[:80]!r} where its findings say {stated[:80]!r}"
    if wrong:
        raise FileFormatError(
            "The report contradicts itself: it was edited, or damaged.",
            where=where,
            expected="verdicts and an answer that follow from its estimates and controls",
            got=wrong,
            do="Run the command that wrote it again.",
        )
    return msgspec.structs.replace(record, headline=stated, study=study, provenance={**record.provenance, FILE: where})


def _answers(record: ReportRecord) -> Sequence[str]:
    """What its first lines may be."""
    study, margin = record.study, record.provenance.get("margin", MARGIN)
    plan = Plan(
        command=record.command, subjects=record.subjects, task=record.task, audits=(),
        margin=float(margin) if isinstance(margin, int | float) and 0.0 < margin <= 1.0 else MARGIN,
        partial=record.provenance.get("partial") is True,
    )  # fmt: skip
    if study is not None:
        worse = rules.worse(study.rows, study.rules, record.task.sign)
        stated = (VOID if record.void else " ".join([rules.headline(study.rules, record.findings), *worse]),)
    else:  # that models give the same outputs is not in a report without a score
        answers = suite_answers(recorded=plan.reference.role == "recorded")
        own = own_lines(plan, record.findings, record.instruments, answers, record.sections)
        stated = tuple(
            headline(plan, record.findings, record.instruments, own=own, void=record.void, same=same)
            for same in (frozenset[str](), frozenset(subject.name for subject in record.subjects))
        )
    stated = tuple(at_level(one, _alpha(record)) for one in stated)
    missing = missing_trials(record)
    if not missing:
        return stated
    first = record.headline.partition("\n")[0]
    kept = unfinished(record, missing).headline.partition(" again")[0]
    return tuple(f"{first if first.startswith(kept) else kept}\n{one}" for one in stated)


def _known(record: ReportRecord) -> bool:
    """Whether all of its audits are installed: one that is not may have answered in words of its own."""
    return {one.code for one in record.instruments} <= {audits.get(name).code for name in audits}


def _alpha(record: ReportRecord) -> float:
    alpha = record.provenance.get("alpha", ALPHA)
    return float(alpha) if isinstance(alpha, int | float) else ALPHA


def _contradictions(record: ReportRecord) -> Iterator[str]:
    if record.void != any(control.status == "failed" for control in record.controls):
        yield f"{'a void report' if record.void else 'a result'}, where {'no' if record.void else 'a'} control failed"
    for finding in record.findings:
        if record.void and finding.status in _SETTLED and record.instrument(finding.code).asks not in READ:
            yield f"{_named(finding)}: {finding.status} in a report that is void"
        if finding.leaning and finding.status != "inconclusive":
            yield f"{_named(finding)}: {finding.status} and yet undecided"
        yield from _of_words(finding)
        yield from _of_numbers(finding, alpha=_alpha(record), among=len(record.findings))


def _of_words(finding: Finding) -> Iterator[str]:
    """Whether the verdict is the word for the status, where it is one of the usual words."""
    families = [words for words in _WORDS if finding.verdict in (words.found, words.excluded, words.leaning)]
    shipped = finding.scheme and finding.status in _SETTLED and not families
    shipped = shipped and finding.verdict not in (LOSS.undecided, TOO_FEW)
    if shipped or (families and all(words.of(finding) != finding.verdict for words in families)):
        yield f"{_named(finding)}: {finding.verdict!r} where the status is {finding.status!r}"
    if finding.verdict == LOSS.undecided and finding.status in ("found", "excluded"):
        yield f"{_named(finding)}: {finding.verdict!r} where the status is {finding.status!r}"
    if (finding.verdict == UNCOVERED) != (finding.status == "not_applicable" and finding.partly):
        yield f"{_named(finding)}: {finding.verdict!r} where {'few' if finding.partly else 'most'} weights were reached"


def _of_numbers(finding: Finding, *, alpha: float, among: int) -> Iterator[str]:
    """Whether the tested effect lies where the status says, of what is said in the words of a loss or difference."""
    families = [
        words
        for words in (LOSS, PAIR)
        if finding.verdict in (words.found, words.excluded, words.leaning, words.undecided)
    ]
    if not families or not finding.estimates or not finding.margin or finding.status not in _SETTLED:
        return
    effect = finding.estimates[0]
    if effect.value is None:
        return
    size = abs(effect.value) if " vs " in finding.subject else effect.value
    slack = _ROUNDING * max(abs(size), finding.margin)
    said = f"{_named(finding)}: {finding.status!r} with {effect} against a margin of {finding.margin:.3g}"
    if finding.status == "found" and (size < finding.margin - slack or (effect.p is not None and effect.p > alpha)):
        yield said
    if finding.status == "excluded" and size > finding.margin + slack:
        yield said
    # What passes Bonferroni's rule among all findings passes Holm's among those that were tested.
    if finding.status != "found" and size > finding.margin and effect.p is not None and effect.p * among <= alpha:
        yield said


def _named(finding: Finding) -> str:
    return f"{finding.code} {finding.title} of {finding.subject}"
