"""WT112: on which attention heads does the score depend, and how concentrated is that?"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, final

import numpy as np
from msgspec.structs import replace

from wheeltap.audits.base import Case, Count, Hypothesis, Margin, NoAnswer
from wheeltap.audits.case import Arrays
from wheeltap.audits.controls import NULL_LEVEL
from wheeltap.audits.reading_audit import ReadingAudit
from wheeltap.core import seeds
from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate, SubjectRecord
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.head_effects import HEAD_EFFECTS, HeadEffectsSettings
from wheeltap.stats.effect import score_interval
from wheeltap.stats.evidence import Evidence, Largest, NoEvidence
from wheeltap.stats.sample import Sample, largest_gap
from wheeltap.stats.selection import Halves
from wheeltap.stats.top_ranked import TopRankedLoss

_FIXED = 7.0
"""Passes of a reading besides one for each head, at most: two that record the clean model and prove that they do, two
that prove the shared passes, and the screen's forward and backward, which counts as two."""

_SPLITS = 10
"""Divisions of the examples into halves, for choosing on one and measuring on the other."""

_SHOWN = 3
"""Heads that a sentence names."""

_WITHOUT = "rise without "

_ELSE = (
    "Heads are ablated in single precision, in attention of known classes, as transformers' Llama, GPT-2 or BERT have "
    "it (docs/gauges.md lists them), or such that the outputs prove; of other models ask what single weights "
    "(single-point) and hidden units (entanglement) do."
)

_LIMITS = (
    "A head is set to zero and nothing replaces it, so heads that can replace each other cost little one by one. "
    "Good models depend on single heads too: this shows where the answer comes from, not that it is wrong."
)

_NULL_MARGIN = 0.02
"""Difference of the copy's rise of the loss beyond which the null control fails."""


class HeadsSettings(HeadEffectsSettings, frozen=True, kw_only=True):
    """What is ablated, and thresholds.

    These are in nats per example; for wanted outputs (regression), in shares of the way from chance to the score.

    Attributes:
        top: Heads that a screen ranks highest and that are ablated one at a time.
        sample: Others, drawn at random, that tell what the screen missed. A model with no more heads than ``top +
            sample`` is not screened: every head is ablated.
        margin: Rise of the loss by one head that does not matter; the test is of a larger one.
        difference: Difference between two subjects that does not matter.
        difference_min_effect: Difference that the null control must have been able to see.
    """

    top: Count = 10
    sample: Count = 20
    margin: Margin = 0.1
    difference: Margin = 0.1
    difference_min_effect: Margin = 0.2


@dataclass(frozen=True)
class _HeadEffects:
    """What a reading gave of one subject.

    Attributes:
        subject: Whose.
        top_ranked: Rises of the loss without each head that was ablated, ``[measured, example]``.
        places: Which head each is, in words.
        total: Heads there are.
        top: How many of those ablated are the screen's; 0 where every head was.
        missed: How many of the others outdo one of these.
    """

    subject: SubjectRecord
    top_ranked: TopRankedLoss
    places: tuple[str, ...]
    total: int
    top: int
    missed: int

    @property
    def comparable(self) -> TopRankedLoss:
        """Of the heads that a re-coded copy is asked about too: with a screen it draws other ones at random."""
        return self.top_ranked.among(self.top) if self.top else self.top_ranked

    @property
    def sampled(self) -> int:
        """Heads drawn at random."""
        return len(self.places) - self.top if self.top else 0

    def evidence(self, case: Case) -> Evidence:
        """That no head costs as much as the margin: known only where every head was ablated."""
        costs = np.asarray(self.top_ranked.costs)
        return NoEvidence() if self.top else Largest([Sample(row[None], groups=case.groups) for row in costs])

    @cached_property
    def best(self) -> str:
        """The head that costs most."""
        return self.places[int(self.top_ranked.order[0])]


@final
class HeadsAudit(ReadingAudit[_HeadEffects]):
    """Mean rise of the loss without the attention head that matters most, beside that without a head at random.

    The head is chosen on one half of the examples and its rise measured on the other, both ways, so that the largest of
    many noisy rises is no finding; ``TopRankedLoss`` says in which ways that is conservative. The interval is over
    examples: where the others that represent heads which were not measured are a sample, their own spread is not in it.

    Source: Michel, Levy & Neubig (2019), "Are Sixteen Heads Really Better than One?", arXiv 1905.10650, sec. 3.2.
    """

    name = "heads"
    code = "WT112"
    title = "Attention heads that the score depends on"
    brief = "Attention heads"
    reads = (
        "Attention heads are ablated one at a time. The number is what the loss rises by without the one that "
        "matters most, chosen on one half of the examples and measured on the other, beside a head at random. "
        "Good models can depend on one head too."
    )
    shows = True
    settings_type = HeadsSettings
    spares: ClassVar[dict[str, int]] = {"top": 4, "sample": 8}
    reading = HEAD_EFFECTS

    def passes(self, plan: Plan, subject: SubjectRecord) -> float:
        """As if every head that is ablated stood in the first block, behind which a whole pass follows."""
        return _FIXED + self.settings.top + self.settings.sample

    def read(self, case: Case, subject: SubjectRecord, *, seed: int = 0) -> _HeadEffects:
        """What was read; says what else to ask where attention is not known."""
        try:
            return super().read(case, subject, seed=seed)
        except NoAnswer as gap:
            because = f"{gap.because} {_ELSE}" if gap.status == "not_applicable" else gap.because
            raise NoAnswer(gap.status, because) from gap

    def parsed(self, case: Case, subject: SubjectRecord, read: Arrays) -> _HeadEffects:
        """Rises of the loss, with what each stands for where the other heads are a sample."""
        rises, top, total = read["rise"], int(read.get("top", 0)), len(read["head"])
        weights = np.ones(len(rises))
        if top:
            weights[top:] = (total - top) / (len(rises) - top)
        rng = seeds.generator(case.plan.seed, "heads", "halves")
        try:
            halves = Halves.drawn(rises.shape[1], splits=_SPLITS, groups=case.groups, rng=rng)
        except DataError as error:
            raise NoAnswer("not_applicable", error.what) from error
        top_ranked = TopRankedLoss(rises, weights, halves, self._unit(case))
        places = tuple(_place(subject, read, int(number)) for number in read["measured"])
        return _HeadEffects(subject, top_ranked, places, total, top, int(read.get("missed", 0)))

    @staticmethod
    def _unit(case: Case) -> str:
        """Of the loss: nats where the task's examples have options, else the squared error's own."""
        return "nats" if "nll" in case.plan.task.measures else "squared_error"

    def _scaled(self, case: Case, *thresholds: float) -> list[float]:
        """Thresholds in the unit of the loss.

        Raises:
            NoAnswer: If there is no way from chance to the score that they could be shares of.
        """
        whole = 1.0 if self._unit(case) == "nats" else case.scaled(1.0)
        if whole <= 0.0:
            raise NoAnswer("not_applicable", "The score is that of chance, so no head matters to it.")
        return [threshold * whole for threshold in thresholds]

    def singles(self, case: Case, subject: SubjectRecord, read: _HeadEffects) -> list[Hypothesis]:
        """Whether the loss rises without the head that matters most."""
        (margin,) = self._scaled(case, self.settings.margin)
        tested = replace(read.top_ranked.cost(margin=margin, level=1.0 - case.plan.alpha), name="rise without one head")
        beside = _estimates(read)
        rest = f"{_beside(read, beside)} {_measured(read)} {_LIMITS}"
        rise = f"its loss rises by {tested} {tested.unit} an example"
        claim = Hypothesis(
            test=tested, margin=margin, evidence=read.evidence(case), beside=beside, one_sided=True, alarm=False,
            by_example=False,  # halves are of groups
            found=f"{subject.name} depends on {read.best}: without it {rise}, more than {margin:.2g} and more than "
            f"without a head at random. {rest}",
            otherwise=f"Of its attention heads {subject.name} depends most on {read.best}: without it {rise}, not "
            f"shown to be more than {margin:.2g} and more than without a head at random. {rest}",
        )  # fmt: skip
        return [claim]

    def compared(self, case: Case, rival: SubjectRecord, one: _HeadEffects, two: _HeadEffects) -> Hypothesis:
        """Whose loss rises more without its own top-ranked head."""
        margin, min_effect = self._scaled(case, self.settings.difference, self.settings.difference_min_effect)
        evidence: Evidence = NoEvidence()  # see ``_HeadEffects.evidence``
        if not (one.top or two.top):
            first, second = (np.asarray(read.top_ranked.costs) for read in (one, two))
            evidence = largest_gap(first, second, bound=None, groups=case.groups)
        gap = one.top_ranked.halves.effect(
            two.top_ranked.table - one.top_ranked.table, level=1.0 - case.plan.alpha, margin=margin, bounded=False,
            name="difference of rises", unit=one.top_ranked.unit,
        )  # fmt: skip
        words = (
            f"Without its top-ranked attention head ({two.best}) the loss of {rival.name} rises by {gap} {gap.unit} an "
            f"example more than that of {one.subject.name} without its own ({one.best})"
        )
        return Hypothesis(
            test=gap, margin=margin, evidence=evidence, min_effect=min_effect,
            by_example=False,
            found=f"{words}. {_LIMITS}",
            otherwise=f"{words}: not shown to be more than {margin:.2g} either way. {_LIMITS}",
        )  # fmt: skip

    def null(self, case: Case, one: _HeadEffects, two: _HeadEffects) -> Hypothesis:
        """The same examples and halves: what differs is rounding, or a head that was taken for another."""
        margin, min_effect = self._scaled(case, _NULL_MARGIN, self.settings.difference_min_effect)
        level, tables = NULL_LEVEL, (two.comparable.table, one.comparable.table)
        sample = Sample((tables[0] - tables[1]).mean(0)[None, :], groups=case.groups)
        gap = sample.effect(level=level, margin=margin, name="difference of rises", unit=one.top_ranked.unit)
        return Hypothesis(
            test=gap, margin=margin, min_effect=min_effect,
            found=f"A reparametrized copy must not look different: without its top-ranked head the loss rises by "
            f"{gap} more ({level:.1%} interval); the run is void if it is shown to differ by more than {margin:.2g}.",
        )  # fmt: skip


def _place(subject: SubjectRecord, read: Arrays, number: int) -> str:
    """A head in words: its number, from 0, and the module path of its attention layer."""
    at = int(read["projection"][number])
    path = subject.layers[at].rpartition(".")[0] if at >= 0 else f"attention layer {int(read['layer'][number])}"
    return f"head {int(read['head'][number])} of {path}"


def _estimates(read: _HeadEffects) -> tuple[Estimate, ...]:
    """What stands beside the tested rise."""
    best = read.top_ranked
    beyond = replace(best.beyond(), name="more than a head at random", p=None)
    random = Sample(best.random[None, :], groups=best.halves.groups)
    random = replace(random.effect(name="rise without one at random", unit=best.unit), p=None)
    each = [best.each(int(at), name=f"{_WITHOUT}{read.places[at]}") for at in best.order[:_SHOWN]]
    missed = [*_missed(read)] if read.top else []
    return (beyond, random, replace(best.share(), name="share of the rises of all heads"), *each, *missed)


def _missed(read: _HeadEffects) -> tuple[Estimate, Estimate]:
    """Share of the heads at random that outdo one of the screen's, in either direction; and the top-ranked of these."""
    means = np.asarray(read.top_ranked.costs).mean(1)
    above = int((means[read.top :] > means[: read.top].max()).sum())

    def share(count: int, name: str) -> Estimate:
        outdo = (np.arange(read.sampled) < count).astype(np.float64)
        found = score_interval(outdo, bounded=True, name=name, unit="share")
        return replace(found, method=f"Clopper-Pearson over {read.sampled} heads at random")

    return share(read.missed, "above one of the screen's"), share(above, "above the screen's top-ranked")


def _beside(read: _HeadEffects, beside: tuple[Estimate, ...]) -> str:
    """How sure the choice is, what a head at random costs, how concentrated it is, and which heads come next."""
    best, halves = read.top_ranked, 2 * len(read.top_ranked.halves.first)
    beyond, random, share = beside[:3]
    ranked = [one for one in beside if one.name.startswith(f"{_WITHOUT}head")]
    part = (
        f"Its share of the rises of all {read.total} heads, one by one, is {share}."
        if share.value is not None
        else f"All {read.total} heads, one by one, cost nothing in sum, so there is no share."
    )
    named = "; ".join(f"{one.name.removeprefix(_WITHOUT)} {one}" for one in ranked)
    return (
        f"(Chosen on one half of the examples and measured on the other: {best.agreed * halves:.0f} of {halves} halves "
        f"choose this head.) Without a head at random it rises by {random}, {beyond} less. {part} Top-ranked on all "
        f"examples: {named}; heads count from 0."
    )


def _measured(read: _HeadEffects) -> str:
    """Which heads were ablated, and what a screen missed."""
    if not read.top:
        return "Every head was ablated in turn."
    one, best = _missed(read)
    return (
        f"Of {read.total} heads, those {read.top} were ablated that a first-order screen ranks highest, and "
        f"{read.sampled} of the others at random: {read.missed} of these {read.sampled} exceed one of the "
        f"{read.top} (a "
        f"share of {one}), {round(read.sampled * (best.value or 0.0))} the top-ranked of them ({best}). So a "
        f"head that was not ablated may cost more; and that {read.sampled} heads represent "
        f"{read.total - read.top} is not in the intervals, which are over examples."
    )
