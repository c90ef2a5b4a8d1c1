"""WT301: is a circuit sufficient, and under which ablations of everything else?"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, final

import numpy as np

from wheeltap.audits.base import Case, Tested, Verdict
from wheeltap.audits.claims import Words
from wheeltap.core.records import Estimate, SubjectRecord, Trial
from wheeltap.suites.circuits.audits.common import CircuitAudit
from wheeltap.suites.circuits.audits.read import NO_OTHERS, CircuitRead
from wheeltap.suites.circuits.audits.view import graphs, views
from wheeltap.suites.circuits.stats import SHARES, areas

ABLATIONS: Final = {
    "keep mean": "mean ablation",
    "keep zero": "zero ablation",
    "keep patch": "counterfactual values",
    "keep resample": "values of other prompts",
    "subsets": "random subsets",
    "keep adversarial": "the worst subset found",
}
"""What is done to everything outside the circuit, in words."""

_WORDS: Final = Words("not sufficient", "sufficient", "may not be sufficient", "cannot tell")


@final
class CircuitSufficientAudit(CircuitAudit):
    """Rise of the loss with everything outside the circuit ablated, on held-out pairs, nats."""

    name = "circuit-sufficient"
    code = "WT301"
    title = "Circuit is sufficient"
    brief = "rise without the rest"
    reads = (
        "How much higher the loss is when everything outside the circuit is ablated, by six kinds of ablation. Being "
        "right with the rest at its mean, or at what it holds for the pair's own counterfactual, is weak evidence: the "
        "rest may still matter when it varies from prompt to prompt."
    )

    def more(self, case: Case, subject: SubjectRecord) -> list[Trial]:
        """The graph, for the page."""
        return graphs(self, case, subject)

    def most_more(self) -> int:
        """One."""
        return 1

    def judge(self, case: Case) -> Verdict:
        """Its claims, and the circuits as a page shows them."""
        verdict = super().judge(case)
        verdict.circuits += views(self, case)
        return verdict

    def titles(self) -> tuple[str, ...]:
        """One for each ablation."""
        return tuple(f"{self.title}: {words}" for words in ABLATIONS.values())

    def singles(self, case: Case, subject: SubjectRecord, read: CircuitRead) -> list[Tested]:
        """One claim for each ablation."""
        mean, *others = (self._claim(read, key) for key in ABLATIONS)
        return [replace(mean, beside=(*mean.beside, *self._areas(case, subject))), *others]

    def _areas(self, case: Case, subject: SubjectRecord) -> Iterator[Estimate]:
        """What MIB sums up all sizes of a circuit of edges by, where the search for it has run."""
        searched = [case.reading(trial) for trial in self.searches(case.plan, subject)]
        if not searched or "faithful" not in searched[0]:
            return
        shares, (signed, large) = np.array(SHARES), searched[0]["faithful"].astype(np.float64)
        by_score, by_size = areas(shares, signed), areas(shares, large)
        for name, value in (
            ("CPR: area under faithfulness by share of edges", by_score.performance),
            ("CMD: area between faithfulness and 1", by_size.distance),
            ("CPR over the logarithm of the share", by_score.log_performance),
            ("CMD over the logarithm of the share", by_size.log_distance),
        ):
            yield Estimate.exact(name, value, "share")

    def _claim(self, read: CircuitRead, key: str) -> Tested:
        words, title = ABLATIONS[key], f"{self.title}: {ABLATIONS[key]}"
        if not read.asked(key):
            return Tested(test=None, title=title, status="not_applicable", found=NO_OTHERS, alarm=False)
        sample = read.rises(key, share=self.settings.tolerance)
        margin = sample.margin
        rise = sample.effect(margin=margin, name=f"rise of the loss, {words}", unit="nats")
        numbers = (
            f"With everything else ablated ({words}) the loss is {read.loss(key).mean():.3f} nats, of the whole net "
            f"{read.whole(key).mean():.3f}, of a guess 0.693: a rise of {rise}; {margin:.3f} would do."
        )
        beside = read.faithfulness() if key == "keep mean" else ()
        about = f"{read.size}." if key == "keep mean" else read.left_out(key)
        return Tested(
            test=rise, margin=margin, evidence=sample, words=_WORDS,
            one_sided=True, title=title, beside=beside,
            found=f"The circuit is not sufficient under {words}. {numbers} {about}".strip(),
            otherwise=f"{numbers} {about}".strip(),
        )  # fmt: skip
