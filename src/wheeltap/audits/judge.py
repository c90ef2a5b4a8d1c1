"""From a plan and its outcomes to a report: every audit's reading, one correction over all, one headline."""

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

from wheeltap.audits.base import Audit, Case, Draft, create, pair
from wheeltap.plans import Lookup, Plan
from wheeltap.records import (
    Control,
    Cost,
    Estimate,
    Finding,
    FindingStatus,
    ReportRecord,
    Scalar,
    SubjectRecord,
    Trial,
)
from wheeltap.stats.family import holm

BASELINE_TOLERANCE = 1e-6
"""Largest difference of two clean passes, as a share of the scores' scale."""

TWIN_TOLERANCE = 1e-4
"""Largest difference between a gauge copy's scores and the original's, as a share of the scores' scale."""


def wanted(plan: Plan, lookup: Lookup) -> list[Trial]:
    """Every trial the plan's audits want, given what is known; without repeats, baselines first."""
    case = Case(usable(plan, lookup), lookup)
    asked = [*plan.baselines(), *(trial for audit in audits_of(plan) for trial in audit.ask(case))]
    return list({trial.key: trial for trial in asked}.values())


def audits_of(plan: Plan) -> list[Audit]:
    """The plan's audits, with their settings."""
    return [create(spec.name, dict(spec.settings)) for spec in plan.audits]


def judge(plan: Plan, lookup: Lookup, *, cost: Cost, provenance: dict[str, Scalar]) -> ReportRecord:
    """The report on a plan whose trials have run; needs no model."""
    sound = usable(plan, lookup)
    case = Case(sound, lookup)
    verdicts = [audit.judge(case) for audit in audits_of(plan)]
    controls = [_baseline(case), *_copies(plan, case), *(c for v in verdicts for c in v.controls)]
    void = any(control.status == "failed" for control in controls)
    findings = settle([draft for verdict in verdicts for draft in verdict.drafts], alpha=plan.alpha)
    if void:
        findings = [voided(finding) for finding in findings]
    probe = msgspec.structs.replace(plan.probe, chance=case.chance) if _started(case) else plan.probe
    return ReportRecord(
        command=plan.command,
        headline=headline(plan, findings, void=void),
        subjects=plan.subjects,
        probe=probe,
        findings=tuple(findings),
        controls=tuple(controls),
        cost=cost,
        provenance={**provenance, **_paths(plan, lookup)},
        curves=tuple(c for v in verdicts for c in v.curves),
        blocks=tuple(b for v in verdicts for b in v.blocks),
        void=void,
    )


def _paths(plan: Plan, lookup: Lookup) -> dict[str, Scalar]:
    """How many of the trials the engine carried out in which way; those not named, each by one plain pass."""
    outcomes = [lookup(trial.key) for trial in wanted(plan, lookup)]
    counts = Counter(outcome.path for outcome in outcomes if outcome is not None and outcome.path)
    told = "; ".join(f"{path}: {count} of {len(outcomes)} trials" for path, count in sorted(counts.items()))
    return {"shortcuts": told or "none"}


def _started(case: Case) -> bool:
    return case.known([case.plan.trial(case.plan.reference, "none")])


def settle(drafts: Sequence[Draft], *, alpha: float) -> list[Finding]:
    """Findings with their final status: one Holm correction over every test of every audit.

    ``found`` where the adjusted p-value is at most ``alpha``; else ``not_found`` where the test could have seen
    an effect worth telling, and ``inconclusive`` where it could not.
    """
    adjusted = holm([None if draft.test is None else draft.test.p for draft in drafts])
    return [_settled(draft, p, alpha) for draft, p in zip(drafts, adjusted, strict=True)]


def _settled(draft: Draft, p: float | None, alpha: float) -> Finding:
    if draft.test is None:
        return draft.finding
    wrong_way = draft.one_sided and (draft.test.value or 0.0) <= 0.0
    if p is not None and p <= alpha and not wrong_way:
        return msgspec.structs.replace(draft.finding, status="found")
    seen = draft.finding.smallest_detectable
    status: FindingStatus = "not_found" if seen is not None and seen <= draft.worth else "inconclusive"
    return msgspec.structs.replace(draft.finding, status=status, because=draft.otherwise)


def voided(finding: Finding) -> Finding:
    """The finding where a control failed: what was measured is kept, and concludes nothing."""
    if finding.status not in ("found", "not_found", "inconclusive"):
        return finding
    because = f"A control failed, so nothing is concluded. What was measured: {finding.because}"
    return msgspec.structs.replace(finding, status="void", because=because)


def _scale_and_gap(case: Case, one: Trial, two: Trial) -> tuple[float, float, float, int] | None:
    """Scale of the scores, largest difference, share of equal answers, and examples, of two clean trials."""
    outcomes = [case.outcome(trial) for trial in (one, two)]
    if any(outcome is None or "scores" not in outcome.values for outcome in outcomes):
        return None
    a, b = (outcome.values["scores"].astype(np.float64) for outcome in outcomes if outcome is not None)
    scale = float(np.abs(a - a.mean(1, keepdims=True)).max()) or 1.0
    same = float((a.argmax(1) == b.argmax(1)).mean())
    return scale, float(np.abs(a - b).max()), same, len(a)


def _exact(name: str, value: float, unit: str, n: int) -> Estimate:
    return Estimate(name=name, value=value, low=value, high=value, level=1.0, n=n, unit=unit, method="exact")


def _baseline(case: Case) -> Control:
    plan = case.plan
    compared = _scale_and_gap(case, plan.trial(plan.reference, "none"), plan.trial(plan.reference, "none", seed=1))
    if compared is None:
        both = [plan.trial(plan.reference, "none", seed=seed) for seed in (0, 1)]
        if not case.known(both):
            why = "The clean passes have not run."
            return Control(name="two clean passes agree", kind="baseline", status="skipped", because=why)
        return Control(name="two clean passes agree", kind="baseline", status="failed", because="A clean pass failed.")
    scale, gap, _, n = compared
    return Control(
        name="two clean passes agree",
        kind="baseline",
        status="passed" if gap <= BASELINE_TOLERANCE * scale else "failed",
        estimates=(_exact("largest_difference", gap / scale, "share of the scores' scale", n),),
        because=f"Two passes without any disturbance differ by at most {gap / scale:.1e} of the scores' scale.",
    )


def _copies(plan: Plan, case: Case) -> list[Control]:
    """For each control subject: is it really a copy that computes the same function?"""
    found: list[Control] = []
    for subject, kind in ((plan.twin, "re-coded twin"), (plan.planted, "planted copy")):
        if subject is None:
            continue
        exact, why, estimate = _same_function(case, subject)
        found.append(
            Control(
                name=f"{kind} computes the same function",
                kind="gate",
                status="passed" if exact else "skipped",
                estimates=() if estimate is None else (estimate,),
                because=why if exact else f"{why} So it is not used as a control.",
            )
        )
    return found


def _same_function(case: Case, subject: SubjectRecord) -> tuple[bool, str, Estimate | None]:
    plan = case.plan
    compared = _scale_and_gap(case, plan.trial(plan.reference, "none"), plan.trial(subject, "none"))
    if compared is None:
        return False, "The copy gave no finite answer.", None
    scale, gap, same, n = compared
    words = f"Its scores differ by at most {gap / scale:.1e} of the scores' scale; {same:.1%} of answers are equal."
    estimate = _exact("largest_difference", gap / scale, "share of the scores' scale", n)
    return gap <= TWIN_TOLERANCE * scale and same == 1.0, words, estimate


def usable(plan: Plan, lookup: Lookup) -> Plan:
    """The plan without control subjects that turned out not to be exact copies: a wrong gauge is never used."""
    case = Case(plan, lookup)
    dropped: dict[str, SubjectRecord | None] = {}
    for field, subject in (("twin", plan.twin), ("planted", plan.planted)):
        if subject is not None and case.outcome(plan.trial(subject, "none")) is not None:
            exact, _, _ = _same_function(case, subject)
            if not exact:
                dropped[field] = None
    exact_grades = tuple(
        subject
        for subject in plan.graded
        if case.outcome(plan.trial(subject, "none")) is None or _same_function(case, subject)[0]
    )
    plan = msgspec.structs.replace(plan, graded=exact_grades) if exact_grades != plan.graded else plan
    if not dropped:
        return plan
    return msgspec.structs.replace(plan, no_controls="The copy is not exact on this model (see above).", **dropped)


def headline(plan: Plan, findings: Sequence[Finding], *, void: bool) -> str:
    """One sentence: what a reader should take away."""
    if void:
        return "Void: a control failed, so this run proves nothing about the subject."
    if len(plan.subjects) == 1:
        return _headline_of_one(plan, findings)
    lines = [_headline_of_pair(plan, rival, findings) for rival in plan.subjects[1:]]
    # What was found first: the first line is what a reader takes away.
    return "\n".join(sorted(lines, key=lambda line: "different inside" not in line))


def _headline_of_pair(plan: Plan, rival: SubjectRecord, findings: Sequence[Finding]) -> str:
    name = pair(plan.reference, rival)
    mine = {f.code: f for f in findings if f.subject == name}
    score = mine.get("WT001")
    rest = [f for code, f in mine.items() if code != "WT001"]
    inside = [f for f in rest if f.status == "found" and f.alarm]
    unsure = [f for f in rest if f.code.startswith("WT1") and f.status not in ("found", "not_found", "not_applicable")]
    gap = f" (scores differ by {score.estimates[0]})" if score and score.estimates else ""
    # What was not measured is not called equal.
    start = {"found": "Different score, ", "not_found": "Same score, "}.get(score.status if gap and score else "", "")
    if inside:
        return (
            f"{_upper(f'{start}different inside')}: {name}{gap}. {' '.join(_kept_less(plan, rival, f) for f in inside)}"
        )
    if unsure:
        return f"{name}{gap}: too few trials to tell whether the insides differ."
    if rest and all(f.status in ("not_applicable", "skipped") for f in rest):
        return f"{name}{gap}: nothing inside could be compared. {rest[0].because.rstrip('.')}."
    if not rest:
        alone = any(f.code != "WT001" for f in findings)
        asked = "no other question compares the two, see each of them" if alone else "nothing else was asked"
        return f"{_upper(f'{start}{asked}')}: {name}{gap}."
    if all(f.code == "WT111" for f in rest):
        return f"{_upper(f'{start}nothing found that keeps the two from being merged')}: {name}{gap}."
    return f"{_upper(f'{start}no difference found inside')}: {name}{gap}."


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
