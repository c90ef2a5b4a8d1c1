"""WT301 to WT304: is a circuit sufficient, necessary, better than its nulls, and stable?"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Case, Hypothesis, NoAnswer, Verdict
from wheeltap.audits.claims import Words
from wheeltap.core.plain import many
from wheeltap.core.records import Estimate, FindingStatus, SubjectRecord, Trial
from wheeltap.stats._scipy import binomial_share
from wheeltap.stats.effect import mean_effect
from wheeltap.stats.evidence import Members
from wheeltap.stats.members import NumberScale, difference
from wheeltap.stats.sample import Sample
from wheeltap.suites.circuits.audits.common import NO_OTHERS, NULLS, CircuitAudit, CircuitRead, Claim, two_sided
from wheeltap.suites.circuits.audits.headline import TITLES
from wheeltap.suites.circuits.audits.view import graphs, section, views
from wheeltap.suites.circuits.specs import CHANCE, KINDS, SHARES, Null

ABLATIONS: Final = {
    "keep mean": "mean ablation",
    "keep zero": "zero ablation",
    "keep patch": "counterfactual values",
    "keep resample": "values of other prompts",
    "subsets": "random subsets",
    "keep adversarial": "the worst subset found",
}
"""What is done to everything outside the circuit, in words."""

_SUFFICIENT: Final = Words("not sufficient", "sufficient", "may not be sufficient", "cannot tell")


@final
class CircuitSufficientAudit(CircuitAudit):
    """Rise of the loss with everything outside the circuit ablated, on held-out pairs, nats."""

    name = "circuit-sufficient"
    code = "WT301"
    title = TITLES[0]
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
        verdict.sections += map(section, views(self, case))
        return verdict

    def claims(self) -> dict[str, Claim]:
        """One for each ablation."""
        return {f"{self.title}: {words}": partial(self._claim, key) for key, words in ABLATIONS.items()}

    def _areas(self, case: Case, subject: SubjectRecord) -> Iterator[Estimate]:
        """What MIB sums up all sizes of a circuit of edges by, where the search for it has run.

        Source: Mueller et al. 2025, "MIB: A Mechanistic Interpretability Benchmark", section 3.2 (CPR, CMD).
        """
        searched = [case.reading(trial) for trial in self.searches(case.plan, subject)]
        if not searched or "faithful" not in searched[0]:
            return
        signed, large = searched[0]["faithful"].astype(np.float64)
        for name, values in (
            ("CPR: area under faithfulness by share of edges", signed),
            ("CMD: area between faithfulness and 1", np.abs(1.0 - large)),
        ):
            yield Estimate.exact(name, float(np.trapezoid(values, SHARES)), "share")

    def _claim(self, key: str, case: Case, subject: SubjectRecord, read: CircuitRead) -> Hypothesis:
        words = ABLATIONS[key]
        if not read.asked(key):
            return unasked(NO_OTHERS)
        sample = read.rises(key, share=self.settings.tolerance)
        rise = sample.effect(margin=sample.margin, name=f"rise of the loss, {words}", unit="nats")
        about = f"{read.size}." if key == "keep mean" else read.left_out(key)
        numbers = (
            f"With everything else ablated ({words}) the loss is {read.loss(key).mean():.3f} nats, of the whole net "
            f"{read.whole(key).mean():.3f}, of a guess 0.693: a rise of {rise}; {sample.margin:.3f} would do. {about}"
        ).strip()
        claim = measured(rise, sample, _SUFFICIENT, f"The circuit is not sufficient under {words}. ", numbers)
        if key != "keep mean":
            return claim
        return replace(claim, beside=(*read.faithfulness(), *self._areas(case, subject)))


REMOVED: Final = {"remove mean": "mean ablation", "remove zero": "zero ablation",
                    "remove patch": "counterfactual values",
                    "remove resample": "values of other prompts"}  # fmt: skip

_NECESSARY: Final = Words("not necessary", "necessary", "may not be necessary", "cannot tell")
_WEIGHTS: Final = Words("costs more than elsewhere", "costs no more than elsewhere", "may cost more", "cannot tell")

_SMALL: Final = 0.1
"""Share of what the net does beyond chance: a smaller difference between disturbing the circuit and others is none."""

_NO_WEIGHTS: Final = "The circuit is one of edges: no weight is of one edge alone."


@final
class CircuitNecessaryAudit(CircuitAudit):
    """What the rest of the net does beyond chance with the circuit ablated, on held-out pairs, nats."""

    name = "circuit-necessary"
    code = "WT302"
    title = TITLES[1]
    brief = "left without it"
    reads = (
        "How far below the loss of a guess the net stays when the circuit alone is ablated: what is left of the task "
        "without it. Also whether disturbing the circuit's weights costs more than disturbing as many others."
    )

    def claims(self) -> dict[str, Claim]:
        """What is left without it, by each ablation; what disturbing its weights costs beyond as many others."""
        left: dict[str, Claim] = {f"{self.title}: {words}": partial(self._left, key) for key, words in REMOVED.items()}
        return left | {f"Weights of the circuit: {kind}": partial(_weights, at) for at, kind in enumerate(KINDS)}

    def _left(self, key: str, case: Case, subject: SubjectRecord, read: CircuitRead) -> Hypothesis:
        words = REMOVED[key]
        if not read.asked(key):
            return unasked(NO_OTHERS)
        loss = read.loss(key)
        half = self.settings.half
        sample = Sample((CHANCE - loss)[None, :], margins=half * (CHANCE - read.whole(key)), least=1.0 / half)
        left = sample.effect(margin=sample.margin, name=f"left without it, {words}", unit="nats")
        numbers = (
            f"With the circuit ablated ({words}) the loss is {loss.mean():.3f} nats, of the whole net "
            f"{read.whole(key).mean():.3f}, of a guess {CHANCE:.3f}: {left} of {read.beyond:.3f} is left. "
            f"{read.left_out(key)}"
        ).strip()
        said = f"The circuit is not necessary ({words}): the rest does the task without it. "
        return measured(left, sample, _NECESSARY, said, numbers)


def _weights(at: int, case: Case, subject: SubjectRecord, read: CircuitRead) -> Hypothesis:
    """What one disturbance of the circuit's weights costs beyond the same on as many others."""
    if not read.weights:
        return unasked(_NO_WEIGHTS)
    own, others = (read.read["disturbed"][at, place].astype(np.float64) for place in range(2))
    gap = mean_effect((own - others)[:, None], margin=_SMALL * read.beyond, name=f"{KINDS[at]}: rise in the circuit "
                      "beyond as many others", unit="nats")  # fmt: skip
    numbers = (
        f"{KINDS[at].capitalize()} of the circuit's weights alone: loss {own.mean():.3f} nats; of as many others "
        f"{others.mean():.3f}, of the whole net {read.own:.3f}. Difference {gap}."
    )
    return Hypothesis(
        test=gap, margin=_SMALL * read.beyond, evidence=Sample((own - others)[:, None]), words=_WEIGHTS,
        by_example=False, one_sided=True, alarm=False,
        found=f"Disturbing the circuit's weights costs more than disturbing others. {numbers}",
        otherwise=f"Disturbing the circuit's weights is not shown to cost more than disturbing others. {numbers}",
    )  # fmt: skip


LEVEL: Final = 0.05
"""P-value from which a circuit is called better than random ones of its size."""

NOT_EVIDENCE: Final = "This circuit is not evidence"

_TITLES: Final[dict[Null, str]] = {"weights": "weights in random order", "labels": "answers swapped"}
_NULLS: Final = Words("not evidence", "not found there", "cannot tell")

_ALIKE: Final = {"units": "with as many units of each site", "edges": "with as many edges into each layer"}


@final
class CircuitNullsAudit(CircuitAudit):
    """Whether random circuits of its size do as well, and whether the same search succeeds where nothing is."""

    name = "circuit-nulls"
    code = "WT303"
    title = TITLES[2]
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
        _, penalty = self.chosen(case, subject)
        seeds = range(self.settings.tries)
        return [self.search(case.plan, subject, penalty=penalty, null=null, seed=at) for at in seeds]

    def claims(self) -> dict[str, Claim]:
        """Beside random circuits, and in each null."""
        nulls: dict[str, Claim] = {
            f"{self.title}: {_TITLES[null]}": partial(self._null, null) for null in self.searched
        }
        return {f"{self.title}: random circuits": self._random} | nulls

    @property
    def searched(self) -> tuple[Null, ...]:
        """Nulls that are searched in. Where edges are patched, an empty circuit swaps the answers."""
        return tuple(null for null in NULLS if null != "labels" or self.settings.ablation != "patch")

    def _random(self, case: Case, subject: SubjectRecord, read: CircuitRead) -> Hypothesis:
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
        return Hypothesis(
            test=None, alarm=not better,
            status="excluded" if better else "found" if as_well else "inconclusive", found=f"{says} {numbers}",
            words=Words("not evidence", "better than these", "may be no evidence"),
            beside=(Estimate.exact("p, beside random circuits", p, "probability", n=len(kept)),),
        )  # fmt: skip

    def _null(self, null: Null, case: Case, subject: SubjectRecord, read: CircuitRead) -> Hypothesis:
        try:
            found = [case.reading(trial) for trial in self._searches(case, subject, null)]
        except NoAnswer as gap:
            return unasked(gap.because, gap.status)
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
        return Hypothesis(
            test=None, status="found" if reached else "excluded", alarm=bool(reached),
            found=f"{says} {numbers}", words=_NULLS,
        )  # fmt: skip


_STABLE: Final = Words("fails when rephrased", "holds when rephrased", "may fail when rephrased", "cannot tell")
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
    title = TITLES[3]
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
        _, penalty = self.chosen(case, subject)
        return [self.search(case.plan, subject, penalty=penalty, seed=1 + at) for at in range(self.settings.again)]

    def claims(self) -> dict[str, Claim]:
        """On held-out pairs, on rephrased ones, and beside other searches."""
        claims: dict[str, Claim] = {
            "held-out pairs": self._held, "rephrased": self._worded, "other searches": self._again,
        }  # fmt: skip
        return {f"{self.title}: {name}": claim for name, claim in claims.items()}

    def _held(self, case: Case, subject: SubjectRecord, read: CircuitRead) -> Hypothesis:
        """Whether the loss is higher on held-out pairs than it is on those that the circuit was searched on."""
        if self.settings.circuit and not self.settings.searched_here:
            return replace(unasked(_UNKNOWN), brief=_UNKNOWN)
        searched, held = two_sided(read.read["searched"]), read.loss(f"keep {self.settings.ablation}")
        # Other pairs, so two samples: the loss on those searched has noise of its own.
        name = "rise of the loss on held-out pairs"
        # Pairs are examples, and no few nets of a study: Welch's t alone.
        test = difference(held.tolist(), searched.tolist(), scale=NumberScale("nats", normal=True), name=name)
        margin = self.settings.tolerance * read.beyond
        rise = test.toward("more", margin=margin)
        brief = (
            f"Its loss is {searched.mean():.3f} nats on the {many(len(searched), 'pair')} that it was searched on, "
            f"{held.mean():.3f} on {len(held):,} held out."
        )
        if len(searched) < FEW:
            brief = (
                f"{brief} It was searched on only {many(len(searched), 'pair')}: a circuit can fit so few without "
                f"doing the task. Give at least {2 * FEW} pairs (half are searched on)."
            )
        return Hypothesis(
            test=rise, margin=margin, evidence=Members(test, "more"), words=_HELD, one_sided=True,
            found=f"The circuit fits the pairs that it was searched on and does worse on others. {brief} Rise {rise}.",
            otherwise=f"{brief} Rise {rise}.", brief=brief,
        )  # fmt: skip

    def _worded(self, case: Case, subject: SubjectRecord, read: CircuitRead) -> Hypothesis:
        try:
            read = self.parsed(subject, case.reading(self.effects(case, subject, rephrased=True)))
        except NoAnswer as gap:
            return unasked(gap.because)
        how = f"keep {self.settings.ablation}"
        sample = read.rises(how, share=self.settings.tolerance)
        rise = sample.effect(margin=sample.margin, name="rise of the loss on rephrased pairs", unit="nats")
        numbers = f"The loss is {read.loss(how).mean():.3f} nats, of the whole net {read.own:.3f}: a rise of {rise}."
        fails = "The circuit fails on prompts that say the same in other words. "
        claim = measured(rise, sample, _STABLE, fails, numbers)
        return replace(claim, otherwise=f"On prompts that say the same in other words: {numbers}")

    def _again(self, case: Case, subject: SubjectRecord, read: CircuitRead) -> Hypothesis:
        try:
            found = [case.reading(trial) for trial in self._searches(case, subject)]
        except NoAnswer as gap:
            return unasked(gap.because, gap.status)
        kept: list[NDArray[np.bool_]] = [one["rank"] < int(one["size"]) for one in found if int(one["size"])]
        if len(kept) < 2:
            says = f"Of {self.settings.again} searches by other seeds {len(kept)} reach the target."
            return unasked(says, "inconclusive")
        shared = [float((one & two).sum() / (one | two).sum()) for one, two in combinations(kept, 2)]
        often = np.mean(kept, axis=0)
        unit = f"share of {self.parts}"
        always, once = int((often == 1.0).sum()), int((often > 0.0).sum())
        sizes = ", ".join(f"{int(one.sum()):,}" for one in kept)
        return Hypothesis(
            test=None, status="measured", alarm=False,
            beside=(Estimate.exact("shared by two searches", float(np.mean(shared)), unit, n=len(shared)),
                    Estimate.exact("in every one", always / once, unit, n=len(kept))),
            found=f"{len(kept)} searches by other seeds find circuits of {sizes} {self.parts}. Two of them share "
            f"{np.mean(shared):.0%} of their {self.parts}; of {once:,} that any has, {always:,} are in every one.",
        )  # fmt: skip


def unasked(why: str, status: FindingStatus = "not_applicable") -> Hypothesis:
    """A claim that was not tested, and why."""
    return Hypothesis(test=None, status=status, found=why, alarm=False)


def measured(test: Estimate, sample: Sample, words: Words, said: str, numbers: str) -> Hypothesis:
    """A claim on losses of pairs: what is said where the effect is above the margin, and its numbers in any case."""
    return Hypothesis(
        test=test, margin=sample.margin, evidence=sample, words=words, one_sided=True,
        found=f"{said}{numbers}", otherwise=numbers,
    )  # fmt: skip
