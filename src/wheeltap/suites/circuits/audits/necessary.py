"""WT302: is a circuit necessary: does the rest do the task without it, and do its weights matter more than others?"""

from typing import Final, final

import numpy as np

from wheeltap.audits.base import Case, Tested
from wheeltap.audits.claims import Words
from wheeltap.core.records import SubjectRecord
from wheeltap.stats.effect import mean_effect
from wheeltap.stats.sample import Sample
from wheeltap.suites.circuits.audits.common import CircuitAudit
from wheeltap.suites.circuits.audits.read import CHANCE, NO_OTHERS, CircuitRead
from wheeltap.suites.circuits.specs import KINDS

ABLATIONS: Final = {"remove mean": "mean ablation", "remove zero": "zero ablation",
                    "remove patch": "counterfactual values",
                    "remove resample": "values of other prompts"}  # fmt: skip

_WORDS: Final = Words("not necessary", "necessary", "may not be necessary", "cannot tell")
_WEIGHTS: Final = Words("costs more than elsewhere", "costs no more than elsewhere", "may cost more", "cannot tell")

_SMALL: Final = 0.1
"""Share of what the net does beyond chance: a smaller difference between disturbing the circuit and others is none."""

_NO_WEIGHTS: Final = "The circuit is one of edges: no weight is of one edge alone."


@final
class CircuitNecessaryAudit(CircuitAudit):
    """What the rest of the net does beyond chance with the circuit ablated, on held-out pairs, nats."""

    name = "circuit-necessary"
    code = "WT302"
    title = "Circuit is necessary"
    brief = "left without it"
    reads = (
        "How far below the loss of a guess the net stays when the circuit alone is ablated: what is left of the task "
        "without it. Also whether disturbing the circuit's weights costs more than disturbing as many others."
    )

    def titles(self) -> tuple[str, ...]:
        """One for each ablation, one for each disturbance of weights."""
        ablations = (f"{self.title}: {words}" for words in ABLATIONS.values())
        return (*ablations, *(f"Weights of the circuit: {kind}" for kind in KINDS))

    def singles(self, case: Case, subject: SubjectRecord, read: CircuitRead) -> list[Tested]:
        """What is left without it; what disturbing its weights costs beyond as many others."""
        return [*(self._left(read, key) for key in ABLATIONS), *(_weights(read, at) for at in range(len(KINDS)))]

    def _left(self, read: CircuitRead, key: str) -> Tested:
        words = ABLATIONS[key]
        if not read.asked(key):
            return Tested(
                test=None, title=f"{self.title}: {words}", status="not_applicable", found=NO_OTHERS, alarm=False
            )
        loss = read.loss(key)
        half = self.settings.half
        sample = Sample((CHANCE - loss)[None, :], margins=half * (CHANCE - read.whole(key)), least=1.0 / half)
        margin = sample.margin
        left = sample.effect(margin=margin, name=f"left without it, {words}", unit="nats")
        numbers = (
            f"With the circuit ablated ({words}) the loss is {loss.mean():.3f} nats, of the whole net "
            f"{read.whole(key).mean():.3f}, of a guess {CHANCE:.3f}: {left} of {read.beyond:.3f} is left. "
            f"{read.left_out(key)}"
        ).strip()
        return Tested(
            test=left, margin=margin, evidence=sample, words=_WORDS,
            one_sided=True, title=f"{self.title}: {words}",
            found=f"The circuit is not necessary ({words}): the rest does the task without it. {numbers}",
            otherwise=numbers,
        )  # fmt: skip


def _weights(read: CircuitRead, at: int) -> Tested:
    """What one disturbance of the circuit's weights costs beyond the same on as many others."""
    title = f"Weights of the circuit: {KINDS[at]}"
    if not read.weights:
        return Tested(test=None, title=title, status="not_applicable", found=_NO_WEIGHTS, alarm=False)
    own, others = (read.read["disturbed"][at, place].astype(np.float64) for place in range(2))
    gap = mean_effect((own - others)[:, None], margin=_SMALL * read.beyond, name=f"{KINDS[at]}: rise in the circuit "
                      "beyond as many others", unit="nats")  # fmt: skip
    numbers = (
        f"{KINDS[at].capitalize()} of the circuit's weights alone: loss {own.mean():.3f} nats; of as many others "
        f"{others.mean():.3f}, of the whole net {read.own:.3f}. Difference {gap}."
    )
    return Tested(
        test=gap, margin=_SMALL * read.beyond, evidence=Sample((own - others)[:, None]), words=_WEIGHTS,
        by_example=False, one_sided=True, alarm=False,
        title=title,
        found=f"Disturbing the circuit's weights costs more than disturbing others. {numbers}",
        otherwise=f"Disturbing the circuit's weights is not shown to cost more than disturbing others. {numbers}",
    )  # fmt: skip
