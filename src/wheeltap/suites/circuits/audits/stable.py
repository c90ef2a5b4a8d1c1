"""WT304: is a circuit stable: as good on pairs held out, right when prompts are worded otherwise, and found again?"""

from itertools import combinations
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Case, Tested, Unanswered
from wheeltap.audits.claims import Words
from wheeltap.core.records import Estimate, SubjectRecord, Trial
from wheeltap.stats.evidence import Members
from wheeltap.stats.members import Scale, difference
from wheeltap.suites.circuits.audits.common import CircuitAudit
from wheeltap.suites.circuits.audits.read import CircuitRead

_WORDS: Final = Words("fails when rephrased", "holds when rephrased", "may fail when rephrased", "cannot tell")
_HELD: Final = Words("worse on held-out pairs", "as good on held-out pairs", "may be worse on held-out pairs")

FEW: Final = 16
"""Pairs searched from which on a circuit of a small net has about the same loss on others: with 2 to 4, .02 to .06 nats
where it was searched can be .3 to .5 on others."""

_UNKNOWN: Final = (
    "It is not known which pairs the circuit was found on. If it was found on these, all its figures are too good: a "
    "search fits the pairs it is given. Judge it on pairs that are new to it."
)


@final
class CircuitStableAudit(CircuitAudit):
    """Rise of the loss on held-out and on rephrased pairs, and how often units come back in other searches."""

    name = "circuit-stable"
    code = "WT304"
    title = "Circuit is stable"
    brief = "rise when rephrased"
    reads = (
        "Whether the circuit does as well on held-out pairs as on those it was searched on, does the task when the "
        "prompts are worded otherwise, and how many of its units other searches find again. Circuits that vary from "
        "search to search are one of many that would do."
    )

    def more(self, case: Case, subject: SubjectRecord) -> list[Trial]:
        """What it does on rephrased pairs; searches by other seeds."""
        return [self.effects(case, subject, rephrased=True), *self._searches(case, subject)]

    def most_more(self) -> int:
        """One for each search, and one more."""
        return 1 + self.settings.again

    def _searches(self, case: Case, subject: SubjectRecord) -> list[Trial]:
        penalty = self.chosen(case, subject).penalty
        return [self.search(case.plan, subject, penalty=penalty, seed=1 + at) for at in range(self.settings.again)]

    def titles(self) -> tuple[str, ...]:
        """Of the claims."""
        return (f"{self.title}: held-out pairs", f"{self.title}: rephrased", f"{self.title}: other searches")

    def singles(self, case: Case, subject: SubjectRecord, read: CircuitRead) -> list[Tested]:
        """On held-out pairs, on rephrased ones, and beside other searches."""
        return [self._held(read), self._worded(case, subject), self._again(case, subject)]

    def _held(self, read: CircuitRead) -> Tested:
        """Whether the loss is higher on held-out pairs than it is on those that the circuit was searched on."""
        title = self.titles()[0]
        if self.settings.circuit and not self.settings.searched_here:
            return Tested(test=None, title=title, status="not_applicable", found=_UNKNOWN, brief=_UNKNOWN, alarm=False)
        searched, held = read.searched, read.loss(f"keep {self.settings.ablation}")
        # Other pairs, so two samples: the loss on those searched has noise of its own.
        name = "rise of the loss on held-out pairs"
        # Pairs are examples, and no few nets of a study: Welch's t alone.
        test = difference(held.tolist(), searched.tolist(), scale=Scale("nats", bounded=True), name=name)
        margin = self.settings.tolerance * read.beyond
        rise = test.toward("more", margin=margin)
        brief = (
            f"Its loss is {searched.mean():.3f} nats on the {_pairs(len(searched))} that it was searched on, "
            f"{held.mean():.3f} on {len(held):,} held out."
        )
        if len(searched) < FEW:
            brief = (
                f"{brief} It was searched on only {_pairs(len(searched))}: a circuit can fit so few without doing the "
                f"task. Give at least {2 * FEW} pairs (half are searched on)."
            )
        return Tested(
            test=rise, margin=margin, evidence=Members(test, "more"), words=_HELD, one_sided=True, title=title,
            found=f"The circuit fits the pairs that it was searched on and does worse on others. {brief} Rise {rise}.",
            otherwise=f"{brief} Rise {rise}.", brief=brief,
        )  # fmt: skip

    def _worded(self, case: Case, subject: SubjectRecord) -> Tested:
        title = self.titles()[1]
        try:
            read = self.parsed(subject, case.reading(self.effects(case, subject, rephrased=True)))
        except Unanswered as gap:
            return Tested(test=None, title=title, status="not_applicable", found=gap.because, alarm=False)
        how = f"keep {self.settings.ablation}"
        sample = read.rises(how, share=self.settings.tolerance)
        margin = sample.margin
        rise = sample.effect(margin=margin, name="rise of the loss on rephrased pairs", unit="nats")
        numbers = f"The loss is {read.loss(how).mean():.3f} nats, of the whole net {read.own:.3f}: a rise of {rise}."
        return Tested(
            test=rise, margin=margin, evidence=sample, words=_WORDS,
            one_sided=True, title=title,
            found=f"The circuit fails on prompts that say the same in other words. {numbers}",
            otherwise=f"On prompts that say the same in other words: {numbers}",
        )  # fmt: skip

    def _again(self, case: Case, subject: SubjectRecord) -> Tested:
        title, kept = self.titles()[2], list[NDArray[np.bool_]]()
        for trial in self._searches(case, subject):
            try:
                found = case.reading(trial)
            except Unanswered as gap:
                return Tested(test=None, title=title, status=gap.status, found=gap.because, alarm=False)
            if int(found["size"]):
                kept.append(found["rank"] < int(found["size"]))
        if len(kept) < 2:
            says = f"Of {self.settings.again} searches by other seeds {len(kept)} reach the target."
            return Tested(test=None, title=title, status="inconclusive", found=says, alarm=False)
        shared = [float((one & two).sum() / (one | two).sum()) for one, two in combinations(kept, 2)]
        often = np.mean(kept, axis=0)
        unit = f"share of {self.parts}"
        always, once = int((often == 1.0).sum()), int((often > 0.0).sum())
        sizes = ", ".join(f"{int(one.sum()):,}" for one in kept)
        return Tested(
            test=None, title=title, status="measured", alarm=False,
            beside=(Estimate.exact("shared by two searches", float(np.mean(shared)), unit, n=len(shared)),
                    Estimate.exact("in every one", always / once, unit, n=len(kept))),
            found=f"{len(kept)} searches by other seeds find circuits of {sizes} {self.parts}. Two of them share "
            f"{np.mean(shared):.0%} of their {self.parts}; of {once:,} that any has, {always:,} are in every one.",
        )  # fmt: skip


def _pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count:,} pairs"
