"""WT303: would a circuit be found where there is none? Random circuits, a net without training, answers swapped."""

from typing import Final, final

import numpy as np

from wheeltap.audits.base import Case, Tested, Unanswered
from wheeltap.audits.case import Arrays
from wheeltap.audits.claims import Words
from wheeltap.core.records import Estimate, SubjectRecord, Trial
from wheeltap.stats._scipy import binomial_share
from wheeltap.suites.circuits.audits.common import CircuitAudit
from wheeltap.suites.circuits.audits.read import CircuitRead
from wheeltap.suites.circuits.specs import Null

LEVEL: Final = 0.05
"""P-value from which a circuit is called better than random ones of its size."""

NOT_EVIDENCE: Final = "This circuit is not evidence"

NULLS: Final[dict[Null, str]] = {
    "weights": "the same net with its weights in random order",
    "labels": "the net as it is, with the two answers swapped",
}
"""What is searched where no circuit should be found, in words."""

_TITLES: Final[dict[Null, str]] = {"weights": "weights in random order", "labels": "answers swapped"}

_WORDS: Final = Words("not evidence", "not found there", "cannot tell")

_ALIKE: Final = {"units": "with as many units of each site", "edges": "with as many edges into each layer"}


@final
class CircuitNullsAudit(CircuitAudit):
    """Whether random circuits of its size do as well, and whether the same search succeeds where nothing is."""

    name = "circuit-nulls"
    code = "WT303"
    title = "Circuit beats its nulls"
    brief = "found where nothing is"
    reads = (
        "Whether random circuits of the same size do as well, and whether the same search finds a circuit in a net "
        "that knows nothing, or for answers that the net does not give. Where it does, a small circuit shows nothing."
    )

    def more(self, case: Case, subject: SubjectRecord) -> list[Trial]:
        """Every search in a null."""
        return [trial for null in self.searched for trial in self._searches(case, subject, null)]

    def most_more(self) -> int:
        """One for each try."""
        return len(self.searched) * self.settings.tries

    def _searches(self, case: Case, subject: SubjectRecord, null: Null) -> list[Trial]:
        penalty = self.chosen(case, subject).penalty
        seeds = range(self.settings.tries)
        return [self.search(case.plan, subject, penalty=penalty, null=null, seed=at) for at in seeds]

    def titles(self) -> tuple[str, ...]:
        """Of every claim."""
        return (f"{self.title}: random circuits", *(f"{self.title}: {_TITLES[null]}" for null in self.searched))

    def singles(self, case: Case, subject: SubjectRecord, read: CircuitRead) -> list[Tested]:
        """Beside random circuits, and in each null."""
        return [self._random(read), *(self._null(case, subject, null) for null in self.searched)]

    @property
    def searched(self) -> tuple[Null, ...]:
        """Nulls that are searched in. Where edges are patched, an empty circuit swaps the answers."""
        return tuple(null for null in NULLS if null != "labels" or self.settings.ablation != "patch")

    def _random(self, read: CircuitRead) -> Tested:
        by = self.settings.ablation
        own, removed = (float(read.loss(f"{what} {by}").mean()) for what in ("keep", "remove"))
        kept, gone = read.read["random"].astype(np.float64), read.read["random_removed"].astype(np.float64)
        as_good, as_bad = int((kept <= own).sum()), int((gone >= removed).sum())
        p = (1 + as_good) / (1 + len(kept))
        better = p <= LEVEL
        says = (
            "The circuit does better than random ones of its size."
            if better
            else "The circuit is not shown to do better than random ones of its size."
        )
        numbers = (
            f"Of {len(kept)} random circuits {_ALIKE[self.parts]}, {as_good} have a loss as low when kept "
            f"(lowest {kept.min():.3f} nats, the circuit {own:.3f}; p = {p:.3f}); {as_bad} do as much harm when "
            "ablated."
        )
        # Not merely undecided: more than one in twenty random circuits does as well (exact, two-sided).
        as_well = as_good > 0 and 2.0 * (1.0 - binomial_share(as_good - 1, len(kept), LEVEL)) <= LEVEL
        if as_well:
            says = f"{NOT_EVIDENCE}: random circuits of its size do as well."
        return Tested(
            test=None, title=f"{self.title}: random circuits", alarm=not better,
            status="excluded" if better else "found" if as_well else "inconclusive", found=f"{says} {numbers}",
            words=Words("not evidence", "better than these", "may be no evidence"),
            beside=(Estimate.exact("p, beside random circuits", p, "probability", n=len(kept)),),
        )  # fmt: skip

    def _null(self, case: Case, subject: SubjectRecord, null: Null) -> Tested:
        found, title = list[Arrays](), f"{self.title}: {_TITLES[null]}"
        for trial in self._searches(case, subject, null):
            try:
                found.append(case.reading(trial))
            except Unanswered as gap:
                return Tested(test=None, title=title, status=gap.status, found=gap.because, alarm=False)
        reached = [int(one["size"]) for one in found if int(one["size"])]
        target = float(found[0]["target"])
        lows = ", ".join(f"{float(one['losses'].min()):.3f}" for one in found)
        numbers = f"Lowest loss of any circuit tried: {lows} nats; the target is {target:.3g}."
        if reached:
            says = (
                f"{NOT_EVIDENCE}: in {NULLS[null]}, the same search reaches the target in {len(reached)} of "
                f"{len(found)} tries, with {min(reached):,} {self.parts}."
            )
        else:
            says = f"In {NULLS[null]}, the same search does not reach the target in {len(found)} tries."
        return Tested(
            test=None, title=title, status="found" if reached else "excluded", alarm=bool(reached),
            found=f"{says} {numbers}", words=_WORDS,
        )  # fmt: skip
