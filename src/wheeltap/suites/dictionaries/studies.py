"""The study ``dictionaries``: is a trained dictionary better than one that knows nothing, on nets of several seeds?

Numbers and rules were fixed before the first dictionary was made. A trained dictionary earns its place only where it
leads over a frozen decoder and over random directions by more than .10, both in what its features stand for and in
what can be edited with them (arXiv:2602.14111 has leads of .03 and -.01).
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, final

import msgspec
import numpy as np

from wheeltap.audits.case import Arrays, Case
from wheeltap.audits.claims import NoAnswer
from wheeltap.audits.controls import Ruling, control
from wheeltap.core import seeds
from wheeltap.core.plain import fixed
from wheeltap.core.records import Control, Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.section import Section
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortRole, CohortSpec, MemberSpec, Metric, Rule
from wheeltap.stats import members
from wheeltap.stats.members import NumberScale, Single
from wheeltap.studies.base import Study, StudyAnswer
from wheeltap.studies.rules import headline
from wheeltap.studies.table import MemberTable, Numbers
from wheeltap.suites.dictionaries.audits.claims import section
from wheeltap.suites.dictionaries.audits.scores import edited, f1_of, reconstructed
from wheeltap.suites.dictionaries.specs import (
    DICTIONARY_CONTROL,
    DICTIONARY_FEATURES,
    DICTIONARY_RECONSTRUCTION,
    DICTIONARY_VIEW,
    NULLS,
    Kind,
)

Net = Literal["ioi-net", "digits", "smollm2"]


@final
@dataclass(frozen=True, kw_only=True)
class TrainingSite:
    """Where dictionaries are trained.

    Attributes:
        about: In a sentence.
        task: Examples, by their spec.
        site: Module path.
        recipe: Of the nets, one for each seed; empty where there is one net for all.
        source: Of that one.
    """

    about: str
    task: str
    site: str
    recipe: str = ""
    source: str = ""


GROUNDS: Final[Mapping[Net, TrainingSite]] = {
    "ioi-net": TrainingSite(
        about="Small transformers that name the indirect object, one for each seed; the stream after the second block.",
        task="attributes:ioi", site="blocks.1", recipe="ioi-net",
    ),
    "digits": TrainingSite(
        about="Nets of two hidden layers on handwritten digits, one for each seed; the first hidden layer.",
        task="attributes:digits", site="1", recipe="digits",
    ),
    "smollm2": TrainingSite(
        about="SmolLM2-135M-Instruct, sentences that name the indirect object; one net for all seeds.",
        task="attributes:ioi", site="model.layers.20", source="smollm2",
    ),
}  # fmt: skip

TRAINED, RESEED, NET = "trained", "reseed", "net"

ABOUT: Final[Mapping[Kind, str]] = {
    "own": "The dictionary in question.",
    "reseed": "The same training from another seed.",
    "frozen decoder": "Its decoder stays at random directions; the encoder is trained.",
    "soft-frozen decoder": "Each row of the decoder stays within a cosine of .8 of where it began.",
    "frozen encoder": "The encoder stays at random directions; the decoder is trained.",
    "random": "Random directions with the norms of the trained decoder; nothing is trained.",
    "untrained net": "Trained on vectors of the net with its weights in random order.",
    "identity": "The numbers of the vector themselves.",
    "pca": "Principal components.",
    "mean codes": "Features are the values of the attributes: means of their vectors.",
    "least squares": "Features are the values of the attributes: fitted to the vectors.",
}

JUDGED: Final[Mapping[Kind, str]] = {"frozen decoder": "frozen decoders", "random": "random directions"}
"""Nulls that rules hold the trained dictionaries against; all others stand in the table."""

SCORE, KEPT, LOST, EDITS, F1 = "score", "kept", "lost", "edits", "f1"
EXPLAINED, ACTIVE, DEAD = "explained", "active", "dead"

EARNS: Final = 0.10
"""Lead over a null that a dictionary must have in F1 and in edits (claims.md, E6)."""

SUPERVISED_EDITS: Final = 0.05
"""Lead over random directions that edits by supervised codes must have for the study to say anything of edits."""

_NOISE: Final = 2.0
"""Standard deviations of the difference of two seeds up to which a lead is called no larger than a reseed's noise."""

_VIEWED: Final = (f"{TRAINED} 1", "frozen decoder 1", "random 1")
"""Members whose features the page shows, side by side."""

LEAST: Final = 20
"""Pairs of an attribute whose answer an exact patch must change."""


class DictionariesSettings(Settings, frozen=True, kw_only=True):
    """Which nets, and which dictionaries.

    Attributes:
        net: The nets.
        site: Module path whose output dictionaries are of; by default one that suits the net.
        architecture: ``topk``, ``batchtopk``, ``jumprelu``, ``gated`` or ``relu``.
        features: Of each dictionary.
        k: Features that are active, on average.
        steps: Of each training.
        seeds: Dictionaries of each kind.
        seed: Root of what everything is made from.
        budget: Features that an edit may change.
        pairs: Of each attribute, at most.
    """

    net: Net = "ioi-net"
    site: str = ""
    architecture: Literal["topk", "batchtopk", "jumprelu", "gated", "relu"] = "topk"
    features: Annotated[int, msgspec.Meta(ge=2, le=2**20)] = 512
    k: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 8
    steps: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 2000
    seeds: Annotated[int, msgspec.Meta(ge=2, le=100)] = 8
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    budget: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    pairs: Annotated[int, msgspec.Meta(ge=2)] = 200


@final
class Dictionaries(Study):
    """Dictionaries of one site beside nulls, reseeds and baselines: what each keeps, edits and stands for."""

    name = "dictionaries"
    title = "Are trained dictionaries better than dictionaries that know nothing?"
    code = "WT402"
    settings_type = DictionariesSettings
    small: ClassVar[dict[str, Scalar]] = {"seeds": 5, "steps": 1000, "features": 256}
    settings: DictionariesSettings
    caveats = (
        "Small tasks whose attributes are known beforehand: nothing is known here of features that nobody thought of, "
        "or of dictionaries trained on a whole corpus.",
        "Edits are scored on pairs whose answer the exact patch changes; features by the values of the task's own "
        "attributes.",
    )

    @property
    def ground(self) -> TrainingSite:
        """Where dictionaries are trained."""
        return GROUNDS[self.settings.net]

    @property
    def examples(self) -> str:
        """See ``Study.examples``."""
        return self.ground.task

    @property
    def held_out(self) -> float:
        """Dictionaries are fitted on the other half."""
        return 0.5

    # ---- who ------------------------------------------------------------------------------------------------------

    def cast(self) -> tuple[CohortSpec, ...]:
        """The trained ones first, then each other kind, then the nets."""
        roles: dict[Kind, CohortRole] = {**dict.fromkeys(NULLS, "null"), "own": "studied", "mean codes": "planted",
                                         "least squares": "planted"}  # fmt: skip
        nets = tuple(self._net(at) for at in range(self.settings.seeds if self.ground.recipe else 1))
        cohorts = tuple(
            CohortSpec(name=TRAINED if kind == "own" else kind, role=roles.get(kind, "compared"), about=about,
                       members=tuple(self._asked(kind, at) for at in range(self.settings.seeds)))
            for kind, about in ABOUT.items()
        )  # fmt: skip
        return CohortSpec(name=NET, members=nets, role="given", about="Without any dictionary."), *cohorts

    def _net(self, at: int) -> MemberSpec:
        ground, name = self.ground, f"{NET} {at + 1}"
        if not ground.recipe:
            return MemberSpec(name=name, source=ground.source)
        return MemberSpec(name=name, recipe=ground.recipe, seed=seeds.derive(self.settings.seed, self.name, NET, at))

    def _asked(self, kind: Kind, at: int) -> MemberSpec:
        how = self.settings
        given: dict[str, Scalar] = {
            "site": how.site or self.ground.site, "architecture": how.architecture, "features": how.features,
            "k": how.k, "steps": how.steps, "entries": "own" if kind == "own" else f"own,{kind}",
        }  # fmt: skip
        return MemberSpec(
            name=f"{TRAINED if kind == 'own' else kind} {at + 1}", recipe="with-dictionary", settings=given,
            # One seed for each place: a reseed and a random one stand beside the very dictionary of that seed.
            seed=seeds.derive(how.seed, self.name, at),
            of=(f"{NET} {at + 1 if self.ground.recipe else 1}",),
        )  # fmt: skip

    # ---- numbers and rules ----------------------------------------------------------------------------------------

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``."""
        share = (0.0, 1.0)
        return (
            Metric(key=F1, title="F1 of features", unit="share", code="WT403", ends=share, toward="high",
                   reads="Of the feature that fits each value best on half of the examples, on the other half: mean "
                   "over values and attributes."),
            Metric(key=EDITS, title="Edits that agree", unit="share", code="WT402", ends=share, toward="high",
                   reads="With the exact patch of one attribute, on pairs whose answer it changes; at most "
                   f"{self.settings.budget} features are changed."),
            Metric(key=KEPT, title="Kept by reconstructions", unit="share", code="WT401", toward="high",
                   reads="Of the margin between the mean vector and the vector itself."),
            Metric(key=LOST, title="Lost without them", unit="share", code="WT401", toward="high",
                   reads="Of the same margin, with what the dictionary leaves out."),
            Metric(key=EXPLAINED, title="Variance explained", unit="share", code="WT401", ends=(None, 1.0),
                   toward="high", reads="Of the vectors, by reconstructions."),
            Metric(key=ACTIVE, title="Active features", unit="features", code="WT401", ends=(0.0, None),
                   reads="Of a vector, in the mean."),
            Metric(key=DEAD, title="Dead features", unit="share", code="WT401", ends=share,
                   reads="Active on none of the examples."),
            Metric(key=SCORE, title="Score of the net", unit="accuracy", code="WT001", ends=share,
                   reads="Without any dictionary."),
        )  # fmt: skip

    def rules(self) -> tuple[Rule, ...]:
        """Four: F1 and edits, against a frozen decoder and against random directions."""
        return tuple(
            Rule(
                code=code, title=f"Better {what} than {null}", metric=metric, cohorts=(TRAINED, null),
                statistic="paired", direction="more", margin=EARNS,
                supports=f"Trained dictionaries lead over {nulls} by more than {EARNS:.2f} in {what}.",
                refutes=f"Trained dictionaries do not lead over {nulls} by {EARNS:.2f} in {what}.",
            )
            for metric, code, what in ((F1, "WT403", "F1"), (EDITS, "WT402", "edits"))
            for null, nulls in JUDGED.items()
        )  # fmt: skip

    # ---- asking ---------------------------------------------------------------------------------------------------

    def _entry(self, member: SubjectRecord) -> int | None:
        """Number of the dictionary that a member is about: the last one; ``None`` of a net."""
        kind = member.name.rpartition(" ")[0]
        return None if kind == NET else 0 if kind == TRAINED else 1

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """Three readings of each dictionary."""
        entry = self._entry(member)
        if entry is None:
            return []
        how = self.settings
        edits: dict[str, Scalar] = {"entry": entry, "pairs": how.pairs, "budgets": str(how.budget)}
        viewed = [case.plan.reading(member, DICTIONARY_VIEW.name, {"entry": entry})] if member.name in _VIEWED else []
        return [
            case.plan.reading(member, DICTIONARY_RECONSTRUCTION.name, {"entry": entry}),
            case.plan.reading(member, DICTIONARY_CONTROL.name, edits),
            case.plan.reading(member, DICTIONARY_FEATURES.name, {"entry": entry}),
            *viewed,
        ]

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``."""
        trials = self.ask_of(case, member)
        if not trials:
            return {SCORE: Single(float(case.clean(member).mean()))}
        found, gaps = dict[str, float](), list[str]()
        of: tuple[Any, ...] = (self._reconstructed, self._edited, self._features)
        for trial, numbers in zip(trials, of, strict=False):
            try:
                found |= numbers(case.reading(trial))
            except NoAnswer as gap:
                gaps.append(gap.because)
        if not found:
            raise NoAnswer("not_applicable", " ".join(dict.fromkeys(gaps)))
        return {key: Single(value) for key, value in found.items() if np.isfinite(value)}

    def _reconstructed(self, read: Arrays) -> dict[str, float]:
        error, spread = read["error"].sum(), read["spread"].sum()
        found = {
            EXPLAINED: 1.0 - float(error / spread) if spread > 0.0 else float("nan"),
            ACTIVE: float(read["active"].mean()), DEAD: float((read["dead"] / read["features"]).mean()),
        }  # fmt: skip
        kept, lost = reconstructed(read)
        return {**found, KEPT: kept.mean, LOST: lost.mean}

    def _edited(self, read: Arrays) -> dict[str, float]:
        return {EDITS: edited(read, budget=self.settings.budget, least=LEAST).mean}

    def _features(self, read: Arrays) -> dict[str, float]:
        return {F1: f1_of(read).mean}

    # ---- judging --------------------------------------------------------------------------------------------------

    def controls(self, case: Case, table: MemberTable) -> list[Control]:
        """See ``Study.controls``."""
        return [supervised(table)]

    def said(self, case: Case, table: MemberTable, findings: Sequence[Finding]) -> StudyAnswer:
        """See ``Study.said``."""
        found = [(f"{table.metric(one.key).title} over {one.null}", one) for one in leads(table)]
        small = [what for what, one in found if one.small and one.null in JUDGED]
        noisy = f" No larger than a reseed's noise: {'; '.join(small)}." if small else ""
        return StudyAnswer(
            headline=f"{verdict(findings)}{noisy} {headline(self.rules(), findings)}", about=self.ground.about,
            notes=tuple(f"Lead in {what}: {one.words}." for what, one in found), caveats=self.caveats,
        )  # fmt: skip

    def sections(self, case: Case, table: MemberTable) -> list[Section]:
        """See ``Study.sections``."""
        found = dict[str, Arrays]()
        for member in case.plan.subjects:
            if member.name in _VIEWED:
                with suppress(NoAnswer):
                    found[member.name] = case.reading(self.ask_of(case, member)[-1])
        return [section(self.settings.net, case.plan.task.name, found)] if found else []


def verdict(findings: Sequence[Finding]) -> str:
    """Whether trained dictionaries earn their place: all four rules must be found."""
    if all(one.status == "found" for one in findings):
        return "TRAINED DICTIONARIES EARN THEIR PLACE."
    if any(one.status == "excluded" for one in findings):
        return "NO BETTER THAN A RANDOM DICTIONARY."
    return "NOT SHOWN TO BE BETTER THAN A RANDOM DICTIONARY."


@final
class Lead(NamedTuple):
    """Of trained dictionaries over one kind of null: in words, and whether another seed makes as large a difference."""

    key: str
    null: str
    words: str
    small: bool


def leads(table: MemberTable) -> list[Lead]:
    """The lead over every null, by metric, beside what another seed makes of the same training."""
    found = list[Lead]()
    for key in (F1, EDITS, KEPT):
        own, again = (dict(_by_place(table, cohort, key)) for cohort in (TRAINED, RESEED))
        gaps = [own[at] - again[at] for at in own.keys() & again.keys()]
        for null in NULLS if len(gaps) > 1 else ():
            other = dict(_by_place(table, null, key))
            each = [own[at] - other[at] for at in sorted(own.keys() & other.keys())]
            if len(each) > 1:
                scale, spread = NumberScale("share", bounded=True), float(np.std(gaps, ddof=1))
                lead = members.paired(each, [0.0] * len(each), name=key, scale=scale).estimate
                small = abs(lead.value or 0.0) <= _NOISE * spread
                words = f"{lead}; another seed differs by {fixed(spread, 3)} (standard deviation)"
                found.append(Lead(key, null, words, small))
    return found


def _by_place(table: MemberTable, cohort: str, key: str) -> list[tuple[int, float]]:
    """A cohort's numbers with the places of the members that have them."""
    names = table.cohort(cohort).members
    return [(at, table.numbers[name][key].value) for at, name in enumerate(names) if key in table.numbers.get(name, {})]


@control("edits by supervised codes are found", "planted")
def supervised(table: MemberTable) -> Ruling:
    """Do edits by features that are the values themselves lead over random directions?"""
    best: Kind = "mean codes"
    one, two = (dict(_by_place(table, cohort, EDITS)) for cohort in (best, "random"))
    places = sorted(one.keys() & two.keys())
    if len(places) < 2:
        raise NoAnswer("skipped", "Edits have no number here: nothing is controlled from this site.")
    test = members.paired([one[at] for at in places], [two[at] for at in places], name="lead of supervised edits",
                          scale=NumberScale("share", bounded=True))  # fmt: skip
    p, shown = test.above(SUPERVISED_EDITS, "more"), test.estimate
    if p is None:
        raise NoAnswer("skipped", "All dictionaries have the same number: it could not have failed.")
    because = (
        f"Supervised edits agree in {fixed(float(np.mean([*one.values()])), 3)}, those of random directions in "
        f"{fixed(float(np.mean([*two.values()])), 3)}: {shown} more. More than {SUPERVISED_EDITS:g} must be found at "
        f"p <= {_FOUND:g}."
    )
    surely_not = test.below(SUPERVISED_EDITS, "more")
    failed = surely_not is not None and surely_not <= _SURELY
    why = "" if p <= _FOUND or failed else " No power: so few dictionaries cannot show it."
    return "passed" if p <= _FOUND else "failed" if failed else "skipped", (shown,), f"{because}{why}"


_FOUND, _SURELY = 0.01, 0.001
"""P-values up to which the planted control passes, and fails."""
