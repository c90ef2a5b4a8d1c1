"""One sentence on a run: what a reader should take away."""

from collections.abc import Sequence
from typing import final

from wheeltap.audits.base import pair
from wheeltap.core.records import Finding, Instrument, SubjectRecord
from wheeltap.plans.plan import Plan

_DIFFERENT = "different inside"

_LOSES = "merging the two loses score"


def headline(plan: Plan, findings: Sequence[Finding], instruments: Sequence[Instrument], *, void: bool) -> str:
    """One sentence: what a reader should take away."""
    if void:
        return "Void: a control failed, so this run proves nothing about the subject."
    kinds = _Kinds(instruments)
    if len(plan.subjects) == 1:
        return _headline_of_one(plan, findings, kinds)
    lines = [_headline_of_pair(plan, rival, findings, kinds) for rival in plan.subjects[1:]]
    # What was found first: the first line is what a reader takes away.
    return "\n".join(sorted(lines, key=lambda line: not any(words in line for words in (_DIFFERENT, _LOSES))))


@final
class _Kinds:
    """Which kind of question each finding answers."""

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self._of = {one.code: one for one in instruments}

    def asks(self, finding: Finding, *kinds: str) -> bool:
        """Whether it is one of these kinds."""
        return finding.code in self._of and self._of[finding.code].asks in kinds

    def shows(self, finding: Finding) -> bool:
        """Whether it shows something of what is inside."""
        return finding.code in self._of and self._of[finding.code].shows


def _headline_of_pair(plan: Plan, rival: SubjectRecord, findings: Sequence[Finding], kinds: _Kinds) -> str:
    name = pair(plan.reference, rival)
    mine = list({f.code: f for f in findings if f.subject == name}.values())
    score = next((f for f in mine if kinds.asks(f, "score")), None)
    # Whether weights can be averaged is no question about what is inside: copies of one function with other orders of
    # units cannot.
    merging = next((f for f in mine if kinds.asks(f, "merging")), None)
    rest = [f for f in mine if f not in (score, merging)]
    inside = [f for f in rest if f.status == "found" and f.alarm]
    settled = ("found", "not_found", "not_applicable")
    unsure = [f for f in rest if kinds.asks(f, "weights", "learning") and f.status not in settled]
    gap = f" (scores differ by {score.estimates[0]})" if score and score.estimates else ""
    # What was not measured is not called equal.
    start = {"found": "Different score, ", "not_found": "Same score, "}.get(score.status if gap and score else "", "")
    if merging is not None and not rest:
        return _headline_of_merging(f"{name}{gap}", start, merging)
    barrier = [merging] if merging is not None and merging.status == "found" else []
    if inside:
        told = " ".join(f.said for f in (*inside, *barrier))
        return f"{_upper(f'{start}{_DIFFERENT}')}: {name}{gap}. {told}"
    lost = f" But {_LOSES}. {barrier[0].said}" if barrier else ""
    if unsure:
        return f"{name}{gap}: too few trials to tell whether the insides differ.{lost}"
    if rest and all(f.status in ("not_applicable", "skipped") for f in rest):
        return f"{name}{gap}: nothing inside could be compared. {rest[0].because.rstrip('.')}.{lost}"
    if not rest:
        alone = any(not kinds.asks(f, "score") for f in findings)
        asked = "no other question compares the two, see each of them" if alone else "nothing else was asked"
        return f"{_upper(f'{start}{asked}')}: {name}{gap}."
    return f"{_upper(f'{start}no difference found inside')}: {name}{gap}.{lost}"


def _headline_of_merging(pair_and_gap: str, start: str, merging: Finding) -> str:
    """Whether two checkpoints can be merged, where nothing else was asked of what is inside them."""
    because = merging.said
    if merging.status == "found":
        return f"{_upper(f'{start}{_LOSES}')}: {pair_and_gap}. {because}"
    if merging.status == "not_found":
        return f"{_upper(f'{start}nothing found that keeps the two from being merged')}: {pair_and_gap}."
    if merging.status == "inconclusive":
        return f"{pair_and_gap}: too few examples to tell whether the two can be merged. {because}"
    return f"{pair_and_gap}: the two could not be merged. {because}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _headline_of_one(plan: Plan, findings: Sequence[Finding], kinds: _Kinds) -> str:
    name = plan.reference.name
    score = next((f for f in findings if kinds.asks(f, "score") and f.estimates), None)
    told = f"{name} scores {score.estimates[0]}" if score else f"{name} (score not measured)"
    found = [f.title.lower() for f in findings if f.status == "found" and f.alarm]
    unsure = [f for f in findings if f.status in ("error", "inconclusive")]
    if found:
        return f"{told}, but does not stand: {', '.join(found)}."
    if unsure:
        return f"{told}; {len(unsure)} of {len(findings)} questions stay open."
    apart = sum(f.status == "not_applicable" for f in findings)
    rest = f" {apart} of {len(findings)} questions do not apply." if apart else ""
    # What was shown of the inside; that a net forgets what it is taught out of is no news.
    inside = [f for f in findings if f.status == "found" and kinds.shows(f)]
    shown = [f.title[:1].lower() + f.title[1:] for f in inside]
    if shown:
        return f"{told}; no alarm. Shown: {', '.join(dict.fromkeys(shown))}.{rest}"
    if rest:
        return f"{told};{rest}"
    asked = any(not kinds.asks(finding, "score") for finding in findings)
    if not asked:
        return f"{told}; nothing else was asked."
    return f"{told}; nothing found that the score hides." if score else f"{told}; nothing found."
