"""Checks on the instruments of the study ``decodable-shift``: nets whose right answer is known beforehand."""

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np

from wheeltap.audits.case import Case, Values
from wheeltap.audits.claims import Unanswered
from wheeltap.audits.controls import silent, surely
from wheeltap.core.records import Control, Estimate, SubjectRecord
from wheeltap.stats import members
from wheeltap.stats.effect import mean_effect
from wheeltap.stats.members import Scale
from wheeltap.studies.table import Table
from wheeltap.suites.decodable.studies import shift_rules as own

Pair = tuple[SubjectRecord, SubjectRecord]
"""A modular net and a copy of it."""

SAME: Final = {own.SCORE: 0.005, own.SHIFT: 0.005, own.DECODABLE: 0.01, own.SPREAD: 1e-3}
"""Differences between a net and a copy with permuted and rescaled units that rounding may make: an example or two."""

FOUND: Final = 0.001
"""P-value up to which a canceling copy counts as found fragile."""


class Losses(Protocol):
    """What gives the score that a net loses under noise, ``[draw, example]``."""

    def lost(self, case: Case, member: SubjectRecord, key: str) -> Values:
        """Of the noise that a metric rests on."""
        ...


def pairs(case: Case, names: Sequence[tuple[str, str]]) -> list[Pair]:
    """Of pairs of names, those of which both nets were made."""
    there = {member.name: member for member in case.plan.subjects}
    return [(there[one], there[two]) for one, two in names if one in there and two in there]


def alike(table: Table, kind: str) -> Control:
    """Has a reparametrized copy the numbers of its net?"""
    name, partners = f"{kind} copies have the same numbers", _partners(table, own.MODULES, kind)
    gaps = {key: max((abs(one - two) for one, two in _both(table, partners, key)), default=None) for key in SAME}
    known = {key: gap for key, gap in gaps.items() if gap is not None}
    if not known:
        return Control(name=name, kind="null", status="skipped", because="No copy has any number.")
    failed = [key for key, gap in known.items() if gap > SAME[key]]
    told = ", ".join(f"{table.metric(key).title.lower()} {gap:.2g} ({SAME[key]:g})" for key, gap in known.items())
    return Control(
        name=name, kind="null", status="failed" if failed else "passed",
        estimates=tuple(Estimate.exact(f"largest difference: {key}", gap, table.metric(key).unit) for key, gap in
                        known.items()),
        because=f"They compute the same function. Largest difference (allowed): {told}.",
    )  # fmt: skip


def silent_noise(losses: Losses, case: Case, copies: Sequence[Pair]) -> Control:
    """Does noise in the weights cost a reparametrized copy as much as its net?"""
    name = "noise costs reparametrized copies as much"
    try:
        gap = _gap(losses, case, copies, own.NOISE, margin=own.ALIKE)
    except Unanswered as why:
        return Control(name=name, kind="null", status="skipped", because=why.because)
    because = f"Function-space noise costs the copies {gap} more of the score than their nets: it must be nothing."
    return surely(silent(name, gap, margin=own.ALIKE, min_effect=own.MATTERS, because=because), gap)


def planted(losses: Losses, case: Case, copies: Sequence[Pair]) -> Control:
    """Is a copy with canceling units found to be fragile?"""
    name = "canceling units are found"
    try:
        gap = _gap(losses, case, copies, own.RELATIVE, margin=own.MATTERS)
    except Unanswered as why:
        return Control(name=name, kind="planted", status="skipped", because=why.because)
    found = gap.p is not None and gap.p <= FOUND and (gap.value or 0.0) > own.MATTERS
    undecided = gap.high is None or gap.high > own.MATTERS
    why = " It may be there: too few draws to be sure." if undecided and not found else ""
    return Control(
        name=name, kind="planted", status="passed" if found else "skipped" if undecided else "failed",
        estimates=(gap,),
        because=f"Copies with canceling units compute the same function and lose {gap} more of the score under "
        f"relative noise; more than {own.MATTERS:g} must be found at p <= {FOUND:g}.{why}",
    )  # fmt: skip


def _gap(losses: Losses, case: Case, copies: Sequence[Pair], key: str, *, margin: float) -> Estimate:
    """How much more copies lose than their nets, mean over them: draws and examples are the sample."""
    if not copies:
        raise Unanswered("not_applicable", "No copy was made.")
    each = [losses.lost(case, copy, key) - losses.lost(case, net, key) for net, copy in copies]
    return mean_effect(np.mean(each, 0), margin=margin, bounded=True, name="loss_difference", unit="accuracy")


def wiring(table: Table) -> Control:
    """Does the number of disorganization tell nets apart that are disorganized by construction?"""
    name = "disorganization is seen where it was built"
    partners = _both(table, _partners(table, own.MODULES, own.MIXED), own.SPREAD)
    if not partners:
        return Control(name=name, kind="planted", status="skipped", because="No pair of nets has the number.")
    least = min(two - one for one, two in partners)
    highest = max(one for one, _ in partners)
    sound = least > 0.0 and highest <= 1.0 + SAME[own.SPREAD]
    return Control(
        name=name, kind="planted", status="passed" if sound else "failed",
        estimates=(Estimate.exact("least_difference", least, "factors per unit", n=len(partners)),),
        because=f"No unit of a modular net can move more than one factor: the most is {highest:.4f}, and it must be 1. "
        f"Every mixed net must have more than the modular net of its seed: the least difference is {least:.3g}.",
    )  # fmt: skip


def imitation(table: Table) -> list[str]:
    """What imitation does to modular nets: beside the rules, not corrected, no verdict."""
    tests = {
        key: members.difference(copied, learned, name=key, scale=Scale("accuracy", bounded=True))
        for key in (own.NOISE, own.SHIFT)
        if (copied := table.values(own.COPIED, key)) and (learned := table.values(own.MODULES, key))
    }
    told = [f"{table.metric(key).title.lower()} {test.estimate}" for key, test in tests.items()]
    said = "Modular nets that imitate, less modular nets that learned from labels (not corrected): "
    return [f"{said}{'; '.join(told)}."] if told else []


def equal_scores(table: Table) -> Control:
    """Which nets do not score as the others do?"""
    scores = {
        member: single.value
        for kind in own.TRAINED
        for member, single in zip(table.having(kind, [own.SCORE]), table.singles(kind, own.SCORE), strict=True)
    }
    name = "trained nets score alike"
    if not scores:
        return Control(name=name, kind="gate", status="skipped", because="No net has a score.")
    middle = float(np.median(list(scores.values())))
    outside = {member: score for member, score in scores.items() if abs(score - middle) > own.ALIKE}
    told = ", ".join(f"{member} {score:.3f}" for member, score in outside.items())
    return Control(
        name=name, kind="gate", status="skipped" if outside else "passed",
        estimates=(Estimate.exact("nets_outside", float(len(outside)), "nets", n=len(scores)),),
        because=f"Their median score is {middle:.3f}; {len(outside)} of {len(scores)} lie more than {own.ALIKE:g} from "
        f"it{f': {told}. They stay in every number' if outside else ''}.",
    )  # fmt: skip


def within_kinds(table: Table, *, fewest: int) -> list[str]:
    """What goes with what among nets of one kind, beside what the rules say of all: not corrected, no verdict."""
    kinds = [kind for kind in own.TRAINED if len(table.having(kind, [own.SPREAD, own.LOSS])) >= fewest]
    return [line for key in (own.NOISE, own.SHIFT) if (line := _within(table, kinds, key))]


def _within(table: Table, kinds: Sequence[str], key: str) -> str:
    needed = [key, own.SPREAD, own.LOSS]
    names = [(kind, member) for kind in kinds for member in table.having(kind, needed)]
    if not names:
        return ""
    columns = {one: [table.numbers[member][one].value for _, member in names] for one in needed}
    test = members.association(
        columns[key], columns[own.SPREAD], beyond=[columns[own.LOSS]], groups=[kind for kind, _ in names], name=key
    )
    return (
        f"Within kinds of nets, beyond the clean loss, {table.metric(key).title.lower()} goes with disorganization at "
        f"{test.estimate} ({len(names)} nets; not corrected)."
    )


def _partners(table: Table, one: str, two: str) -> list[tuple[str, str]]:
    """Members of two cohorts by their numbers: the first of both, the second of both, and so on."""
    return list(zip(table.cohort(one).members, table.cohort(two).members, strict=False))


def _both(table: Table, partners: Sequence[tuple[str, str]], key: str) -> list[tuple[float, float]]:
    """A number of both of each pair, where both have it."""
    found = [[table.numbers.get(name, {}).get(key) for name in pair] for pair in partners]
    return [(one.value, two.value) for one, two in found if one is not None and two is not None]
