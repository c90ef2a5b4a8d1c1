"""WT101, as soon as it can be told: which of two subjects is more fragile under relative noise."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Final, final

import msgspec
import numpy as np

from wheeltap.audits.base import RECODED, Audit, Case, Draft, Tested, Unanswered, Verdict, pair
from wheeltap.audits.claims import PAIR
from wheeltap.audits.controls import Plants, found_planted, plant_level
from wheeltap.audits.ladder import Ladder, LadderSettings
from wheeltap.audits.limits import Count, Dose, Margin, Share
from wheeltap.core import seeds
from wheeltap.core.records import Control, SubjectRecord, Subset, Trial
from wheeltap.plans.plan import Plan
from wheeltap.stats.curve import area_weights
from wheeltap.stats.evidence import OwnTest
from wheeltap.stats.sequential import Doses, Race, Rules

NOISE: Final = "relative"
_MOST = 1.5  # a round's observation stays within +- this: see Doses
_FIRST_SEED = 1_000  # the draws of the bracket are others


class RaceSettings(LadderSettings, frozen=True, kw_only=True):
    """How rounds are made, and when a race ends.

    Attributes:
        chunk: Examples of a round. One is cheapest in passes; more pay where a draw of noise costs more than they.
        block: Rounds asked for at once, at first; what was learned in one block steers the next.
        rounds: After so many a race that is not decided is given up.
        bracket_parts: The doses are found on one of so many parts of the examples.
        margin: Smallest difference of curve area of interest; the plan's, where it is not given.
        min_effect: A race is called even once a difference of this size is ruled out.
        null_alpha: The null control fails if the copy is shown to differ at this level, the planted one if it is shown
            to be sounder.
        least_score: The clean score must be this far above chance, or there is nothing to lose.
    """

    start: Dose = 0.125
    chunk: Count = 4
    block: Count = 32
    rounds: Count = 2048
    bracket_parts: Count = 4
    margin: Margin | None = None
    min_effect: Margin = 0.10
    null_alpha: Share = 0.001
    least_score: Share = 0.05


@dataclass
class _Run:
    """One race as far as its rounds are known.

    Attributes:
        trials: Of every round that was observed.
        missing: Those of the next block that have not all run.
        gap: Why it could not go on, where a round did not give an answer.
    """

    race: Race
    trials: list[Trial]
    missing: list[Trial]
    gap: Unanswered | None = None


@final
class RaceAudit(Audit):
    """Rounds of one draw, one dose and a few examples, on both subjects alike, until it is decided who is sounder."""

    name = "relative-race"
    copies = (*RECODED, "cancel")
    code = "WT101"
    title = "Relative noise, until it is decided"
    brief = "Relative noise"
    reads = (
        "Every weight is changed at random in proportion to its own size, example after example, until it is decided "
        "which of two networks loses more of its score, or that neither does."
    )
    settings_type = RaceSettings
    spares: ClassVar[dict[str, int]] = {"rounds": 512}

    def ask(self, case: Case) -> list[Trial]:
        """The bracket; then, of each race that is not over, the next block of rounds."""
        if not case.known(case.plan.baselines()) or self._refusal(case):
            return []
        centre, walked = self._bracket(case)
        wanted = [trial for rung in walked for trial in self._bracketing(case, rung)]
        if centre is None:
            return wanted
        for other in (*case.rivals, *self._twin(case.plan)):
            run = self._run(case, other, centre)
            wanted += [*run.trials, *run.missing]
        for plant, run in self._raced_plants(case, centre):
            wanted += [case.plan.clean(plant), *(run.trials + run.missing if run else ())]
        return wanted

    def fixed_doses(self) -> tuple[tuple[str, float], ...]:
        """The dose at which the walk starts."""
        return ((NOISE, self.settings.start),)

    def most(self, plan: Plan) -> int:
        """Bracket, and every race to its end."""
        how = self.settings
        return (how.walk + 1) * how.bracket_draws + 2 * how.rounds * self._races(plan) + len(plan.stronger)

    def most_passes(self, plan: Plan) -> float:
        """A round costs its examples alone."""
        how = self.settings
        walked = (how.walk + 1) * _shares(plan, self._bracket_parts(plan), how.bracket_draws)
        races = 2 * self._races(plan) * _shares(plan, self._parts(plan), how.rounds)
        return walked + races + len(plan.stronger)

    # ---- rounds -----------------------------------------------------------------------------------------------

    def _races(self, plan: Plan) -> int:
        """With rivals, and with the copies that vouch for the instrument."""
        return len(plan.subjects) - 1 + len(self._twin(plan)) + len(plan.plants)

    @staticmethod
    def _twin(plan: Plan) -> tuple[SubjectRecord, ...]:
        return () if plan.twin is None else (plan.twin,)

    def _raced_plants(self, case: Case, centre: int) -> "Iterator[tuple[SubjectRecord, _Run | None]]":
        """The plants up to the first that is found, each with its race; without one while it may not be a copy."""
        for plant in case.plan.plants:
            if not case.known([case.plan.clean(plant)]):
                yield plant, None
                return
            run = self._run(case, plant, centre)
            yield plant, run
            if run.missing or run.gap is not None or self._seen(case, plant, run).found:
                return

    def _seen(self, case: Case, plant: SubjectRecord, run: _Run) -> Plants:
        plants = case.plan.plants
        gap = run.race.estimate(level=plant_level(len(plants)), name="area_difference", unit=case.plan.task.measure)
        return Plants(effect=gap, copy=plant, weaker=plants.index(plant))

    def _parts(self, plan: Plan) -> int:
        return max(plan.task.examples // self.settings.chunk, 1)

    def _bracket_parts(self, plan: Plan) -> int:
        return min(self.settings.bracket_parts, plan.task.examples)

    @property
    def _ladder(self) -> Ladder:
        return Ladder(self.settings.start, self.settings.walk)

    def _bracket(self, case: Case) -> tuple[int | None, list[int]]:
        chance, clean = case.chance, float(case.clean(case.plan.reference).mean())

        def kept_half(rung: int) -> bool | None:
            trials = self._bracketing(case, rung)
            if not case.known(trials):
                return None
            try:
                score = float(np.mean([case.values(trial).mean() for trial in trials]))
            except Unanswered:
                return False
            return score - chance >= 0.5 * (clean - chance)

        return self._ladder.bracket(kept_half)

    def _bracketing(self, case: Case, rung: int) -> list[Trial]:
        of, dose = self._bracket_parts(case.plan), self._ladder.dose(rung)
        return [
            case.plan.trial(case.plan.reference, NOISE, dose=dose, seed=seed).on(Subset(of, seed % of))
            for seed in range(self.settings.bracket_draws)
        ]

    def _run(self, case: Case, other: SubjectRecord, centre: int) -> _Run:
        """The race against ``other``, replayed from what is known."""
        how, plan = self.settings, case.plan
        ladder = self._ladder.doses(centre, how.rungs)
        level, bounds = self._level(plan, other), (-_MOST, _MOST)
        race = Race(Rules(margin=case.way(how.margin), min_effect=how.min_effect, alpha=level, bounds=bounds))
        doses, run = Doses(area_weights(np.array(ladder)), most=_MOST), _Run(race, [], [])
        for start, stop in self._blocks():
            shares = doses.shares.copy()
            picked = [(at, doses.pick(self._uniform(plan, at))) for at in range(start, stop)]
            rounds = [(dose, self._round(plan, other, at, ladder[dose])) for at, dose in picked]
            if not case.known(trial for _, both in rounds for trial in both):
                run.missing = [trial for _, both in rounds for trial in both]
                return run
            for dose, (mine, theirs) in rounds:
                try:
                    difference = float(case.values(mine).mean() - case.values(theirs).mean())
                except Unanswered as gap:
                    run.gap = gap
                    return run
                race.feed(doses.observe(dose, difference, share=float(shares[dose])))
                run.trials += [mine, theirs]
            if race.decided is not None:
                return run
        return run

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """First round and end of each block: half as many again as there were, so that few blocks make a long race."""
        start = 0
        while start < self.settings.rounds:
            stop = min(start + max(self.settings.block, start // 2), self.settings.rounds)
            yield start, stop
            start = stop

    def _level(self, plan: Plan, other: SubjectRecord) -> float:
        """Level at which a race stops: below the report's, for its other findings are corrected together with it.

        A copy is raced on until it is surely the same or surely not.
        """
        if other.role != "subject":
            return self.settings.null_alpha
        return plan.alpha / max(len(plan.audits) * (len(plan.subjects) - 1), 1)

    @staticmethod
    def _uniform(plan: Plan, at: int) -> float:
        return float(seeds.generator(plan.seed, "race", at).random())

    def _round(self, plan: Plan, other: SubjectRecord, at: int, dose: float) -> tuple[Trial, Trial]:
        part, seed = Subset(self._parts(plan), at), _FIRST_SEED + at
        mine, theirs = (
            plan.trial(subject, NOISE, dose=dose, seed=seed).on(part) for subject in (plan.reference, other)
        )
        return mine, theirs

    # ---- judging ----------------------------------------------------------------------------------------------

    def judge(self, case: Case) -> Verdict:
        """One finding per pair, and the controls."""
        plan = case.plan
        refusal = self._refusal(case)
        names = [plan.reference.name] if not case.rivals else [pair(plan.reference, rival) for rival in case.rivals]
        if refusal is not None:
            return Verdict(drafts=[self.unanswered(name, refusal) for name in names])
        centre, _ = self._bracket(case)
        if centre is None:
            gap = Unanswered("error", "The doses were not bracketed: the run was cut short.")
            return Verdict(drafts=[self.unanswered(name, gap) for name in names])
        drafts = [self._pair(case, rival, self._run(case, rival, centre)) for rival in case.rivals]
        return Verdict(drafts=drafts, controls=list(self._controls(case, centre)))

    def _refusal(self, case: Case) -> Unanswered | None:
        """Why there can be no race, if so."""
        plan = case.plan
        if not case.rivals:
            return Unanswered("not_applicable", "A race needs two models: wheeltap compare A B --audits relative-race")
        if not plan.task.bounded:
            return Unanswered("not_applicable", "A race needs a score that is a share of right answers.")
        if case.groups is not None:
            because = "A race counts single examples, and these come in groups: ask for relative-noise."
            return Unanswered("not_applicable", because)
        try:
            above = float(case.clean(plan.reference).mean()) - case.chance
        except Unanswered as gap:
            return gap
        if above < self.settings.least_score:
            because = f"{plan.reference.name} is only {above:.3f} above chance: there is nothing to lose."
            return Unanswered("not_applicable", because)
        return None

    def _cost(self, case: Case, run: _Run) -> float:
        """Passes over the whole task that the rounds took, on both subjects together."""
        return sum(case.examples(trial) for trial in run.trials) / case.plan.task.examples

    def _pair(self, case: Case, rival: SubjectRecord, run: _Run) -> Draft:
        plan, race, how = case.plan, run.race, self.settings
        gap = run.gap or (Unanswered("error", "The race was cut short.") if run.missing else None)
        if gap is not None:
            return self.unanswered(pair(plan.reference, rival), gap)
        difference = race.estimate(name="area_difference", unit=plan.task.measure)
        sound, fragile = plan.reference.name, rival.name
        if (difference.value or 0.0) < 0:
            sound, fragile = fragile, sound
        cost = f"{race.n} rounds, {self._cost(case, run):.2g} passes over the examples in all"
        even = race.decided == "even"
        told = f"a difference of {how.min_effect:g} is ruled out" if even else "not decided"
        claim = Tested(
            test=difference, margin=how.min_effect, evidence=OwnTest(float(race.tests.even)), words=PAIR,
            found=f"{fragile} is more fragile than {sound}: the area under their curves differs by {difference} "
            f"({plan.reference.name} minus {rival.name}). Decided after {cost}; on these examples.",
            otherwise=f"The areas under the two curves differ by {difference}: {told} after {cost}.",
        )  # fmt: skip
        name, title = pair(plan.reference, rival), f"{self.title}: difference"
        draft = self.draft(case, name, claim, run.trials, title=title)
        # A race that ends even has ruled out what it was to see; one that is not over has not.
        seen = msgspec.structs.replace(draft.finding, smallest_detectable=how.min_effect if even else None)
        return replace(draft, finding=seen)

    def _controls(self, case: Case, centre: int) -> Iterator[Control]:
        yield self._null(case, centre)
        yield self._plant(case, centre)

    def _null(self, case: Case, centre: int) -> Control:
        plan, how, name = case.plan, self.settings, f"{self.code} reparametrized copy, raced"
        if plan.twin is None:
            return Control(name=name, kind="null", status="skipped", because=plan.no_controls)
        run = self._run(case, plan.twin, centre)
        if run.gap is not None or run.missing:
            return Control(name=name, kind="null", status="skipped", because=_cut(run))
        level = 1.0 - how.null_alpha
        gap = run.race.estimate(level=level, name="area_difference", unit=plan.task.measure)
        apart = run.race.p <= how.null_alpha
        # Neither surely the same nor surely not: it says nothing.
        open_still = not apart and run.race.decided is None
        because = (
            f"It must not differ from the original: its area is smaller by {gap} ({level:.1%} interval), after "
            f"{run.race.n} rounds."
        )
        told = f" That shows neither a difference nor that there is none of {how.min_effect:g}." if open_still else ""
        return Control(
            name=name, kind="null", status="skipped" if open_still else "failed" if apart else "passed",
            estimates=(gap,), because=f"{because}{told}",
        )  # fmt: skip

    def _plant(self, case: Case, centre: int) -> Control:
        plan, name = case.plan, f"{self.code} planted cancelling units, raced"
        raced = list(self._raced_plants(case, centre))
        if not raced:
            return Control(name=name, kind="planted", status="skipped", because=plan.no_controls)
        plant, run = raced[-1]
        if run is None or run.gap is not None or run.missing:
            return Control(name=name, kind="planted", status="skipped", because=_cut(run))
        seen = self._seen(case, plant, run)
        return found_planted(
            name, seen,
            because=f"It must be found more fragile than the original: with {seen.strength} its area is smaller by "
            f"{seen.effect} ({seen.effect.level:.1%} interval), after {run.race.n} rounds.",
        )  # fmt: skip


def _cut(run: _Run | None) -> str:
    """Why a race has no end."""
    return "The race was cut short." if run is None or run.gap is None else run.gap.because


def _shares(plan: Plan, of: int, count: int) -> float:
    """Passes over all examples that one trial on each of the first ``count`` parts takes: the first are the larger."""
    each, larger = divmod(plan.task.examples, of)
    turns, rest = divmod(count, of)
    return turns + (rest * each + min(rest, larger)) / plan.task.examples
