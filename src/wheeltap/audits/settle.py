"""From a plan and its outcomes to a report: every audit's reading, one correction over all, one headline."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from wheeltap.audits.base import Audit, create, judging, studies
from wheeltap.audits.case import Case
from wheeltap.audits.claims import Hypothesis, NoAnswer
from wheeltap.audits.controls import baseline, copies, same_function
from wheeltap.audits.headline import ENOUGH, FULL, MEASURED, READ, amount, at_level, headline, own_lines, percent
from wheeltap.audits.power import power_control
from wheeltap.audits.score import same_outputs
from wheeltap.core.records import (
    UNCOVERED,
    Cost,
    Estimate,
    Finding,
    FindingStatus,
    Scalar,
    SubjectRecord,
    TaskRecord,
    Trial,
)
from wheeltap.core.report import ReportRecord
from wheeltap.core.stages import stage
from wheeltap.plans.plan import CUT, GROUPED, MARGIN, Lookup, Plan
from wheeltap.stats.family import holm

OPEN = (
    "The interval is open, so an effect of any size may have gone unseen: a single example or draw has no spread, and "
    "a loss without a bound may be larger in a draw that was not made."
)
"""Why a test that did not reject proves nothing, where its interval has no end."""

SKEWED = "Values this skewed need at least {:,} examples for a verdict."
"""Why a mean is not decided whose interval may lie beyond the margin."""


def wanted(plan: Plan, lookup: Lookup, audits: Sequence[Audit] | None = None) -> list[Trial]:
    """Every trial the plan's audits want, given what is known; without repeats, baselines first.

    Args:
        plan: What is asked.
        lookup: From a trial's key to its outcome.
        audits: The plan's, where they were made already.
    """
    if plan.unrun:
        return []  # what was recorded is all there is
    making = plan.makings()
    if any(lookup(trial.key) is None for trial in making):
        return making  # nothing can be asked of members that are not made
    sound = usable(plan, lookup)
    case = Case(sound, lookup, plan)
    several = audits_of(plan) if audits is None else audits
    # Where the first plant is no copy, the next one takes its place.
    baselines = [*made_of(plan, lookup).baselines(), *sound.baselines()]
    asked = [*making, *baselines, *(trial for audit in several for trial in audit.ask(case))]
    return list({trial.key: trial for trial in asked}.values())


def more_may_follow(plan: Plan, lookup: Lookup, audits: Sequence[Audit]) -> bool:
    """Return whether an audit may want more trials once those that it wants now are known."""
    case = Case(usable(plan, lookup), lookup, plan)
    return any(audit.more_may_follow(case) for audit in audits)


def audits_of(plan: Plan) -> list[Audit]:
    """The plan's audits with their settings, its study among them."""
    recorded = plan.reference.role == "recorded"
    asked = [create(judging(spec.name, recorded=recorded), dict(spec.settings)) for spec in plan.audits]
    return asked if plan.study is None else [*asked, studies.get(plan.study.name)(dict(plan.study.settings))]


@stage("judging")
def judge(plan: Plan, lookup: Lookup, *, cost: Cost, provenance: dict[str, Scalar]) -> ReportRecord:
    """The report on a plan whose trials have run; needs no model."""
    sound = usable(plan, lookup)
    case = Case(sound, lookup, plan)
    audits = audits_of(plan)
    verdicts = [audit.judge(case) for audit in audits]
    several = [one for audit in audits for one in audit.instruments()]
    instruments = tuple({one.code: one for one in reversed(several)}.values())[::-1]
    drafts = [draft for verdict in verdicts for draft in verdict.drafts]
    alpha = plan.alpha / _tests(plan, drafts)
    recorded = plan.reference.role == "recorded"
    controls = [] if plan.unrun else [baseline(case), *copies(plan, case)]
    for verdict in verdicts:
        graded = verdict.graded
        controls += [*verdict.controls, *([] if graded is None else [power_control(graded, alpha=alpha)])]
    void = any(control.status == "failed" for control in controls)
    findings = settle(drafts, alpha=plan.alpha, task=plan.task)
    if void:
        # What weights hold was read and not measured: a control says nothing about it.
        firm = {one.code for one in instruments if one.asks in READ}
        findings = [finding if finding.code in firm else voided(finding) for finding in findings]
    elif not plan.partial:
        findings = [covered(finding, draft.reach, plan.task) for finding, draft in zip(findings, drafts, strict=True)]
    asked = {one.code for one in instruments if one.asks == "benchmark"}
    # What was asked of a benchmark is an alarm only where it was found; it leans only to what would be one.
    findings = [
        msgspec.structs.replace(one, alarm=False, leaning=one.leaning and one.alarm)
        if (recorded or one.code in asked) and one.status not in ("found", "error") else one
        for one in findings
    ]  # fmt: skip
    same = {rival.name for rival in case.rivals if same_outputs(case, rival) is not None}
    sections = tuple(section for verdict in verdicts for section in verdict.sections)
    able = ((type(audit).answer, audit.instruments()) for audit in audits)
    answers = {one.code: answer for answer, several in able if answer is not None for one in several}
    own = own_lines(plan, findings, instruments, answers, sections)
    sentence = headline(plan, findings, instruments, own=own, void=void, same=same)
    studied = (verdict.answered(findings, void) for verdict in verdicts if verdict.answered is not None)
    answer, study = next(studied, (sentence, None))
    started = case.known([plan.clean(plan.reference)])
    task = msgspec.structs.replace(plan.task, chance=case.chance) if started else plan.task
    return ReportRecord(
        command=plan.command,
        headline=at_level(answer, plan.alpha),
        subjects=plan.subjects,
        task=task,
        findings=tuple(findings),
        controls=tuple(controls),
        cost=cost,
        provenance={**provenance, **_paths(plan, lookup), **_grouped(case), **_asked(plan)},
        curves=tuple(c for v in verdicts for c in v.curves),
        blocks=tuple(b for v in verdicts for b in v.blocks),
        instruments=instruments,
        void=void,
        study=study,
        sections=sections,
    )


def _asked(plan: Plan) -> dict[str, Scalar]:
    """What the answer depends on beside the findings."""
    margin: dict[str, Scalar] = {"margin": plan.margin} if plan.margin != MARGIN else {}
    return {**margin, **({"partial": True} if plan.partial else {}), **({CUT: plan.cut} if plan.cut else {})}


def _tests(plan: Plan, drafts: Sequence[Hypothesis]) -> int:
    """Tests that a comparison of two subjects by this plan makes, among which one is the strictest.

    A report on one subject tells it of both, and of the pair about whatever is claimed of each.
    """
    tested = sum(draft.test is not None for draft in drafts)
    return max(tested if len(plan.subjects) > 1 else 2 * tested + len(drafts), 1)


def _paths(plan: Plan, lookup: Lookup) -> dict[str, Scalar]:
    """How many of the trials the engine carried out in which way; those not named, each by one plain pass."""
    outcomes = [lookup(trial.key) for trial in wanted(plan, lookup)]
    counts = Counter(outcome.path for outcome in outcomes if outcome is not None and outcome.path)
    paths = "; ".join(f"{path}: {count} of {len(outcomes)} trials" for path, count in sorted(counts.items()))
    return {"shortcuts": paths or "none"}


def _grouped(case: Case) -> dict[str, Scalar]:
    """What it costs that the examples come in groups, in words; nothing where they do not."""
    try:
        groups = case.grouped(case.plan.reference)
    except NoAnswer:
        return {}
    return {GROUPED: groups} if groups else {}


def settle(drafts: Sequence[Hypothesis], *, alpha: float, task: TaskRecord | None = None) -> list[Finding]:
    """Findings with their final status, after one correction over every test of every audit.

    Three sides (Goeman, Solari & Stijnen 2010): ``found`` where the effect is shown to exceed its margin, ``excluded``
    where it is shown not to, ``inconclusive`` where neither is. Each side is corrected by Holm's rule over all tests:
    a report has a false ``found`` with probability at most ``alpha``, and a false ``excluded`` likewise. No status
    rests on a test that could not reject.
    """
    tested = sum(draft.test is not None for draft in drafts)
    above = [None if draft.test is None else draft.test.p for draft in drafts]
    # P-values of "the effect is at least the margin"; none where that cannot be rejected at all.
    below = [
        None if draft.evidence is None or draft.fallback is not None
        else draft.evidence.below(draft.margin, one_sided=draft.one_sided)
        for draft in drafts
    ]  # fmt: skip
    uncorrected, corrected = zip(above, below, strict=True), zip(holm(above), holm(below), strict=True)
    findings = list[Finding]()
    for draft, sides, raw in zip(drafts, corrected, uncorrected, strict=True):
        finding = _settled(draft, sides, raw, alpha=alpha, among=max(tested, 1))
        # Else there is no margin, or the tested effect is not the one that is reported.
        reported = draft.margin > 0.0 and draft.fallback is None and finding.estimates[:1] == (draft.test,)
        if finding.status == "excluded" and reported:
            first, *others = finding.because.split("\n\n")
            because = "\n\n".join([f"{first} {_excluded(finding, draft.margin, task)}", *others])
            finding = msgspec.structs.replace(finding, because=because)
        findings.append(finding)
    return findings


def _excluded(finding: Finding, margin: float, task: TaskRecord | None) -> str:
    """Return what an equivalence test has shown, in points where its row is in points."""
    in_points = task is not None and task.in_points and finding.estimates[0].unit == task.measure
    return f"An effect of more than {amount(margin, task) if task and in_points else f'{margin:.2g}'} is excluded."


_Sides = tuple[float | None, float | None]
"""P-values of "the effect is at most the margin", and of "it is at least the margin"."""


def _shown(draft: Hypothesis, sides: _Sides, alpha: float) -> FindingStatus | None:
    """Which side is rejected; ``None`` for neither."""
    above, below = sides
    wrong_way = draft.one_sided and (draft.effect.value or 0.0) <= 0.0
    if above is not None and above <= alpha and not wrong_way:
        return "found"
    return "excluded" if draft.fallback is None and below is not None and below <= alpha else None


def _settled(draft: Hypothesis, sides: _Sides, uncorrected: _Sides, *, alpha: float, among: int) -> Finding:
    finding, test = draft.finding, draft.test
    if test is None:
        return msgspec.structs.replace(finding, verdict=draft.words.of(finding))
    shown, because = _shown(draft, sides, alpha), draft.otherwise
    status = shown or draft.fallback or "inconclusive"
    if shown == "found":
        because = finding.because
    if status == "inconclusive" and draft.undecided:
        because = f"{because} {draft.undecided}"
    power = None
    if draft.evidence is not None and draft.fallback is None:
        required = draft.evidence.required(draft.margin)
        if status == "inconclusive" and required > test.n:
            because = f"{because} {SKEWED.format(required)}"
        power = draft.evidence.power(draft.margin, one_sided=draft.one_sided, alpha=alpha / among)
    if status == "inconclusive" and (test.low is None or test.high is None):
        because = f"{because} {OPEN}"
    leaning = status == "inconclusive" and _leans(draft, test)
    made = msgspec.structs.replace(finding, status=status, because=because, power=power, leaning=leaning)
    alone = _shown(draft, uncorrected, alpha) if status == "inconclusive" else None
    verdict_alone = draft.words.of(msgspec.structs.replace(finding, status=alone)) if alone else ""
    return msgspec.structs.replace(made, verdict=draft.words.of(made), verdict_alone=verdict_alone)


def _leans(draft: Hypothesis, test: Estimate) -> bool:
    """Whether an effect was shown, though not against the margin: its interval leaves zero out.

    Where the margin is zero, the p-value says so: it may be of more than the effect alone, and exact beside an interval
    that is not.
    """
    if draft.evidence is not None and (leans := draft.evidence.leans(test.level)) is not None:
        return leans
    if draft.margin <= 0.0 and test.p is not None:
        wrong_way = draft.one_sided and (test.value or 0.0) <= 0.0
        return not wrong_way and test.p <= (1.0 - test.level) / (2.0 if draft.one_sided else 1.0)
    more = test.low is not None and test.low > 0.0
    return more or (not draft.one_sided and test.high is not None and test.high < 0.0)


def covered(finding: Finding, reach: float | None, task: TaskRecord | None = None) -> Finding:
    """The finding where too few of the weights were disturbed: what was measured is kept, and concludes nothing.

    Where most were, an effect that was shown stands: the rest can add to it. That there is none speaks of all weights.

    Args:
        finding: Settled.
        reach: See ``Hypothesis``.
        task: As it was settled with.
    """
    if reach is None or finding.coverage is None or reach >= FULL or finding.status not in _CONCLUDES:
        return finding
    partly = msgspec.structs.replace(finding, partly=True)
    if reach >= ENOUGH and finding.status in ("found", "measured"):
        return partly
    stated = f" {_excluded(finding, finding.margin or 0.0, task)}" if finding.estimates else ""
    measured = finding.because.replace(stated, "")
    because = (
        f"Only {percent(finding.coverage)} of the weights were disturbed, so nothing is concluded of the model "
        f"(--partial concludes all the same). {MEASURED} {measured}"
    )
    return msgspec.structs.replace(
        partly, status="not_applicable", verdict=UNCOVERED, because=because, leaning=False, verdict_alone=""
    )


_CONCLUDES = ("found", "excluded", "inconclusive", "measured")


def voided(finding: Finding) -> Finding:
    """The finding where a control failed: what was measured is kept, and concludes nothing."""
    if finding.status not in _CONCLUDES:
        return finding
    because = f"A control failed, so nothing is concluded. What was measured: {finding.because}"
    return msgspec.structs.replace(
        finding, status="void", verdict="void", because=because, leaning=False, verdict_alone=""
    )


def made_of(plan: Plan, lookup: Lookup) -> Plan:
    """The plan without the members whose making did not come to its end; as it is where that would leave none."""
    there = [
        subject
        for subject in plan.subjects
        if subject.artifact is None or ((made := lookup(plan.make(subject).key)) is not None and made.status == "done")
    ]
    whole = len(there) == len(plan.subjects) or not there
    return plan if whole else msgspec.structs.replace(plan, subjects=tuple(there))


def usable(plan: Plan, lookup: Lookup) -> Plan:
    """The plan without members that could not be made, and without control subjects that are no exact copies."""
    plan = made_of(plan, lookup)
    case = Case(plan, lookup)

    def exact(subject: SubjectRecord) -> bool:
        # Where either pass has not run it is not known to differ: no other copy is asked for in its place.
        return not case.known([plan.clean(plan.reference), plan.clean(subject)]) or same_function(case, subject)[0]

    twin = plan.twin if plan.twin is None or exact(plan.twin) else None
    plants, graded = (tuple(copy for copy in some if exact(copy)) for some in (plan.plants, plan.graded))
    if (twin, plants, graded) == (plan.twin, plan.plants, plan.graded):
        return plan
    lost = (twin is None) != (plan.twin is None) or (not plants and plan.planted is not None)
    return msgspec.structs.replace(
        plan, twin=twin, planted=plants[0] if plants else None, stronger=plants[1:], graded=graded,
        no_controls="The copy is not exact on this model (see above)." if lost else plan.no_controls,
    )  # fmt: skip
