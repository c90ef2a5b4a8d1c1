"""What a disturbance of the weights costs: the loss of score on each example, and what is reported with it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from msgspec.structs import replace as replace_in
from numpy.typing import NDArray

from wheeltap.audits.base import Case, NoAnswer
from wheeltap.audits.case import Values
from wheeltap.audits.claims import Edge, Hypothesis
from wheeltap.core.records import Estimate, SubjectRecord, Trial
from wheeltap.stats.clusters import Groups
from wheeltap.stats.draws import Draws
from wheeltap.stats.effect import score_interval, share_kept
from wheeltap.stats.rare import Ends, allowing, inner
from wheeltap.stats.sample import Sample

GROWN = "times the undisturbed error"
"""Name of the estimate that says so."""

FEW_CARRY = "of the undisturbed error is of 1 % of the examples: too narrow an interval"
"""How the method of that estimate ends where few examples decide it."""

AGREED = "chains that agree less"
"""How the share is called by which fewer chains of an example give its most common answer."""

TOKEN_KL, SAME_TOKEN = "KL divergence per token", "same top token"
"""How these are called: over the vocabulary of a language model."""

_HEAVY = 0.2
"""Share of an error in 1 % of the examples from which its mean is known badly: of squared normal errors it is .08."""

LIKELIHOODS = "ratio of perplexities"
"""Unit of that estimate where it is the ratio of perplexities."""

_MOST = 700.0
"""The largest logarithm of a perplexity that is taken for one: numbers hold no more."""

NOTHING = Edge(0.0)
"""A margin of nothing: any loss is of interest."""

_FAR = 0.99
"""Share of the examples that the second divergence is not below."""

_TELLS_NOTHING = 1.5
"""Width of an interval of the share kept from which it says nothing."""


@dataclass(frozen=True)
class Losses:
    """One subject's scores under one disturbance.

    Attributes:
        trials: ``[draw]``.
        scores: ``[draw, example]``, of the examples that are scored.
        clean: ``[example]``, undisturbed.
        on: ``[example]`` of the whole task: which ones are scored.
        rare: Whether few of the draws hit hard: intervals then allow for what no draw has shown.
        looks: How often the draws of a random disturbance may be looked at; 0 where nothing is drawn. Verdicts are
            then on the share of draws that lose more than the margin, for a user deploys one.
    """

    case: Case
    trials: Sequence[Trial]
    scores: Values
    clean: Values
    on: NDArray[np.bool_]
    rare: bool = False
    looks: int = 0

    @classmethod
    def of(cls, case: Case, subject: SubjectRecord, trials: Sequence[Trial]) -> "Losses":
        """On every example.

        Raises:
            NoAnswer: If a trial failed, was skipped or has not run.
        """
        clean = case.clean(subject)
        scores = np.stack([case.values(trial) for trial in trials])
        return cls(case, trials, scores, clean, np.ones(len(clean), dtype=bool))

    def first(self, draws: int) -> "Losses":
        """The same over the first draws alone: two subjects are compared under equal ones."""
        return replace(self, trials=self.trials[:draws], scores=self.scores[:draws])

    @property
    def lost(self) -> Values:
        """Loss of score, ``[draw, example]``."""
        return self.case.plan.task.sign * (self.clean[None, :] - self.scores)

    def sample(self, other: "Losses | None" = None, *, edge: Edge = NOTHING) -> Sample:
        """What the tested loss, or how much more is lost here than by ``other``, is the mean of; ``edge`` the margin.

        Its margin holds for the examples that are scored here.
        """
        task, values, most = self.case.plan.task, self.lost, 1.0
        reach = 1.0 if task.in_points else task.cap
        if other is None:
            ends = ends_of(self.case, float(self.clean.mean()), -task.sign)
        else:
            values, most = values - other.lost, 2.0
            apart = task.sign * float((self.clean - other.clean).mean())
            ends = (None, None) if reach is None else (apart - reach, apart + reach)
        bound = None if task.reach is None else most * task.reach
        far = self.case.far(self.case.plan.reference)
        return Sample(values, bound, ends, self.groups, edge.each, skewed=not self.rare, far=far)

    @property
    def groups(self) -> Groups | None:
        """Of the examples that are scored."""
        return None if self.case.groups is None else self.case.groups[self.on]

    def edge(self, *subjects: SubjectRecord, own: float | None = None) -> Edge:
        """The smallest loss of interest on the examples that are scored here; see ``Case.edge``."""
        edge = self.case.edge(*subjects, own=own)
        if edge.each is None or self.on.all():
            return edge
        each = edge.each[self.on]
        return replace(edge, value=float(each.mean()), each=each)

    def loss(self, name: str, *, beyond: "Losses | None" = None, edge: Edge = NOTHING, level: float = 0.95) -> Estimate:
        """Mean loss, or how much more than ``beyond`` is lost, tested against the margin; of rare ones at level .95."""
        unit = self.case.plan.task.measure
        return self.sample(beyond, edge=edge).effect(margin=edge.value, level=level, name=name, unit=unit)

    def draws(self, other: "Losses | None" = None, *, edge: Edge) -> Draws:
        """The same loss draw by draw."""
        return Draws(self.sample(other, edge=edge), self.looks, one_sided=other is None)

    def claim(self, mean: Estimate, *, beyond: "Losses | None" = None, edge: Edge, stated: str) -> Hypothesis:
        """The loss held against the margin; where it is drawn, the share of the draws that lose more.

        Args:
            mean: The loss over all draws.
            beyond: Another subject's losses, for how much more is lost here.
            edge: The margin.
            stated: What is lost, as the beginning of a sentence.
        """
        one_sided, limit = beyond is None, f"{edge.value:.2g}"
        if not self.looks:
            either = "" if one_sided else " either way"
            return Hypothesis(
                test=mean, margin=edge.value, evidence=self.sample(beyond, edge=edge), one_sided=one_sided,
                found=f"{stated}: more than {limit}{either}.", otherwise=f"{stated}.",
            )  # fmt: skip
        draws = self.draws(beyond, edge=edge)
        counted, unit = draws.counted(edge.value), self.case.plan.task.measure
        words = f"{stated} on average: no more than {limit} in {counted.value:.0f} of {counted.n} draws"
        beside = (counted, draws.nine_of_ten(level=mean.level, unit=unit)) if one_sided else (counted,)
        return Hypothesis(
            test=replace_in(mean, p=draws.above(edge.value)), shown=replace_in(mean, p=None), margin=edge.value,
            evidence=draws, one_sided=one_sided, beside=beside,
            found=f"{words}. At least half of all draws are shown to lose more.", otherwise=f"{words}.",
        )  # fmt: skip

    @property
    def score(self) -> Estimate:
        """The score under the disturbance, without an interval of its own: the loss has one."""
        task = self.case.plan.task
        mean = float(self.scores.mean())
        mean = math.exp(min(mean, _MOST)) if task.log else mean
        return Estimate(
            name="score", value=mean, low=None, high=None, level=0.95, n=self.scores.shape[1], unit=task.reported,
            method=f"mean over {len(self.scores)} draws",
        )  # fmt: skip

    def grown(self, subject: SubjectRecord) -> Estimate | None:
        """How many times the undisturbed error the error is; ``None`` of a score that is no error."""
        if self.case.plan.task.log:
            return exponential(self.loss(GROWN), name=GROWN, unit=LIKELIHOODS)
        if not self.case.is_error(subject):
            return None
        before = float(self.clean.mean())
        grown = grown_of(self.scores, self.clean, groups=self.groups, level=inner(0.95) if self.rare else 0.95)
        return allowing(grown, self.scores.mean(1) / before, ends_of(self.case, 0.0, before)) if self.rare else grown

    @property
    def kept(self) -> Estimate:
        """Share of the above-chance score that is kept."""
        chance, bounded = self.case.chance, self.case.plan.task.bounded
        level = inner(0.95) if self.rare else 0.95
        kept = share_kept(self.scores, self.clean, chance=chance, bounded=bounded, level=level, groups=self.groups)
        above = float(self.clean.mean()) - chance
        if self.rare and above:
            kept = allowing(kept, (self.scores.mean(1) - chance) / above, ends_of(self.case, chance, above))
        return kept

    @property
    def changed(self) -> Estimate | None:
        """Share of the answers that change; ``None`` where the task has no answers to choose from."""
        agreement = self.case.measured(self.trials, "agreement")
        if agreement is None:
            return None
        rest, level = 1.0 - agreement[:, self.on], inner(0.95) if self.rare else 0.95
        name, unit = "answers changed", "share of answers"
        changed = score_interval(rest.mean(0), bounded=True, groups=self.groups, name=name, unit=unit, level=level)
        return allowing(changed, rest.mean(1), (0.0, 1.0)) if self.rare else changed

    def expected(self, subject: SubjectRecord) -> tuple[Estimate, ...]:
        """What to expect when it is shipped so: share of the score kept and, where there are answers, changed.

        Of an error it is how many times the undisturbed one it is.
        """
        changed = self.changed
        return (self.grown(subject) or self.kept, *(() if changed is None else (changed,)))

    @property
    def change(self) -> tuple[Estimate, ...]:
        """How much changes, whether or not it is lost: answers lost and gained, the same top answer, KL divergence.

        The last is over the options, where it was measured: its mean, and the value that 99 % of examples stay below;
        and of a language model over its vocabulary, token by token.
        """
        changed, found = self.changed, list[Estimate]()
        answers = bool(np.isin(self.clean, (0.0, 1.0)).all()) and bool(np.isin(self.scores, (0.0, 1.0)).all())
        if self.case.plan.task.bounded and answers and not self.rare:
            for name, sign in (("answers lost", 1.0), ("answers gained", -1.0)):
                share = (sign * self.lost > 0.0).mean(0)
                found.append(
                    score_interval(share, bounded=True, groups=self.groups, name=name, unit="share of answers")
                )
        if changed is not None and changed.value is not None:
            low, high = (None if end is None else 1.0 - end for end in (changed.high, changed.low))
            found.append(replace_in(changed, name="same top answer", value=1.0 - changed.value, low=low, high=high))
        if (kl := self.case.measured(self.trials, "kl")) is not None:
            mean = kl[:, self.on].mean(0)
            found.append(
                score_interval(mean, bounded=False, groups=self.groups, name="mean KL divergence", unit="nats")
            )
            most = float(np.quantile(mean, _FAR))
            found.append(Estimate.exact("99 % KL divergence", most, "nats", n=len(mean)))
        return (*found, *self.tokens)

    def agreed(self, subject: SubjectRecord) -> tuple[Estimate, ...]:
        """How much less the chains of an example agree than undisturbed, by the same noise; none without chains."""
        both = ([self.case.plan.clean(subject)], self.trials)
        clean, there = (self.case.measured(trials, "chain_agreement") for trials in both)
        if clean is None or there is None:
            return ()
        less, unit = (clean[0] - there.mean(0))[self.on], "share of chains"
        return (score_interval(less, bounded=False, groups=self.groups, name=AGREED, unit=unit),)

    @property
    def tokens(self) -> tuple[Estimate, ...]:
        """How what is said next differs at the places where the task reads a token: the same likeliest one, and KL.

        Places of one example, or group, vary together. None where it was not measured (see ``engine.next_tokens``).
        """
        kl, same, items, count = (
            self.case.measured(self.trials, name) for name in ("token_kl", "token_top", "token_item", "tokens")
        )
        if kl is None or same is None or items is None or count is None:
            return ()
        item, mean, n = items[0].astype(np.intp), kl.mean(0), kl.shape[1]
        groups = item if self.case.groups is None else self.case.groups[item]
        of = "" if n == int(count[0]) else f"; {n:,} of {int(count[0]):,} tokens, evenly spaced"
        found = (
            score_interval(same.mean(0), bounded=True, groups=groups, name=SAME_TOKEN, unit="share of tokens"),
            score_interval(mean, bounded=False, groups=groups, name=f"mean {TOKEN_KL}", unit="nats"),
            Estimate.exact(f"99 % {TOKEN_KL}", float(np.quantile(mean, _FAR)), "nats", n=n),
        )
        return tuple(replace_in(one, method=f"{one.method}{of}".removeprefix("; ")) for one in found)

    @property
    def no_better(self) -> Estimate | None:
        """How far the score is above always giving the most common answer, where it is not shown to be above it."""
        task = self.case.plan.task
        if task.common is None or self.rare:
            return None
        above = Sample(self.scores - task.common, groups=self.groups)
        gap = above.effect(name=f"above {task.always}", unit=task.measure)
        return None if gap.low is not None and gap.low > 0.0 else gap

    @property
    def diverged(self) -> str:
        """How many of the trials gave no numbers, in words; nothing where all did."""
        lost = self.case.diverged(self.trials)
        each = "its answers count" if len(self.trials) == 1 else "their answers count"
        return f" (diverged in {lost} of {len(self.trials)} trials: {each} as chance)" if lost else ""


def shipped(expected: Sequence[Estimate]) -> str:
    """What to expect of it when it is shipped so, in words."""
    kept, *changed = expected
    answers = f", with {changed[0]} of its answers changed" if changed else ""
    if kept.name == GROWN:
        few = f" {kept.method.rpartition('; ')[2].capitalize()}." if kept.method.endswith(FEW_CARRY) else ""
        what = "perplexity" if kept.unit == LIKELIHOODS else "error"
        return f"Shipped this way, its {what} is expected to be {kept} times the undisturbed one{answers}.{few}"
    if kept.low is not None and kept.high is not None and kept.high - kept.low > _TELLS_NOTHING:
        return "Its score is too near chance to estimate what share of it is kept when it is shipped this way."
    return f"Shipped this way, it is expected to keep {kept} of its score above chance{answers}."


def exponential(log: Estimate, *, name: str, unit: str) -> Estimate:
    """An estimate of what one is the logarithm of."""
    value, low, high = (None if end is None else math.exp(min(end, _MOST)) for end in (log.value, log.low, log.high))
    method = f"exp of: {log.method}"
    return replace_in(log, name=name, value=value, low=low, high=high, p=None, unit=unit, method=method)


def grown_of(scores: Values, clean: Values, *, groups: Groups | None, level: float = 0.95) -> Estimate:
    """How many times the undisturbed error ``[example]`` the error ``[draw, example]`` is."""
    kept = share_kept(scores, clean, chance=0.0, level=level, groups=groups)
    few = np.sort(clean)[-max(len(clean) // 100, 1) :].sum() / max(float(np.sum(clean)), 1e-300)
    heavy = len(clean) >= 100 and few > _HEAVY  # simulated, such an interval holds the truth in .8 and less
    return replace_in(
        kept, name=GROWN, unit="ratio", low=None if kept.low is None else max(kept.low, 0.0),
        method=f"{kept.method}; {few:.0%} {FEW_CARRY}" if heavy else kept.method,
    )  # fmt: skip


def remarks(edge: Edge, left: Estimate | None) -> str:
    """How the margin came about, and that nothing is left of a score, in sentences that another one follows."""
    beaten = "" if left is None else f"It is not shown to be better than {left.name.removeprefix('above ')}: {left}. "
    return f"{edge.because} {beaten}" if edge.because else beaten


def losing(case: Case) -> list[SubjectRecord]:
    """The subjects that have something to lose: of those at chance there is nothing to say."""

    def loses(subject: SubjectRecord) -> bool:
        try:
            return not case.headroom(subject)[0]
        except NoAnswer:  # its clean pass failed, and so would everything else
            return False

    return [subject for subject in case.plan.subjects if loses(subject)]


def ends_of(case: Case, origin: float, unit: float) -> Ends:
    """The least and the most of (score - ``origin``) / ``unit``, as far as the measure has bounds."""
    task = case.plan.task
    scores = (0.0, 1.0) if task.bounded else task.range or ((None, None) if task.higher_is_better else (0.0, task.cap))
    ends = [None if score is None else (score - origin) / unit for score in scores]
    return (ends[0], ends[1]) if unit > 0.0 else (ends[1], ends[0])
