"""One sentence on a run: what a reader should take away."""

from collections.abc import Sequence

import msgspec

from wheeltap.audits.base import pair
from wheeltap.core.records import Finding, SubjectRecord
from wheeltap.plans.plan import Plan


def headline(plan: Plan, findings: Sequence[Finding], *, void: bool) -> str:
    """One sentence: what a reader should take away."""
    if void:
        return "Void: a control failed, so this run proves nothing about the subject."
    if len(plan.subjects) == 1:
        return _headline_of_one(plan, findings)
    lines = [_headline_of_pair(plan, rival, findings) for rival in plan.subjects[1:]]
    # What was found first: the first line is what a reader takes away.
    return "\n".join(sorted(lines, key=lambda line: not any(words in line for words in (_DIFFERENT, _LOSES))))


_DIFFERENT = "different inside"

_LOSES = "merging the two loses score"

_MERGING = "WT111"
"""Asks whether weights can be averaged: copies of one function with other orders of units cannot, so it is no question
about what is inside."""


def _headline_of_pair(plan: Plan, rival: SubjectRecord, findings: Sequence[Finding]) -> str:
    name = pair(plan.reference, rival)
    mine = {f.code: f for f in findings if f.subject == name}
    score = mine.get("WT001")
    merging = mine.get(_MERGING)
    rest = [f for code, f in mine.items() if code not in ("WT001", _MERGING)]
    inside = [f for f in rest if f.status == "found" and f.alarm]
    unsure = [f for f in rest if f.code.startswith("WT1") and f.status not in ("found", "not_found", "not_applicable")]
    gap = f" (scores differ by {score.estimates[0]})" if score and score.estimates else ""
    # What was not measured is not called equal.
    start = {"found": "Different score, ", "not_found": "Same score, "}.get(score.status if gap and score else "", "")
    if merging is not None and not rest:
        return _headline_of_merging(f"{name}{gap}", start, merging)
    barrier = [merging] if merging is not None and merging.status == "found" else []
    if inside:
        told = " ".join(_kept_less(plan, rival, f) for f in (*inside, *barrier))
        return f"{_upper(f'{start}{_DIFFERENT}')}: {name}{gap}. {told}"
    lost = f" But {_LOSES}. {_kept_less(plan, rival, barrier[0])}" if barrier else ""
    if unsure:
        return f"{name}{gap}: too few trials to tell whether the insides differ.{lost}"
    if rest and all(f.status in ("not_applicable", "skipped") for f in rest):
        return f"{name}{gap}: nothing inside could be compared. {rest[0].because.rstrip('.')}.{lost}"
    if not rest:
        alone = any(f.code != "WT001" for f in findings)
        asked = "no other question compares the two, see each of them" if alone else "nothing else was asked"
        return f"{_upper(f'{start}{asked}')}: {name}{gap}."
    return f"{_upper(f'{start}no difference found inside')}: {name}{gap}.{lost}"


def _headline_of_merging(pair_and_gap: str, start: str, merging: Finding) -> str:
    """Whether two checkpoints can be merged, where nothing else was asked of what is inside them."""
    because = f"{merging.because.split('. ')[0].rstrip('.')}."
    if merging.status == "found":
        return f"{_upper(f'{start}{_LOSES}')}: {pair_and_gap}. {because}"
    if merging.status == "not_found":
        return f"{_upper(f'{start}nothing found that keeps the two from being merged')}: {pair_and_gap}."
    if merging.status == "inconclusive":
        return f"{pair_and_gap}: too few examples to tell whether the two can be merged. {because}"
    return f"{pair_and_gap}: the two could not be merged. {because}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _kept_less(plan: Plan, rival: SubjectRecord, finding: Finding) -> str:
    """Who keeps less of the score under which disturbance, by how much: the tested effect is reference minus rival.

    A finding that is no loss of score under a disturbance of weights speaks for itself, in its first sentence.
    """
    if not finding.code.startswith("WT10") or not finding.title.endswith(": difference"):
        return f"{finding.because.split('. ')[0].rstrip('.')}."
    gap, worse = finding.estimates[0], rival.name
    if (gap.value or 0.0) < 0:
        worse = plan.reference.name
        low, high = (None if end is None else -end for end in (gap.high, gap.low))
        gap = msgspec.structs.replace(gap, value=-(gap.value or 0.0), low=low, high=high)
    return f"Under {finding.title.removesuffix(': difference').lower()}, {worse} keeps {gap} less of the score."


def _headline_of_one(plan: Plan, findings: Sequence[Finding]) -> str:
    name = plan.reference.name
    score = next((f for f in findings if f.code == "WT001" and f.estimates), None)
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
    inside = [f for f in findings if f.status == "found" and f.code.startswith(("WT2", "WT112"))]
    shown = [f.title[:1].lower() + f.title[1:] for f in inside]
    if shown:
        return f"{told}; no alarm. Shown: {', '.join(dict.fromkeys(shown))}.{rest}"
    if rest:
        return f"{told};{rest}"
    asked = any(finding.code != "WT001" for finding in findings)
    if not asked:
        return f"{told}; nothing else was asked."
    return f"{told}; nothing found that the score hides." if score else f"{told}; nothing found."
