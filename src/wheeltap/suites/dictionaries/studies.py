"""The study ``dictionaries``: is a trained dictionary better than one that knows nothing, on nets of several seeds?

Numbers and rules were fixed before the first dictionary was made. A trained dictionary earns its place only where it
leads over a frozen decoder and over random directions by more than .10, both in what its features stand for and in
what can be edited with them (arXiv:2602.14111 has leads of .03 and -.01).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, ClassVar, Final, Literal, NamedTuple, final

import msgspec
import numpy as np

from wheeltap.audits.case import Arrays, Case
from wheeltap.audits.claims import NoAnswer
from wheeltap.audits.controls import Ruling, control
from wheeltap.core import seeds
from wheeltap.core.plain import fixed
from wheeltap.core.records import Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.section import Section
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortRole, CohortSpec, MemberSpec, Metric, Rule
from wheeltap.stats import members
from wheeltap.stats.members import NumberScale, Single
from wheeltap.studies.base import Study, StudyAnswer
from wheeltap.studies.rules import headline
from wheeltap.studies.table import MemberTable, Numbers
from wheeltap.suites.dictionaries import specs
from wheeltap.suites.dictionaries.audits.claims import section
from wheeltap.suites.dictionaries.audits.scores import edited, f1_of, reconstructed
from wheeltap.suites.dictionaries.specs import NULLS, Kind

Net = Literal["ioi-net", "digits", "smollm2"]


@final
class TrainingSite(NamedTuple):
    """Where dictionaries are trained: in a sentence; examples, by their spec; module path.

    Nets are made by a recipe, one for each seed, or there is one net for all, which has a source.
    """

    about: str
    task: str
    site: str
    recipe: str = ""
    source: str = ""


SITES: Final[Mapping[Net, TrainingSite]] = {
    "ioi-net": TrainingSite(
        "Small transformers that name the indirect object, one for each seed; the stream after the second block.",
        "attributes:ioi", "blocks.1", recipe="ioi-net",
    ),
    "digits": TrainingSite(
        "Nets of two hidden layers on handwritten digits, one for each seed; the first hidden layer.",
        "attributes:digits", "1", recipe="digits",
    ),
    "smollm2": TrainingSite(
        "SmolLM2-135M-Instruct, sentences that name the indirect object; one net for all seeds.",
        "attributes:ioi", "model.layers.20", source="smollm2",
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
EARNS: Final = 0.10  # lead over a null that a dictionary must have in F1 and in edits (claims.md, E6)
SUPERVISED_EDITS: Final = 0.05
"""Lead over random directions that edits by supervised codes must have for the study to say anything of edits."""

_FOUND, _SURELY = 0.01, 0.001  # P-values up to which that is found, or surely not so
_NOISE: Final = 2.0
"""Standard deviations of the difference of two seeds up to which a lead is called no larger than a reseed's noise."""

_VIEWED: Final = (f"{TRAINED} 1", "frozen decoder 1", "random 1")  # members whose features the page shows, side by side
LEAST: Final = 20  # pairs of an attribute whose answer an exact patch must change
_SHARE: Final = NumberScale("share", normal=True)


class DictionariesSettings(Settings, frozen=True, kw_only=True):
    """Which nets, and which dictionaries.

    Attributes:
        net: The nets.
        site: Module path whose output dictionaries are of; by default one that suits the net.
        architecture: ``topk``, or ``relu`` (with an L1 penalty).
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
    architecture: Literal["topk", "relu"] = "topk"
    features: Annotated[int, msgspec.Meta(ge=2, le=2**20)] = 512
    k: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 8
    steps: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 2000
    seeds: Annotated[int, msgspec.Meta(ge=2, le=100)] = 8
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    budget: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    pairs: Annotated[int, msgspec.Meta(ge=2)] = 200


@control("edits by supervised codes are found", "planted")
def supervised(table: MemberTable) -> Ruling:
    """Do edits by features that are the values themselves lead over random directions?"""
    both = _pairs(table, "mean codes", "random", EDITS)
    if len(both) < 2:
        raise NoAnswer("skipped", "Edits have no number here: nothing is controlled from this site.")
    codes, random = zip(*both, strict=True)
    test = members.paired(codes, random, name="lead of supervised edits", scale=_SHARE)
    p, shown = test.above(SUPERVISED_EDITS, "more"), test.estimate
    if p is None:
        raise NoAnswer("skipped", "All dictionaries have the same number: it could not have failed.")
    because = (
        f"Supervised edits agree in {fixed(float(np.mean(codes)), 3)}, those of random directions in "
        f"{fixed(float(np.mean(random)), 3)}: {shown} more. More than {SUPERVISED_EDITS:g} must be found at "
        f"p <= {_FOUND:g}."
    )
    surely_not = test.below(SUPERVISED_EDITS, "more")
    failed = surely_not is not None and surely_not <= _SURELY
    why = "" if p <= _FOUND or failed else " No power: so few dictionaries cannot show it."
    return "passed" if p <= _FOUND else "failed" if failed else "skipped", (shown,), f"{because}{why}"


@final
class Dictionaries(Study):
    """Dictionaries of one site beside nulls, reseeds and baselines: what each keeps, edits and stands for."""

    name = "dictionaries"
    title = "Are trained dictionaries better than dictionaries that know nothing?"
    code = "WT402"
    settings_type = DictionariesSettings
    checks = (supervised,)
    small: ClassVar[dict[str, Scalar]] = {"seeds": 5, "steps": 1000, "features": 256}
    settings: DictionariesSettings
    caveats = (
        "Small tasks whose attributes are known beforehand: nothing is known here of features that nobody thought of, "
        "or of dictionaries trained on a whole corpus.",
        "Edits are scored on pairs whose answer the exact patch changes; features by the values of the task's own "
        "attributes.",
    )

    @property
    def where(self) -> TrainingSite:
        """Where dictionaries are trained."""
        return SITES[self.settings.net]

    @property
    def examples(self) -> str:
        """See ``Study.examples``."""
        return self.where.task

    @property
    def held_out(self) -> float:
        """Dictionaries are fitted on the other half."""
        return 0.5

    def cast(self) -> tuple[CohortSpec, ...]:
        """The nets, the trained ones, then each other kind."""
        roles: dict[Kind, CohortRole] = {**dict.fromkeys(NULLS, "null"), "own": "studied", "mean codes": "planted",
                                         "least squares": "planted"}  # fmt: skip
        how, where = self.settings, self.where
        places = range(how.seeds)
        nets = [MemberSpec(name=f"{NET} {at + 1}", recipe=where.recipe, source=where.source,
                           seed=seeds.derive(how.seed, self.name, NET, at) if where.recipe else 0)
                for at in places[: None if where.recipe else 1]]  # fmt: skip
        found = [CohortSpec(name=NET, members=tuple(nets), role="given", about="Without any dictionary.")]
        for kind, about in ABOUT.items():
            name = TRAINED if kind == "own" else kind
            given: dict[str, Scalar] = {
                "site": how.site or where.site, "architecture": how.architecture, "features": how.features,
                "k": how.k, "steps": how.steps, "entries": "own" if kind == "own" else f"own,{kind}",
            }  # fmt: skip
            made = tuple(
                MemberSpec(
                    # One seed for each place: a reseed and a random one stand beside the very dictionary of that seed.
                    name=f"{name} {at + 1}", recipe="with-dictionary", settings=given, of=(nets[at % len(nets)].name,),
                    seed=seeds.derive(how.seed, self.name, at),
                )
                for at in places
            )  # fmt: skip
            found.append(CohortSpec(name=name, members=made, role=roles.get(kind, "compared"), about=about))
        return tuple(found)

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``."""
        share, edits = (0.0, 1.0), f"at most {self.settings.budget} features are changed."
        rows: tuple[tuple[str, str, str, tuple[float | None, float | None], str], ...] = (
            (F1, "F1 of features", "WT403", share, "Of the feature that fits each value best on half of the examples, "
             "on the other half: mean over values and attributes."),
            (EDITS, "Edits that agree", "WT402", share, "With the exact patch of one attribute, on pairs whose answer "
             f"it changes; {edits}"),
            (KEPT, "Kept by reconstructions", "WT401", (None, None), "Of the margin between the mean vector and the "
             "vector itself."),
            (LOST, "Lost without them", "WT401", (None, None), "Of the same margin, with what the dictionary leaves "
             "out."),
            (EXPLAINED, "Variance explained", "WT401", (None, 1.0), "Of the vectors, by reconstructions."),
            (ACTIVE, "Active features", "WT401", (0.0, None), "Of a vector, in the mean."),
            (DEAD, "Dead features", "WT401", share, "Active on none of the examples."),
            (SCORE, "Score of the net", "WT001", share, "Without any dictionary."),
        )  # fmt: skip
        units = {ACTIVE: "features", SCORE: "accuracy"}
        return tuple(
            Metric(key=key, title=title, unit=units.get(key, "share"), code=code, ends=ends, reads=reads,
                   toward="" if key in (ACTIVE, DEAD, SCORE) else "high")
            for key, title, code, ends, reads in rows
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

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """Three readings of each dictionary, the last one of those that the member has; what the page shows."""
        kind, how = member.name.rpartition(" ")[0], self.settings
        if kind == NET:
            return []
        entry: dict[str, Scalar] = {"entry": int(kind != TRAINED)}
        edits: dict[str, Scalar] = {**entry, "pairs": how.pairs, "budget": how.budget}
        asked = [
            (specs.DICTIONARY_RECONSTRUCTION, entry),
            (specs.DICTIONARY_CONTROL, edits),
            (specs.DICTIONARY_FEATURES, entry),
        ]
        asked += [(specs.DICTIONARY_VIEW, entry)] if member.name in _VIEWED else []
        return [case.plan.reading(member, one.name, settings) for one, settings in asked]

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``."""
        trials = self.ask_of(case, member)
        if not trials:
            return {SCORE: Single(float(case.clean(member).mean()))}
        found, gaps = dict[str, float](), list[str]()
        of: tuple[Callable[[Arrays], dict[str, float]], ...] = (
            _shares, _kept, lambda read: {EDITS: edited(read, least=LEAST).mean},
            lambda read: {F1: f1_of(read).mean},
        )  # fmt: skip
        for trial, numbers in zip((trials[0], *trials[:3]), of, strict=True):
            try:
                found |= numbers(case.reading(trial))
            except NoAnswer as gap:
                gaps.append(gap.because)
        if not found:
            raise NoAnswer("not_applicable", " ".join(dict.fromkeys(gaps)))
        return {key: Single(value) for key, value in found.items() if np.isfinite(value)}

    def said(self, case: Case, table: MemberTable, findings: Sequence[Finding]) -> StudyAnswer:
        """See ``Study.said``."""
        found, small = leads(table), dict[str, list[str]]()
        for one in found:
            if one.small:
                small.setdefault(table.metric(one.key).title, []).append(one.null)
        noise = "; ".join(f"{title} over {', '.join(nulls)}" for title, nulls in small.items())
        noisy = f" No larger than a reseed's noise: {noise}." if noise else ""
        return StudyAnswer(
            headline=f"{verdict(findings)}{noisy} {headline(self.rules(), findings)}", about=self.where.about,
            notes=tuple(f"Lead in {table.metric(one.key).title} over {one.null}: {one.words}." for one in found),
            caveats=self.caveats,
        )  # fmt: skip

    def sections(self, case: Case, table: MemberTable) -> list[Section]:
        """See ``Study.sections``."""
        found = dict[str, Arrays]()
        for member in case.plan.subjects:
            if member.name in _VIEWED:
                with suppress(NoAnswer):
                    found[member.name] = case.reading(self.ask_of(case, member)[-1])
        return [section(self.settings.net, case.plan.task.name, found)] if found else []


def _shares(read: Arrays) -> dict[str, float]:
    """What reconstructions explain, and how many features are active or dead."""
    error, spread = read["error"].sum(), read["spread"].sum()
    return {
        EXPLAINED: 1.0 - float(error / spread) if spread > 0.0 else float("nan"),
        ACTIVE: float(read["active"].mean()), DEAD: float((read["dead"] / read["features"]).mean()),
    }  # fmt: skip


def _kept(read: Arrays) -> dict[str, float]:
    kept, lost = reconstructed(read)
    return {KEPT: kept.mean, LOST: lost.mean}


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
        again = [one - other for one, other in _pairs(table, TRAINED, RESEED, key)]
        for null in [kind for kind in NULLS if kind in ABOUT] if len(again) > 1 else ():
            each = _pairs(table, TRAINED, null, key)
            if len(each) > 1:
                spread = float(np.std(again, ddof=1))
                lead = members.paired(*zip(*each, strict=True), name=key, scale=_SHARE).estimate
                words = f"{lead}; another seed differs by {fixed(spread, 3)} (standard deviation)"
                found.append(Lead(key, null, words, abs(lead.value or 0.0) <= _NOISE * spread))
    return found


def _pairs(table: MemberTable, first: str, second: str, key: str) -> list[tuple[float, float]]:
    """Numbers of two cohorts, member by member, where both have one."""
    names = zip(table.cohort(first).members, table.cohort(second).members, strict=True)
    both = ([table.numbers.get(name, {}).get(key) for name in pair] for pair in names)
    return [(one.value, other.value) for one, other in both if one is not None and other is not None]
