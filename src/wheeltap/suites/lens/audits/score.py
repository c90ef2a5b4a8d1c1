"""Differences of benchmark scores between recorded answers: is one of two systems better on the same items?"""

from itertools import combinations
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Audit, Case, Hypothesis, MarginSettings, NoAnswer, Verdict, create, pair
from wheeltap.audits.claims import LOSS, PAIR
from wheeltap.audits.score import DIFFERENCE, ScoreAudit
from wheeltap.core.plain import fixed
from wheeltap.core.records import Estimate, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.stats.crossed import Values
from wheeltap.stats.effect import has_width, score_interval, share_interval, without_point
from wheeltap.stats.sample import Sample
from wheeltap.stats.unpaired import unpaired_effect
from wheeltap.suites.lens.audits import sections
from wheeltap.suites.lens.audits.headline import ALL, amount, lines

SCORE: Final = "score"
"""Unit of scores that are no shares."""

OWN: Final = " in units of the score"
"""What follows an amount of them in a sentence: a log does not say what its numbers are."""

MOST: Final = 6
"""Systems up to which every pair is compared; of more, the first one with each of the others."""


class RecordedScoreSettings(MarginSettings, frozen=True, kw_only=True):
    """What is compared.

    Attributes:
        shipped: Whether the first system is a model, and each other one that model as it is shipped: what is lost is
            judged, task by task and over all of them.
    """

    shipped: bool = False


@final
class RecordedScoreAudit(Audit):
    """The scores that recorded answers give, and every pair of them."""

    name = "recorded-score"
    code = ScoreAudit.code
    title = ScoreAudit.title
    reads = ScoreAudit.reads
    asks = "score"
    number = "score"
    recorded = True
    answer = staticmethod(lines)
    settings_type = RecordedScoreSettings
    settings: RecordedScoreSettings

    def ask(self, case: Case) -> list[Trial]:
        """Nothing: what was recorded is all there is."""
        return []

    def judge(self, case: Case) -> Verdict:
        """One finding per system, one per pair; of what is shipped one per task, and one over all of them."""
        verdict = Verdict(drafts=[self._single(case, subject) for subject in case.plan.subjects])
        support = next(
            (create(one.name, dict(one.settings)) for one in case.plan.audits if one.name == "support"), None
        )
        if support is None or not any(case.known([trial]) for trial in support.ask(case)):  # pass@1 is the score
            verdict.sections.append(sections.scores(draft.finding for draft in verdict.drafts))
        if not self.settings.shipped:
            verdict.drafts += [self._pair(case, *two) for two in compared(case.plan)]
            return verdict
        clean = case.outcome(case.plan.clean(case.plan.reference))
        parts = None if clean is None else clean.values.get("part")
        several = case.plan.names.groups if case.plan.names is not None and parts is not None else ()
        every: list[tuple[str, NDArray[np.bool_]]] = [(ALL, np.ones(case.plan.task.examples, dtype=np.bool_))]
        if parts is not None and parts.max() > 0:
            every += [(task, parts == at) for at, task in enumerate(several)]
        for rival in case.plan.subjects[1:]:
            verdict.drafts += [self._shipped(case, rival, task, rows) for task, rows in every]
        verdict.sections = [sections.losses([draft.finding for draft in verdict.drafts if draft.finding.scheme])]
        return verdict

    def _single(self, case: Case, subject: SubjectRecord) -> Hypothesis:
        """What chance would score is not known of recorded answers."""
        try:
            values = case.clean(subject)
        except NoAnswer as gap:
            return self.unanswered(subject.name, gap)
        if are_shares(values):
            score = share_interval(values, groups=case.groups, unit=case.plan.task.measure)
        else:
            score = without_point(score_interval(values, bounded=False, groups=case.groups, unit=SCORE))
        said = f"scores {score} on {case.plan.task.examples:,} items {case.grouped(subject)}".rstrip()
        claim = Hypothesis(
            test=None, status="measured", found=f"{subject.name} {said}. This is all that a benchmark sees.",
            beside=(score,), words=PAIR, brief=f"{said}.",
        )  # fmt: skip
        return self.draft(case, subject.name, claim, [case.plan.clean(subject)])

    def _pair(self, case: Case, one: SubjectRecord, two: SubjectRecord) -> Hypothesis:
        """What the answers of two systems to the same items say: the second's score minus the first's.

        Found is any difference at all, by McNemar's exact test where each item has one answer; excluded is one of more
        than the margin: of shares as it is, of other scores as a share of the first one's. It is an alarm where the
        second is worse. Answers to one item are averaged first, so that they count once. A comparison of the two scores
        that forgets that the items are the same is printed beside it.
        """
        name, trials = pair(one, two), (case.plan.clean(one), case.plan.clean(two))
        try:
            a, b = case.clean(one), case.clean(two)
            shares, margin = are_shares(a, b), self.settings.margin
            least = (case.plan.margin if margin is None else margin) if shares else case.margin(margin)
        except NoAnswer as missing:
            return self.unanswered(name, missing, title=DIFFERENCE)
        unit = case.plan.task.measure if shares else SCORE
        cells, less = (b - a)[None, :], f"({two.name} - {one.name})"
        sample = Sample(cells, 1.0 if shares else None, groups=case.groups)
        gap = sample.effect(name=f"score difference {less}", unit=unit)
        apart = unpaired_effect(b, a, groups=case.groups, name=f"unpaired difference {less}", unit=unit)
        first, second = int((cells < 0).sum()), int((cells > 0).sum())
        differ = f"{one.name} does better on {first:,} items, {two.name} on {second:,}"
        if first + second == 0:
            differ = "There is no item on which they differ"
        of_one, of_two = (f"{fixed(100 * mean, 1)} %" if shares else f"{mean:.3g}"
                          for mean in (float(np.mean(a)), float(np.mean(b))))  # fmt: skip
        scores = f"{one.name} scores {of_one}, {two.name} {of_two}"
        if not has_width(gap):
            same = f"{scores}. The difference is the same on every item, so there is no interval and no test."
            claim = Hypothesis(test=None, status="measured", found=same, beside=(without_point(gap),), words=PAIR)
            return self.draft(case, name, claim, trials, title=DIFFERENCE)
        exact = "exact McNemar" if "exact McNemar" in gap.method else "paired"
        tests = f"{exact} p {_p(gap)}, unpaired p {_p(apart)}"
        worse = (gap.value or 0.0) < 0.0
        better = one.name if worse else two.name
        words = f"{differ}, of {cells.shape[1]:,}."
        claim = Hypothesis(
            test=gap, margin=least, evidence=sample, words=PAIR, beside=(apart,), alarm=worse,
            found=f"{scores}: {better} is better (difference {amount(gap)}; {tests}). {words}",
            otherwise=f"{scores} (difference {amount(gap)}; {tests}). {words}",
            brief=f"{of_one} v {of_two}: {better} is better (difference {amount(gap)}{'' if shares else OWN}; "
            f"{tests}).",
        )  # fmt: skip
        return self.draft(case, name, claim, trials, title=DIFFERENCE)

    def _shipped(self, case: Case, rival: SubjectRecord, task: str, rows: NDArray[np.bool_]) -> Hypothesis:
        """What one system loses beside the first on some items; the exact McNemar test of any difference beside it.

        The margin is a share, yet at most half of the first one's score: see ``Case.edge``.
        """
        one = case.plan.reference
        name, trials = pair(one, rival), (case.plan.clean(one), case.plan.clean(rival))
        title = f"Loss of benchmark score: {task}"
        try:
            a, b = case.clean(one)[rows], case.clean(rival)[rows]
            shares, groups = are_shares(a, b), None if case.groups is None else case.groups[rows]
            guess = case.measured(trials[:1], "guess")
            least = 0.0 if guess is None else float(guess[0][rows].mean())
            above = score_interval(a, bounded=True, groups=groups, unit=SCORE).low if shares else None
            if shares and (above is None or above <= least):
                got = f"{one.name} scores {fixed(100 * float(a.mean()), 1)} % on {len(a):,} items"
                because = f"{got}: not shown to be above {least:.3g}, so there is nothing to lose."
                raise NoAnswer("not_applicable", because)
        except NoAnswer as gap:
            return self.unanswered(name, gap, title=title, scheme=task)
        share = case.plan.margin if self.settings.margin is None else self.settings.margin
        half = a / 2.0 if shares and a.mean() / 2.0 < share else None
        margin = float(half.mean()) if half is not None else share if shares else case.margin(self.settings.margin)
        sample = Sample((a - b)[None, :], 1.0 if shares else None, groups=groups, margins=half)
        unit = case.plan.task.measure if shares else SCORE
        lost = sample.effect(margin=margin, name=f"loss {task}", unit=unit)
        exact = sample.effect(name="any difference", unit=unit)
        scores = [Estimate.exact(each, float(x.mean()), unit, n=len(x)) for each, x in (("before", a), ("score", b))]
        first, second = int((a > b).sum()), int((b > a).sum())
        mcnemar = "exact McNemar" if "exact McNemar" in exact.method else "paired"
        of_one, of_two = (f"{fixed(100 * float(x.mean()), 1)} %" if shares else f"{x.mean():.3g}" for x in (a, b))
        items = f"{len(a):,} items{'' if groups is None else f' in {len(np.unique(groups)):,} groups'}"
        words = (
            f"{one.name} scores {of_one} on {task}, {rival.name} {of_two}: lost {amount(lost)}{'' if shares else OWN} "
            f"({items}, {first:,} lost, {second:,} gained; {mcnemar} p {_p(exact)} of any difference)."
        )
        claim = Hypothesis(
            test=lost, margin=margin, evidence=sample, one_sided=True, words=LOSS, title=title, scheme=task,
            beside=(exact, *scores), found=words, otherwise=words, brief=words,
        )  # fmt: skip
        return self.draft(case, name, claim, trials)


def compared(plan: Plan) -> list[tuple[SubjectRecord, SubjectRecord]]:
    """Pairs whose scores are compared; ``support`` does so itself with the reference, at one try."""
    pairs = combinations(plan.subjects, 2)
    some = len(plan.subjects) > MOST
    once = any(spec.name == "support" for spec in plan.audits)
    return [(one, two) for one, two in pairs if (not once if one == plan.reference else not some)]


def are_shares(*several: Values) -> bool:
    """Whether all scores lie in [0, 1]."""
    return all(bool(np.min(one) >= 0.0 and np.max(one) <= 1.0) for one in several)


def _p(estimate: Estimate) -> str:
    if estimate.p is None:
        return "unknown"
    return f"{estimate.p:.2g}".replace("0.", ".", 1) if estimate.p >= 1e-4 else f"{estimate.p:.0e}"
