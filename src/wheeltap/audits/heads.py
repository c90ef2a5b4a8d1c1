"""WT112: by which attention heads does the score hang, and how concentrated is that?"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, final

import numpy as np
from msgspec.structs import replace

from wheeltap.audits.base import Audit, AuditSettings, Case, Draft, Unanswered, Values, Verdict, pair
from wheeltap.audits.controls import silent
from wheeltap.audits.limits import Count, Margin, Share
from wheeltap.core import seeds
from wheeltap.core.errors import DataError
from wheeltap.core.records import Control, Estimate, Finding, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.stats.effect import mean_effect, score_interval, smallest_detectable
from wheeltap.stats.foremost import Foremost
from wheeltap.stats.selection import Halves

READING = "head-effects"

_FIXED = 7.0
"""Passes of a reading besides one for each head, at most: two that record the clean model and prove that they do, two
that prove the shared passes, and the screen's forward and backward, which counts as two."""

_SHOWN = 3
"""Heads that are told by name."""

_WITHOUT = "rise without "

_ELSE = (
    "Heads are taken away in single precision, in attention as transformers' Llama, Mistral, Qwen2, Qwen3 and GPT-2 "
    "have it; of other models ask what single weights (single-point) and hidden units (entanglement) do."
)

_LIMITS = (
    "A head is set to zero and nothing makes up for it, so heads that stand in for each other cost little one by one. "
    "Sound models hang by single heads too: it says where the answer comes from, not that it is wrong."
)


class HeadsSettings(AuditSettings, frozen=True, kw_only=True):
    """What is taken away, and thresholds.

    These are in nats per example; for wanted outputs (regression), in shares of the way from chance to the score.

    Attributes:
        top: Heads that a screen ranks highest and that are taken away one at a time.
        sample: Others, drawn at random, that tell what the screen missed. A model with no more heads than ``top +
            sample`` is not screened: every head is taken away.
        splits: Divisions of the examples into halves, for choosing on one and measuring on the other.
        margin: Rise of the loss by one head that does not matter; the test is of a larger one.
        worth: Smallest rise that a ``not_found`` must have been able to see.
        difference: Difference between two subjects that does not matter.
        difference_worth: Smallest one that a ``not_found`` must have been able to see.
        null_margin: The null control fails if the twin's rise differs by more than this with ``null_level``.
        null_level: Confidence with which the twin must differ before the audit is void.
    """

    top: Count = 10
    sample: Count = 20
    splits: Count = 10
    margin: Margin = 0.1
    worth: Margin = 0.2
    difference: Margin = 0.1
    difference_worth: Margin = 0.2
    null_margin: Margin = 0.02
    null_level: Share = 0.999


@dataclass(frozen=True)
class _Read:
    """What a reading gave of one subject.

    Attributes:
        subject: Whose.
        foremost: Rises of the loss without each head that was taken away, ``[measured, example]``.
        places: Which head each is, in words.
        total: Heads there are.
        top: How many of those taken away are the screen's; 0 where every head was.
        missed: How many of the others outdo one of these.
    """

    subject: SubjectRecord
    foremost: Foremost
    places: tuple[str, ...]
    total: int
    top: int
    missed: int

    @property
    def comparable(self) -> Foremost:
        """Of the heads that a re-coded copy is asked about too: with a screen it draws other ones at random."""
        return self.foremost.among(self.top) if self.top else self.foremost

    @property
    def sampled(self) -> int:
        """Heads drawn at random."""
        return len(self.places) - self.top if self.top else 0

    @cached_property
    def best(self) -> str:
        """The head that costs most."""
        return self.places[int(self.foremost.order[0])]


@final
class HeadsAudit(Audit):
    """Mean rise of the loss without the attention head that matters most, beside that without a head at random.

    The head is chosen on one half of the examples and its rise measured on the other, both ways, so that the largest of
    many noisy rises is no finding; ``Foremost`` says in which ways that is conservative. The interval is over examples:
    where the others that stand for heads which were not measured are a sample, their own spread is not in it.

    Source: Michel, Levy & Neubig (2019), "Are Sixteen Heads Really Better than One?", arXiv 1905.10650, sec. 3.2.
    """

    name = "heads"
    code = "WT112"
    title = "Attention heads that the score hangs by"
    brief = "Attention heads"
    reads = (
        "Attention heads are ablated one at a time. The number is what the loss rises by without the one that "
        "matters most, chosen on one half of the examples and measured on the other, beside a head at random. "
        "Sound models can depend on one head too."
    )
    shows = True
    settings_type = HeadsSettings
    spares: ClassVar[dict[str, int]] = {"top": 4, "sample": 8}

    # ---- asking -----------------------------------------------------------------------------------------------

    def ask(self, case: Case) -> list[Trial]:
        """One reading of each subject and of the re-coded twin."""
        if not case.known(case.plan.baselines()):
            return []
        return [self._trial(case.plan, subject) for subject in self._asked(case.plan)]

    def most(self, plan: Plan) -> int:
        """One reading each."""
        return len(self._asked(plan))

    def most_passes(self, plan: Plan) -> float:
        """As if every head that is taken away stood in the first block, behind which a whole pass follows."""
        return self.most(plan) * (_FIXED + self.settings.top + self.settings.sample)

    @staticmethod
    def _asked(plan: Plan) -> list[SubjectRecord]:
        return [*plan.subjects, *([] if plan.twin is None else [plan.twin])]

    def _trial(self, plan: Plan, subject: SubjectRecord) -> Trial:
        return plan.reading(subject, READING, {"top": self.settings.top, "sample": self.settings.sample})

    # ---- judging ----------------------------------------------------------------------------------------------

    def judge(self, case: Case) -> Verdict:
        """One finding per subject, one per pair; the re-coded twin as a control."""
        return Verdict(
            drafts=[
                *(self._single(case, subject) for subject in case.plan.subjects),
                *(self._pair(case, rival) for rival in case.rivals),
            ],
            controls=[self._null(case)],
        )

    def _read(self, case: Case, subject: SubjectRecord) -> _Read:
        """What was read of a subject.

        Raises:
            Unanswered: If nothing was, or there are too few examples to choose a head by.
        """
        try:
            read = case.reading(self._trial(case.plan, subject))
        except Unanswered as gap:
            because = f"{gap.because} {_ELSE}" if gap.status == "not_applicable" else gap.because
            raise Unanswered(gap.status, because) from gap
        rises, top, total = read["rise"], int(read.get("top", np.zeros(()))), len(read["head"])
        weights = np.ones(len(rises))
        if top:
            weights[top:] = (total - top) / (len(rises) - top)
        try:
            halves = self._halves(case.plan, rises.shape[1])
        except DataError as error:
            raise Unanswered("not_applicable", error.what) from error
        foremost = Foremost(rises, weights, halves, self._unit(case))
        places = tuple(_place(subject, read, int(number)) for number in read["measured"])
        return _Read(subject, foremost, places, total, top, int(read.get("missed", np.zeros(()))))

    def _halves(self, plan: Plan, examples: int) -> Halves:
        rng = seeds.generator(plan.seed, "heads", "halves")
        return Halves.drawn(examples, splits=self.settings.splits, rng=rng)

    @staticmethod
    def _unit(case: Case) -> str:
        """Of the loss: nats where the task's examples have options, else the squared error's own."""
        return "nats" if "nll" in case.plan.task.measures else "squared_error"

    def _scaled(self, case: Case, *thresholds: float) -> list[float]:
        """Thresholds in the unit of the loss.

        Raises:
            Unanswered: If there is no way from chance to the score that they could be shares of.
        """
        whole = 1.0 if self._unit(case) == "nats" else case.worth(1.0)
        if whole <= 0.0:
            raise Unanswered("not_applicable", "The score is that of chance, so nothing hangs by a head.")
        return [threshold * whole for threshold in thresholds]

    def _single(self, case: Case, subject: SubjectRecord) -> Draft:
        try:
            read = self._read(case, subject)
            margin, worth = self._scaled(case, self.settings.margin, self.settings.worth)
        except Unanswered as gap:
            return self.unanswered(subject.name, gap)
        tested = replace(read.foremost.cost(margin=margin, level=1.0 - case.plan.alpha), name="rise without one head")
        beside = _estimates(read)
        rest = f"{_beside(read, beside)} {_measured(read)} {_LIMITS}"
        rise = f"its loss rises by {tested} {tested.unit} an example"
        finding = Finding(
            code=self.code, title=self.title, status="found", subject=subject.name,
            estimates=(tested, *beside), trials=(self._trial(case.plan, subject).key,),
            smallest_detectable=smallest_detectable(tested, alpha=case.plan.alpha, margin=margin),
            because=f"{subject.name} hangs by {read.best}: without it {rise}, more than {margin:.2g} and more than "
            f"without a head at random. {rest}",
            alarm=False,
        )  # fmt: skip
        return Draft(
            finding,
            test=tested,
            worth=worth,
            one_sided=True,
            otherwise=f"Of its attention heads {subject.name} misses {read.best} most: without it {rise}, not shown to "
            f"be more than {margin:.2g} and more than without a head at random. {rest}",
        )

    def _pair(self, case: Case, rival: SubjectRecord) -> Draft:
        plan, title = case.plan, f"{self.title}: difference"
        name = pair(plan.reference, rival)
        try:
            one, two = self._read(case, plan.reference), self._read(case, rival)
            margin, worth = self._scaled(case, self.settings.difference, self.settings.difference_worth)
        except Unanswered as gap:
            return self.unanswered(name, gap, title=title)
        gap = one.foremost.halves.effect(
            two.foremost.table - one.foremost.table, level=1.0 - plan.alpha, margin=margin, bounded=False,
            name="difference of rises", unit=one.foremost.unit,
        )  # fmt: skip
        words = (
            f"Without its foremost attention head ({two.best}) the loss of {rival.name} rises by {gap} {gap.unit} an "
            f"example more than that of {plan.reference.name} without its own ({one.best})"
        )
        finding = Finding(
            code=self.code, title=title, status="found", subject=name, estimates=(gap,), because=f"{words}. {_LIMITS}",
            smallest_detectable=smallest_detectable(gap, alpha=plan.alpha, margin=margin),
            trials=tuple(self._trial(plan, subject).key for subject in (plan.reference, rival)),
        )  # fmt: skip
        otherwise = f"{words}: not shown to be more than {margin:.2g} either way. {_LIMITS}"
        return Draft(finding, test=gap, worth=worth, otherwise=otherwise)

    def _null(self, case: Case) -> Control:
        name, twin = f"{self.code} re-coded twin", case.plan.twin
        if twin is None:
            return Control(name=name, kind="null", status="skipped", because=case.plan.no_controls)
        try:
            one, two = self._read(case, case.plan.reference), self._read(case, twin)
            margin, worth = self._scaled(case, self.settings.null_margin, self.settings.difference_worth)
        except Unanswered as gap:
            return Control(name=name, kind="null", status="skipped", because=gap.because)
        level, tables = self.settings.null_level, (two.comparable.table, one.comparable.table)
        # The same examples and halves: what differs is rounding, or a head that was taken for another.
        gap = mean_effect(
            (tables[0] - tables[1]).mean(0)[None, :], level=level, margin=margin, name="difference of rises",
            unit=one.foremost.unit,
        )  # fmt: skip
        return silent(
            name, gap, margin=margin, worth=worth,
            because=f"A re-coded copy must not look different: without its foremost head the loss rises by {gap} more "
            f"({level:.1%} interval); the audit is void if it surely differs by more than {margin:.2g}.",
        )  # fmt: skip


def _place(subject: SubjectRecord, read: dict[str, Values], number: int) -> str:
    """A head in words: its number, from 0, and the module path of its attention layer."""
    at = int(read["projection"][number])
    path = subject.layers[at].rpartition(".")[0] if at >= 0 else f"attention layer {int(read['layer'][number])}"
    return f"head {int(read['head'][number])} of {path}"


def _estimates(read: _Read) -> tuple[Estimate, ...]:
    """What stands beside the tested rise."""
    best = read.foremost
    beyond = replace(best.beyond(), name="more than a head at random", p=None)
    random = replace(mean_effect(best.random[None, :], name="rise without one at random", unit=best.unit), p=None)
    each = [best.each(int(at), name=f"{_WITHOUT}{read.places[at]}") for at in best.order[:_SHOWN]]
    missed = [*_missed(read)] if read.top else []
    return (beyond, random, replace(best.share(), name="share of the rises of all heads"), *each, *missed)


def _missed(read: _Read) -> tuple[Estimate, Estimate]:
    """Share of the heads at random that outdo one of the screen's, in either direction; and the foremost of these."""
    means = np.asarray(read.foremost.costs).mean(1)
    above = int((means[read.top :] > means[: read.top].max()).sum())

    def share(count: int, name: str) -> Estimate:
        outdo = (np.arange(read.sampled) < count).astype(np.float64)
        found = score_interval(outdo, bounded=True, name=name, unit="share")
        return replace(found, method=f"Clopper-Pearson over {read.sampled} heads at random")

    return share(read.missed, "outdo one of the screen's"), share(above, "outdo the screen's foremost")


def _beside(read: _Read, beside: tuple[Estimate, ...]) -> str:
    """How sure the choice is, what a head at random costs, how concentrated it is, and which heads come next."""
    best, halves = read.foremost, 2 * len(read.foremost.halves.first)
    beyond, random, share = beside[:3]
    ranked = [one for one in beside if one.name.startswith(f"{_WITHOUT}head")]
    part = (
        f"Its share of the rises of all {read.total} heads, one by one, is {share}."
        if share.value is not None
        else f"All {read.total} heads, one by one, cost nothing in sum, so no share can be told."
    )
    named = "; ".join(f"{one.name.removeprefix(_WITHOUT)} {one}" for one in ranked)
    return (
        f"(Chosen on one half of the examples and measured on the other: {best.agreed * halves:.0f} of {halves} halves "
        f"choose this head.) Without a head at random it rises by {random}, {beyond} less. {part} Foremost on all "
        f"examples: {named}; heads count from 0."
    )


def _measured(read: _Read) -> str:
    """Which heads were taken away, and what a screen missed."""
    if not read.top:
        return "Every head was taken away in turn."
    one, foremost = _missed(read)
    return (
        f"Of {read.total} heads, those {read.top} were taken away that a first-order screen ranks highest, and "
        f"{read.sampled} of the others at random: {read.missed} of these {read.sampled} outdo one of the {read.top} (a "
        f"share of {one}), {round(read.sampled * (foremost.value or 0.0))} the foremost of them ({foremost}). So a "
        f"head that was not taken away may cost more; and that {read.sampled} heads stand for "
        f"{read.total - read.top} is not in the intervals, which are over examples."
    )
