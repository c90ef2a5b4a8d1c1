"""The answer on a benchmark in a few lines: what was found of each system and pair, what was excluded, what is open."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Final, TypeVar

from wheeltap.audits.sample_sizes import SHOW, enough_for
from wheeltap.core.plain import fixed
from wheeltap.core.records import Estimate, Finding, SubjectRecord
from wheeltap.core.section import Section

_SHARES: Final = ("accuracy", "share of items", "share of people", "probability")
"""Units of numbers whose differences are said in points."""

_MOST: Final = 6
"""Undecided questions that have a line of their own; reasons for no answer, likewise."""

POWER: Final = "What would have been found"
"""Title of what planted contamination shows, which is said whatever was found."""

_NAMED: Final = 3
"""Systems that a line names before it counts the rest."""

_PAIRED: Final = 3
"""Systems up to which every pair is compared."""

ALL: Final = "all items"
"""What the findings on all tasks together are about."""

_TASKS: Final = 6
"""Tasks that a line names before it counts the rest."""

T = TypeVar("T")


def pairs_of(systems: Sequence[T]) -> Iterator[tuple[T, T]]:
    """Every pair of a few systems; of more, the first one with each of the others."""
    return ((one, two) for one, two in combinations(systems, 2) if len(systems) <= _PAIRED or one is systems[0])


def lines(subjects: Sequence[SubjectRecord], findings: Sequence[Finding], sections: Sequence[Section]) -> list[str]:
    """What was found first, then what was excluded and what is undecided; what was measured, where nothing is shown."""
    shipped = [finding for finding in findings if finding.scheme]
    if shipped:
        names = dict.fromkeys(finding.subject for finding in shipped)
        return [line for name in names for line in _lost([one for one in shipped if one.subject == name])]
    found = [_named(finding) for finding in findings if finding.status == "found"]
    less = list[str]()
    for one in findings:
        if one.status == "excluded":
            what = "a difference of more than" if " vs " in one.subject else "more than"
            first = one.because.split(". ")[0].rstrip(".").removeprefix(f"{one.subject} ")
            less.append(f"{one.subject}: {one.verdict} ({what} {_limit(one)} is excluded): {first}.")
    # What was measured is not needed for an answer where anything was found or excluded.
    measured = [f for f in findings if f.status == "measured" and (f.title == POWER or not (found or less))]
    # The sentence for a headline is of what was found: of what was not, the reason begins with it.
    still = sorted((f for f in findings if f.status == "inconclusive"), key=lambda f: f.verdict == "cannot tell")
    more = [f"Undecided: {len(still) - _MOST} more."] if len(still) > _MOST else []
    opened = [*(_open(finding) for finding in still[:_MOST]), *more]
    silent = _unanswered([f for f in findings if f.status in ("not_applicable", "error")])
    return [*found, *less, *opened, *map(_named, measured), *silent]


def _lost(rows: Sequence[Finding]) -> Iterator[str]:
    """What is lost over all items, with its verdict, and the tasks by theirs: those that lose too much come first."""
    whole, *tasks = rows
    limit = f" The margin is {_limit(whole)}." if whole.margin is not None else ""
    enough = enough_for([whole], "items") if whole.status == "inconclusive" else ""
    said = f"{whole.verdict.upper()}: {whole.brief or whole.because}{limit}{f' {enough} would tell.' if enough else ''}"
    costly = [one for one in tasks if one.status == "found"]
    if not costly or whole.status == "found":
        yield said
    for at, verdict in enumerate(dict.fromkeys(one.verdict for one in (*costly, *tasks))):
        mine = [one for one in tasks if one.verdict == verdict]
        named = [f"{one.scheme} ({amount(one.estimates[0])})" if one.estimates else one.scheme for one in mine[:_TASKS]]
        more = f" and {len(mine) - _TASKS} more" if len(mine) > _TASKS else ""
        first = at == 0 and costly and whole.status != "found"
        yield f"{verdict.upper() if first else verdict.capitalize()}: {', '.join(named)}{more}."
        if first:
            yield said


def _named(finding: Finding) -> str:
    """What was found, with the name of whom it is about, once."""
    return f"{finding.subject}: {finding.said.removeprefix(f'{finding.subject} ')}"


def _limit(finding: Finding, times: int = 1) -> str:
    """The margin, or a multiple of it."""
    limit = times * (finding.margin or 0.0)
    return f"{100 * limit:.2g} points" if _in_points(finding.estimates[:1]) else f"{limit:.2g}"


def _open(finding: Finding) -> str:
    """An undecided question with its number, and for what effects how many items would decide it.

    The number of items is that for no effect at all, and for one of twice the margin: it is not said where the interval
    shows an effect already.
    """
    # Without a test, what is undecided is so for the reason that is given.
    number = f": {amount(finding.estimates[0])}" if finding.estimates else f": {finding.because.removesuffix('.')}"
    shown = any((one.low or 0.0) > 0.0 or (one.high or 0.0) < 0.0 for one in finding.estimates[:1])
    many = "" if shown else enough_for([finding], "items")
    about = "" if many.startswith("at least") else "about "
    limits = f"{_limit(finding, 2)}, or exclude {_limit(finding)} if there is none"
    more = f"; {about}{many} {SHOW} {limits}" if many else ""
    verdict = finding.verdict[:1].upper() + finding.verdict[1:]
    return f"{verdict}: {finding.subject}, {finding.title[:1].lower()}{finding.title[1:]}{number}{more}."


def _unanswered(findings: Sequence[Finding]) -> list[str]:
    """Each reason once, with those that it is about."""
    reasons = list(dict.fromkeys(finding.because for finding in findings))
    said: list[str] = []
    for because in reasons[:_MOST]:
        same = [finding for finding in findings if finding.because == because]
        names, titles = (list(dict.fromkeys(each)) for each in zip(*((f.subject, f.title) for f in same), strict=True))
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        asked = ", ".join(f"{title[:1].lower()}{title[1:]}" for title in titles)
        said.append(f"No answer for {', '.join(names[:_NAMED])}{more} ({asked}): {because}")
    return said


def _in_points(estimates: Sequence[Estimate]) -> bool:
    return any(one.unit in _SHARES for one in estimates)


def amount(gap: Estimate) -> str:
    """A difference with its interval: in points, where it is one of shares."""
    if not _in_points([gap]) or gap.value is None:
        return str(gap)
    value, low, high = ("open" if end is None else fixed(100 * end, 1) for end in (gap.value, gap.low, gap.high))
    return f"{value} points [{low}, {high}]"
