"""The linter: what can be wrong with claims that are well formed."""

import datetime
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple, get_args

from wheeltap.core.errors import WheeltapError
from wheeltap.runs.request import StudyRequest
from wheeltap.runs.studying import Examples, require_fractions
from wheeltap.sources.base import is_code, is_code_of_examples
from wheeltap.studies.base import Size
from wheeltap.suites.claims.ledger import Claim, Grade, Ledger, Retest, Source

OLD: Final = datetime.timedelta(days=365)  # age from which a verdict is reported
_NEW_ID: Final = re.compile(r"(\d\d)(0[1-9]|1[0-2])\.(\d{4,5})(v[1-9]\d*)?")
_FORMER_ID: Final = re.compile(r"[a-z-]+(\.[A-Z]{2})?/\d{7}(v[1-9]\d*)?")
_LIKE_ID: Final = re.compile(r"(?<![\d.])\d{4}\.\d{4,6}(?!\.?\d)")
_URL: Final = re.compile(r"https?://[\w-]+(\.[\w-]+)+(/\S*)?")
_CITING: Final[tuple[Grade, ...]] = ("grounded", "secondary", "ungrounded")
"""Grades of what was read of a work; the others are of no work."""


class Fault(NamedTuple):
    """Something wrong with a claim: where it is, and what to do, in a sentence each."""

    claim: str
    where: str
    what: str


def faults(ledger: Ledger, *, today: datetime.date | None = None) -> list[Fault]:
    """What is wrong with the claims of a ledger, claim by claim; no study is run."""
    day = today or datetime.date.today()
    twice = [one for one, count in Counter(claim.id for claim in ledger.claims).items() if count > 1]
    found = [Fault(one, "id", "Two claims have this id.") for one in twice]
    for claim in ledger.claims:
        said = (*_verdict(claim, day), *_sources(claim, day), *_cited(claim), *_retests(ledger, claim))
        found += [Fault(claim.id, *one) for one in said]
    return found


def _verdict(claim: Claim, today: datetime.date) -> Iterator[tuple[str, str]]:
    date = claim.verdict.date
    if date is None:
        yield "verdict", "The verdict has no date."
    elif date > today:
        yield "verdict", f"The verdict is of {date}, which is to come."
    elif today - date > OLD:
        yield "verdict", f"The verdict is of {date}, {(today - date).days} days ago: look for newer work, and date it."
    if not any(source.side == "against" for source in claim.sources):
        yield "sources", 'There is no source against the claim: give one, or grade = "absence" where none is known.'


def _sources(claim: Claim, today: datetime.date) -> Iterator[tuple[str, str]]:
    for number, source in enumerate(claim.sources, 1):
        where = f"source {number} ({source.arxiv or source.url or source.title or source.grade or 'empty'})"
        if source.arxiv and (why := _made_up(source, today)):
            yield where, f"This is no arXiv ID: {why}."
        if source.url and not _URL.fullmatch(source.url):
            yield where, "This is no address: it begins with https://, and has a host."
        if source.grade is None:
            yield where, f"The source has no grade: one of {', '.join(get_args(Grade))}."
        elif source.grade in _CITING and not (source.arxiv or source.url or source.title):
            yield where, f"The grade {source.grade} is of no source: give arxiv, url or title."


def _made_up(source: Source, today: datetime.date) -> str:
    """Why a text is no arXiv ID; empty where it may be one."""
    if _FORMER_ID.fullmatch(source.arxiv):
        return ""
    found = _NEW_ID.fullmatch(source.arxiv)
    if found is None:
        return "it has the form 2505.11581 or 2505.11581v1, with a month from 01 to 12"
    year, month = 2000 + int(found[1]), int(found[2])
    if not (2007, 4) <= (year, month) <= (today.year, today.month):
        return f"it would be of {year}-{month:02}"
    if len(found[3]) != (5 if year >= 2015 else 4):
        return f"those of {year} have {5 if year >= 2015 else 4} digits after the point"
    return f"it is of {year}, and the source of {source.year}" if 0 < source.year < year else ""


def _cited(claim: Claim) -> Iterator[tuple[str, str]]:
    """IDs that texts name: one that no source has is without a grade, one that is ungrounded must say so."""
    known = {source.arxiv.partition("v")[0]: source.grade for source in claim.sources}
    texts = [claim.statement, claim.scope, claim.change, claim.verdict.because]
    texts += [source.says for source in claim.sources]
    texts += [text for row in claim.scopes for text in (row.shown, row.ran, row.open)]
    whole = "\n".join(texts)
    for one in dict.fromkeys(_LIKE_ID.findall(whole)):
        if one not in known:
            yield "a text", f"{one} is among no sources, so that it has no grade."
        elif known[one] == "ungrounded" and whole.count(one) > whole.count(f"{one} [ungrounded]"):
            yield "a text", f"{one} is ungrounded, and the text does not say so: {one} [ungrounded]."


def _retests(ledger: Ledger, claim: Claim) -> Iterator[tuple[str, str]]:
    names = Counter(retest.name for retest in claim.retests)
    yield from ((f"retest {name}", "Two retests have this name.") for name, count in names.items() if count > 1)
    for retest in claim.retests:
        where = f"retest {retest.name}"
        yield from ((where, what) for what in _tested(ledger, claim, retest))
        if retest.expected is not None:
            source = retest.expected.source
            works = [one for one in claim.sources if source in (one.arxiv, one.url, one.title, one.grade)]
            if not source or not works:
                yield where, f"The expected effect is from {source or 'nowhere'}, which is none of the claim's sources."
            elif any(one.grade == "ungrounded" for one in works):
                yield where, f"The expected effect is from {source}, which is ungrounded."


def _tested(ledger: Ledger, claim: Claim, retest: Retest) -> Iterator[str]:
    """What is wrong with the study of a retest and with its rules, at either size."""
    if not retest.rules:
        yield "It names no rule of its study."
    sizes: tuple[Size, ...] = get_args(Size)
    said: dict[str, list[Size]] = {}
    for size in sizes:
        try:
            study = claim.study(retest, StudyRequest(alpha=ledger.alpha), size=size, allow_code=True)
            spec = study.spec()
            scores = {metric.key for metric in spec.metrics if metric.of_score}
            sources = [member.source for cohort in study.cast() for member in cohort.members if member.source]
            # What the run would refuse once it has its examples: read where a margin is odd, code never.
            odd = any(rule.margin >= 1.0 for rule in spec.rules if rule.metric in scores)
            if odd and not (is_code_of_examples(study.examples) or any(map(is_code, sources))):
                require_fractions(spec, Examples.of(study, sources).task.record)
        except WheeltapError as error:
            said.setdefault(error.in_line(), []).append(size)
    yield from (what if len(at) == len(sizes) else f"{at[0]}: {what}" for what, at in said.items())
