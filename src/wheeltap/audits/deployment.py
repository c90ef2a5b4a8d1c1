"""WT100: what shipping costs, one row a scheme: rounding, pruning, noise and flipped bits at ready settings."""

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import ClassVar, final

import msgspec

from wheeltap.audits.base import Audit, Case, Count, Hypothesis, Margin, NoAnswer, Verdict, audits, pair
from wheeltap.audits.claims import LOSS, PAIR, Edge
from wheeltap.audits.controls import AGAIN, AGAIN_DRAWS, Null, controls_of, destroyed, silent, silent_twice, twin_of
from wheeltap.audits.headline import READ
from wheeltap.audits.losses import AGREED, SAME_TOKEN, TOKEN_KL, Losses, losing, remarks, shipped
from wheeltap.audits.schemes import Scheme, scheme, schemes
from wheeltap.audits.slices import CODE as SLICES
from wheeltap.audits.slices import INSTRUMENT, Slice, recalls, sliced, slices_of, title_of, undecided
from wheeltap.core.errors import UsageError
from wheeltap.core.records import Control, Estimate, Instrument, Scalar, SubjectRecord, Trial
from wheeltap.core.section import Section, Table
from wheeltap.core.settings import Settings
from wheeltap.core.site import WHOLE, Site
from wheeltap.plans.plan import Plan

SPARED = "Embeddings and output head were not rounded or pruned, as deployment does"
"""How the paragraph of a finding begins that says so; a report shows it once."""

CHANGE = "Amount of change, not loss"
"""How the paragraph begins, and what the table is called, of what changes whether or not it is lost."""

USUAL = (
    "int8,nf4,int4-g32,int4-g128,int4,int4-tensor,int3-g32,prune30,prune50,prune-2:4,noise5,flips1e-6-int8"
)  # fmt: skip
"""Schemes where none are asked for."""

USUAL_LARGE = "int8,nf4,int4-g32,int4-g128,int4,prune30,prune50,noise5"


class DeploymentSettings(Settings, frozen=True, kw_only=True):
    """Which schemes, and how many draws of the random ones.

    Attributes:
        schemes: Names with commas between (see ``wheeltap list schemes``), files as they are shipped among them.
        margin: Smallest loss of score of interest; the plan's, where it is not given.
        draws: Draws of noise or flipped bits at first.
        most_draws: The most that are made where they can decide a row.
        spare_ends: Whether rounding and pruning leave the embeddings and the head of a language model alone, as
            deployment does.
        slices: What divides the examples, with commas between: ``class``, ``behavior`` or factors. Each value is a
            slice with verdicts of its own.
    """

    schemes: str = USUAL
    margin: Margin | None = None
    draws: Count = 16
    most_draws: Count = 128
    spare_ends: bool = True
    slices: str = ""

    def __post_init__(self) -> None:
        try:
            schemes(self.schemes)
        except UsageError as error:
            raise error.at("schemes") from error


@final
class DeploymentAudit(Audit):
    """Loss of score under each scheme of deployment, each with a verdict of its own."""

    name = "deployment"
    code = "WT100"
    title = "What shipping costs"
    brief = "Deployment"
    reads = (
        "The weights are changed as deployment changes them: rounded to fewer bits, pruned, disturbed by noise or "
        "flipped bits. Each row is the score that is lost on the same examples, compared with the margin."
    )
    asks = "deployment"
    number = "loss"
    settings_type = DeploymentSettings
    large: ClassVar[dict[str, Scalar | list[int | float]]] = {
        "schemes": USUAL_LARGE, "draws": 4, "most_draws": 16
    }  # fmt: skip
    copies = ("permute", "heads")
    spares: ClassVar[dict[str, int]] = {"draws": 4, "most_draws": 4}

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """Those of the settings."""
        return schemes(self.settings.schemes)

    def instruments(self) -> tuple[Instrument, ...]:
        """Its own, and that of slices, where it is asked about some."""
        return (self.instrument(), *((INSTRUMENT,) if self.settings.slices else ()))

    def slices(self) -> tuple[str, ...]:
        """Those of the settings."""
        return tuple(dict.fromkeys(one.strip() for one in self.settings.slices.split(",") if one.strip()))

    def ask(self, case: Case) -> list[Trial]:
        """Every draw of every scheme on every subject that has something to lose."""
        if not case.known(case.plan.baselines()):
            return []
        able = {subject.fingerprint for one in (case, *case.sets) for subject in losing(one)}
        subjects = [subject for subject in case.plan.subjects if subject.fingerprint in able]
        shipped = [t for subject in subjects for one in self.schemes for t in self._drawn(case, subject, one)]
        return [*shipped, *self._checks(case.plan), *self._second_looks(case)]

    def _drawn(self, case: Case, subject: SubjectRecord, one: Scheme) -> list[Trial]:
        """The trials of a row: of a random scheme as many draws as decide it, by what is known of all examples."""
        case, trials = case.joined, self.trials(case.plan, subject, one)
        while one.random and case.known(trials):
            try:
                losses = self._losses(case, subject, one, trials)
                edge = losses.edge(subject, own=self.settings.margin)
            except NoAnswer:
                break
            alpha, most, tests = case.plan.alpha, self._most_draws, self._tests(case)
            wanted = losses.draws(edge=edge).wanted(edge.value, alpha=alpha, most=most, tests=tests)
            if case.rivals:  # a difference, which has no row here, takes more draws than a loss
                wanted = max(wanted, min(2 * self.settings.draws, most))
            if wanted <= len(trials):
                break
            trials = self.trials(case.plan, subject, one, seeds=range(wanted))
        return trials

    def _tests(self, case: Case) -> int:
        """About how many tests the report makes; at least two, so that a single row can also be held to a limit."""
        plan, rivals = case.plan, len(case.rivals)
        try:
            parts = 1 + len(slices_of(case, self.slices())) + len(plan.task.sets)
        except NoAnswer:
            parts = 1
        asked = [audits.get(spec.name).asks for spec in plan.audits if spec.name != self.name]
        others = sum(kind not in ("score", *READ) for kind in asked)
        return max((len(plan.subjects) + rivals) * (len(self.schemes) * parts + others) + rivals * parts, 2)

    def _checks(self, plan: Plan) -> list[Trial]:
        """A rounding so fine that nothing may be lost, noise so strong that all must be, and what a copy must share."""
        checks = [self._fine(plan), *self._strong(plan, draws=1)]
        if plan.twin is None:
            return checks
        shared = _shared(plan.twin)
        return [*checks, *(t for copy in (plan.reference, plan.twin) for t in self.trials(plan, copy, shared))]

    def _fine(self, plan: Plan) -> Trial:
        return self.trials(plan, plan.reference, scheme("int16"))[0]

    def _strong(self, plan: Plan, *, draws: int) -> list[Trial]:
        return self.trials(plan, plan.reference, scheme(f"noise{_STRONG}"), seeds=range(draws))

    def _second_looks(self, case: Case) -> list[Trial]:
        """More draws of the controls that one look has not settled: rarely any."""
        plan, found = case.plan, list[Trial]()
        if case.known(self._checks(plan)):
            with suppress(NoAnswer):
                destroyed_once = self._destroyed(case, self._strong(plan, draws=1))
                found += [] if destroyed_once.status == "passed" else self._strong(plan, draws=_STRONG_DRAWS)
            with suppress(NoAnswer):
                found += self._twins_again(plan) if plan.twin is not None and self._null_of(case).apart else []
        return found

    def _twins_again(self, plan: Plan) -> list[Trial]:
        """Fresh draws on reference and twin; none of a scheme without draws."""
        return [trial for copy in (plan.reference, plan.twin) if copy is not None for trial in self._again(plan, copy)]

    def _again(self, plan: Plan, copy: SubjectRecord) -> list[Trial]:
        one = _shared(plan.twin or copy)
        draws = range(_AGAIN_FROM, _AGAIN_FROM + AGAIN_DRAWS * self.settings.draws)
        return self.trials(plan, copy, one, seeds=draws) if one.random else []

    def trials(
        self, plan: Plan, subject: SubjectRecord, one: Scheme, *, seeds: Iterable[int] | None = None
    ) -> list[Trial]:
        """The draws of one scheme on one subject; others than those of the settings by their ``seeds``."""
        if one.shipped:
            return [plan.ship(file, "answers") for file in plan.files if file.spec == one.name]
        spared = one.spared(subject) if self.settings.spare_ends else ()
        site = Site.without(spared) if spared else WHOLE
        draws = self.settings.draws if one.random else 1
        return [
            plan.trial(subject, one.perturbation, settings=one.settings, site=site, dose=one.dose, seed=seed)
            for seed in (range(draws) if seeds is None else seeds)
        ]

    def named_trials(self, plan: Plan, subject: SubjectRecord) -> list[tuple[str, Trial]]:
        """Each scheme, unless they are the usual ones: of those a model takes what it can."""
        if self.settings.schemes in (USUAL, USUAL_LARGE):
            return []
        return [(one.label, self.trials(plan, subject, one)[0]) for one in self.schemes if not one.shipped]

    def fixed_doses(self) -> tuple[tuple[str, float], ...]:
        """The dose of every scheme."""
        return tuple((one.perturbation, one.dose) for one in self.schemes if not one.shipped)

    def files(self) -> tuple[str, ...]:
        """The schemes that are some."""
        return tuple(one.name for one in self.schemes if one.shipped)

    def most(self, plan: Plan) -> int:
        """All draws of every scheme on every subject, but for second looks at controls, which few runs take."""
        each = sum(
            self._most_draws if one.random else len(self.trials(plan, plan.reference, one)) for one in self.schemes
        )
        return each * len(plan.subjects) + len(self._checks(plan))

    def most_passes(self, plan: Plan) -> float:
        """One for each trial, and one over the inputs of every subject where a scheme reads them."""
        reads = sum(bool(one.needs) for one in self.schemes) * len(plan.subjects)
        return self.most(plan) + reads * plan.sizes.moments

    def judge(self, case: Case) -> Verdict:
        """One finding for each scheme and subject, one for each scheme and pair; the controls."""
        controls = controls_of(
            (f"{self.code} 16 bits per weight", "null", partial(self._null, case)),
            (f"{self.code} reparametrized copy", "null", partial(self._twin, case)),
            (f"{self.code} {_DESTROYS}", "planted", lambda _: self._planted(case)),
        )
        drafts: list[Hypothesis] = []
        for one in self.schemes:
            drafts += [self._single(case, subject, one) for subject in case.plan.subjects]
            drafts += [self._pair(case, rival, one) for rival in case.rivals]
        sections = _changes(drafts)
        for subject in case.plan.subjects:
            rows = [(one.label, self._drawn(case, subject, one)) for one in self.schemes]
            sections += recalls(case, subject, rows)
        return Verdict([*drafts, *self._sets(case), *self._slices(case)], controls, sections=sections)

    def _sets(self, case: Case) -> list[Hypothesis]:
        """One finding for each test set, scheme and subject or pair, where there are several: as on that set alone."""
        drafts = list[Hypothesis]()
        for there in case.sets:
            on, asked = there.plan.task.name, [(one, scheme) for one in case.plan.subjects for scheme in self.schemes]
            drafts += [self._single(there, subject, one, on=on) for subject, one in asked]
            drafts += [self._pair(there, rival, one, on=on) for rival, one in asked if rival in case.rivals]
        return [replace(one, finding=msgspec.structs.replace(one.finding, code=SLICES)) for one in drafts]

    def _slices(self, case: Case) -> list[Hypothesis]:
        """One finding for each slice, scheme and subject or pair; none where there is no answer on all examples."""
        try:
            parts = slices_of(case, self.slices())
        except NoAnswer as gap:
            return [self.unanswered(case.plan.reference.name, gap, title=INSTRUMENT.name)]
        made = list[Hypothesis]()
        for subject, one in ((subject, one) for subject in case.plan.subjects if parts for one in self.schemes):
            try:
                there = self._disturbed(case, subject, one)
            except NoAnswer:  # its own row says why
                continue
            for part in parts:
                title, name = title_of(one.label, part.name), title_of(one.name, part.name)
                try:
                    claim = sliced(there, part, subject, title=title, own=self.settings.margin)
                    made.append(self.draft(case, subject.name, replace(claim, scheme=name), there.trials))
                except NoAnswer as gap:
                    made.append(self.unanswered(subject.name, gap, title=title, scheme=name))
            if subject in case.rivals:
                made += [self._pair(case, subject, one, on=part.name, part=part) for part in parts]
        return [replace(one, finding=msgspec.structs.replace(one.finding, code=SLICES)) for one in made]

    def _disturbed(self, case: Case, subject: SubjectRecord, one: Scheme) -> Losses:
        return self._losses(case, subject, one, self._drawn(case, subject, one))

    def _losses(self, case: Case, subject: SubjectRecord, one: Scheme, trials: list[Trial]) -> Losses:
        case.require_above_chance(subject)
        # Every look has at least twice the draws of the one before.
        looks = 1 + math.ceil(math.log2(self._most_draws / self.settings.draws)) if one.random else 0
        return replace(Losses.of(case, subject, trials), rare=one.rare, looks=looks)

    @property
    def _most_draws(self) -> int:
        return max(self.settings.draws, self.settings.most_draws)

    def _single(self, case: Case, subject: SubjectRecord, one: Scheme, *, on: str = "") -> Hypothesis:
        title, name = (title_of(whole, on) if on else whole for whole in (one.label, one.name))
        try:
            there = self._disturbed(case, subject, one)
        except NoAnswer as gap:
            return self.unanswered(subject.name, gap, title=title, scheme=name)
        edge = there.edge(subject, own=self.settings.margin)
        lost, expected = there.loss(title, edge=edge), there.expected(subject)
        words = f"{subject.name} loses {case.plan.task.loss_text(lost)} at {title}{there.diverged}"
        left = there.no_better
        spared = one.spared(subject) if self.settings.spare_ends else ()  # left in full precision on purpose
        kept = f"\n\n{SPARED}: {', '.join(spared[:3])}." if spared else ""
        change = (*there.agreed(subject), *(there.change if self.files() else there.tokens))
        amounts = f"\n\n{CHANGE}: {', '.join(map(_amount, change))}." if change else ""
        rest = f"{remarks(edge, left)}{shipped(expected)}{kept}{amounts}"
        claim = there.claim(lost, edge=edge, stated=words)
        beside = (there.score, *expected, *(() if left is None else (left,)), *change, *claim.beside)
        claim = replace(
            claim, words=LOSS, title=title, scheme=name, beside=beside, found=f"{claim.found} {rest}",
            otherwise=f"{claim.otherwise} {rest}",
        )  # fmt: skip
        return self.draft(case, subject.name, claim, there.trials)

    def _pair(
        self, case: Case, rival: SubjectRecord, one: Scheme, *, on: str = "", part: Slice | None = None
    ) -> Hypothesis:
        both = (case.plan.reference, rival)
        reference, name = case.plan.reference, pair(*both)
        title, scheme = (title_of(whole, on) if on else whole for whole in (one.label, one.name))
        try:
            mine, theirs = (self._disturbed(case, subject, one) for subject in both)
            draws = min(len(mine.trials), len(theirs.trials))
            mine, theirs = mine.first(draws), theirs.first(draws)
            if part is not None:
                mine, theirs = part.of(mine), part.of(theirs)
                if few := part.too_few(theirs.groups):
                    claim = replace(undecided(few, PAIR, title=title), scheme=scheme)
                    return self.draft(case, name, claim, (*mine.trials, *theirs.trials))
                for subject, there in zip(both, (mine, theirs), strict=True):
                    part.require_left(there, subject, theirs.edge(*both, own=self.settings.margin))
            edge = theirs.edge(*both, own=self.settings.margin)
        except NoAnswer as gap:
            return self.unanswered(name, gap, title=title, scheme=scheme)
        more = theirs.loss(title, beyond=mine, edge=edge, level=0.95 if part is None else part.level)
        words = f"At {title}, {rival.name} loses {case.plan.task.loss_text(more, more=True)} than {reference.name}"
        claim = theirs.claim(more, beyond=mine, edge=edge, stated=words)
        claim = replace(
            claim, words=PAIR, title=title, scheme=scheme, beside=(mine.score, theirs.score, *claim.beside),
            found=f"{claim.found} {edge.because}".rstrip(), otherwise=f"{claim.otherwise} {edge.because}".rstrip(),
        )  # fmt: skip
        return self.draft(case, name, claim, (*mine.trials, *theirs.trials))

    # ---- controls ---------------------------------------------------------------------------------------------

    def _null(self, case: Case, name: str) -> Control:
        lost = Losses.of(case, case.plan.reference, [self._fine(case.plan)]).loss("loss at 16 bits")
        margin = max(case.margin(self.settings.margin), case.scaled(_FINEST))
        words = f"Rounding to 16 bits must cost nothing: it costs {lost}."
        return silent(name, lost, margin=margin / 2, min_effect=_SEEN * margin, because=words, one_sided=True)

    def _twin(self, case: Case, name: str) -> Control:
        null = self._null_of(case)
        shared = _shared(twin_of(case.plan)).label
        words = (
            f"A copy that computes the same must lose as much at {shared}: it loses {null.gap} more "
            f"({_NULL_LEVEL:.0%} interval)."
        )
        return silent_twice(name, null, because=words)

    def _null_of(self, case: Case) -> Null:
        """How much more the twin loses than the reference, by fresh draws too where they were made."""
        plan, twin, again = case.plan, twin_of(case.plan), None
        margin, one, both = case.way(self.settings.margin), _shared(twin), (twin, plan.reference)
        gap = self._beyond(case, [self.trials(plan, copy, one) for copy in both], level=_NULL_LEVEL)
        second = self._twins_again(plan)
        if second and case.known(second):
            again = self._beyond(case, [self._again(plan, copy) for copy in both], level=AGAIN)
        return Null(gap=gap, again=again, margin=margin, min_effect=_SEEN * margin)

    def _beyond(self, case: Case, both: list[list[Trial]], *, level: float) -> Estimate:
        """How much more the twin (first) loses than the reference; open where one draw of noise has no spread."""
        plan, twin, edge = case.plan, twin_of(case.plan), Edge(case.way(self.settings.margin))
        case.require_above_chance(plan.reference)
        theirs, mine = (
            Losses.of(case, copy, trials) for copy, trials in zip((twin, plan.reference), both, strict=True)
        )
        more = theirs.loss("loss_difference", beyond=mine, edge=edge, level=level)
        single = _shared(twin).random and len(both[0]) == 1
        return msgspec.structs.replace(more, low=None, high=None, p=None) if single else more

    def _planted(self, case: Case) -> Control:
        every = self._strong(case.plan, draws=_STRONG_DRAWS)
        return self._destroyed(case, every if case.known(every) else every[:1])

    def _destroyed(self, case: Case, trials: list[Trial]) -> Control:
        """Whether noise that leaves nothing of the weights costs most of the score.

        Where it does not, the model computes with something else than what disturbances reach, whatever share of the
        weights that is.

        A net with two answers may by luck still be right after one draw; after many it is not.
        """
        reference = case.plan.reference
        case.require_above_chance(reference)
        noisy = Losses.of(case, reference, trials)
        lost = noisy.loss("loss under strong noise")
        surely = noisy.loss("loss under strong noise", level=_SURE) if len(trials) > 1 else None
        above = abs(float(case.clean(reference).mean()) - case.chance)
        words = f"Noise {_STRONG / 100:g} times as large as each weight must cost most of the score: it costs {lost}."
        return destroyed(f"{self.code} {_DESTROYS}", lost, least=above / 4, surely=surely, because=words)


def _amount(one: Estimate) -> str:
    """An amount of change in three digits: of divergences most are small."""
    ends = "" if one.low is None or one.high is None or one.low == one.high else f" [{one.low:.3g}, {one.high:.3g}]"
    return f"{one.name} {one.value:.3g}{ends}"


def _changes(drafts: Iterable[Hypothesis]) -> list[Section]:
    """What changes in each row, in a table: of next tokens where a language model's were compared, else of options."""
    answers, same = ("answers lost", "answers gained", "answers changed"), "same top answer"
    found = [(draft.finding, {one.name: one for one in draft.finding.estimates}) for draft in drafts]
    several = len({finding.subject for finding, known in found if SAME_TOKEN in known}) > 1
    tokens = any(SAME_TOKEN in known for _, known in found)
    kl = (
        (SAME_TOKEN, f"mean {TOKEN_KL}", f"99 % {TOKEN_KL}") if tokens else ("mean KL divergence", "99 % KL divergence")
    )
    found = [(finding, known) for finding, known in found if known.keys() & {same, AGREED, *kl}]
    heads = tuple(name for name in (*answers, same, AGREED, *kl) if any(name in known for _, known in found))
    rows = tuple(
        (f"{finding.subject}: {finding.title}" if several else finding.title, *(known.get(head, "") for head in heads))
        for finding, known in found
    )
    says = "An answer may change and none be lost; near the original, KL divergence says nothing of the loss."
    return [Section(title=CHANGE, blocks=(Table(title=says, heads=("shipped as", *heads), rows=rows),))] if rows else []


def _shared(twin: SubjectRecord) -> Scheme:
    """A scheme that costs a twin what it costs the original: rounding sees a unit's scale, relative noise does not."""
    return scheme("noise5" if twin.made is not None and "rescale" in twin.made.operations else "int4")


_STRONG = 1000
"""Noise of the planted control, in percent of each weight."""

_DESTROYS = "noise that destroys the weights"

_STRONG_DRAWS = 16
"""Draws of it, where the first one does not destroy the score."""

_SURE = 0.999
"""Confidence with which it must be shown to cost little before the run is void."""

_NULL_LEVEL = 0.99
"""Confidence with which the twin must lose more, or less, before it is looked at again."""

_AGAIN_FROM = 20_000
"""Seeds of draws that no scheme uses."""

_FINEST = 1e-6
"""Share of the way from chance to the score that rounding to 16 bits may cost of itself."""

_SEEN = 5.0
"""Loss that the null control must have been able to see, in margins."""
