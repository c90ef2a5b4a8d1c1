"""WT304: is a circuit stable: found again by another search, and right when the prompts are worded otherwise?"""

from itertools import combinations
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Case, Tested, Unanswered
from wheeltap.audits.circuit import CircuitAudit
from wheeltap.audits.circuit_read import CircuitRead
from wheeltap.audits.claims import Cells, Words
from wheeltap.core.records import Estimate, SubjectRecord, Trial

_WORDS: Final = Words("fails when rephrased", "holds when rephrased", "may fail when rephrased", "cannot tell")


@final
class CircuitStableAudit(CircuitAudit):
    """Rise of the loss on rephrased pairs with the circuit alone, and how often units come back in other searches."""

    name = "circuit-stable"
    code = "WT304"
    title = "Circuit is stable"
    brief = "rise when rephrased"
    reads = (
        "Whether the circuit does the task when the prompts are worded otherwise, and how many of its units other "
        "searches find again. Circuits that vary from search to search are one of many that would do."
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
        """Of both claims."""
        return (f"{self.title}: rephrased", f"{self.title}: other searches")

    def singles(self, case: Case, subject: SubjectRecord, read: CircuitRead) -> list[Tested]:
        """On rephrased pairs, and beside other searches."""
        return [self._worded(case, subject), self._again(case, subject)]

    def _worded(self, case: Case, subject: SubjectRecord) -> Tested:
        title = self.titles()[0]
        try:
            read = self.parsed(subject, case.reading(self.effects(case, subject, rephrased=True)))
        except Unanswered as gap:
            return Tested(test=None, title=title, status="not_applicable", found=gap.because, alarm=False)
        loss, margin = read.loss("keep mean"), self.settings.tolerance * read.beyond
        rise = read.rise(loss, name="rise of the loss on rephrased pairs", margin=margin)
        numbers = f"The loss is {loss.mean():.3f} nats, of the whole net {read.own:.3f}: a rise of {rise}."
        return Tested(
            test=rise, margin=margin, cells=Cells((loss - read.loss("whole"))[None, :], bounded=False), words=_WORDS,
            one_sided=True, title=title,
            found=f"The circuit fails on prompts that say the same in other words. {numbers}",
            otherwise=f"On prompts that say the same in other words: {numbers}",
        )  # fmt: skip

    def _again(self, case: Case, subject: SubjectRecord) -> Tested:
        title, kept = self.titles()[1], list[NDArray[np.bool_]]()
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
