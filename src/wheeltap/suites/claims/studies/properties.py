"""The study ``properties``: which property of training keeps a net's score when weights are changed, at equal score?

Nets of one seed start alike and see the same order of examples, and differ in one property alone. What is kept is
compared pair by pair with plain AdamW; and one cheap number of each net is tried as a predictor of what is kept.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Final, final

import msgspec
import numpy as np

from wheeltap.audits.case import Case
from wheeltap.audits.claims import NoAnswer
from wheeltap.audits.schemes import scheme
from wheeltap.core import seeds
from wheeltap.core.errors import DataError, UnknownName
from wheeltap.core.records import Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.section import Section, Table
from wheeltap.core.settings import Settings, comma_separated
from wheeltap.core.study import CohortSpec, MemberSpec, Metric, Rule
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.input_shift import INPUT_SHIFT
from wheeltap.stats import held_out
from wheeltap.stats.crossed import FloatArray, Values
from wheeltap.stats.curve import Response, half_dose
from wheeltap.stats.members import NumberScale, Single, over_nets
from wheeltap.stats.mogstad2024 import rank_intervals
from wheeltap.studies.base import Study, StudyAnswer
from wheeltap.studies.rules import listed
from wheeltap.studies.table import LEVEL, MemberTable, Numbers
from wheeltap.suites.claims.specs import DIGITS, SIDE, WEIGHT_TAILS, On

PLAIN: Final = "AdamW"  # what every property is compared with


class Property(msgspec.Struct, frozen=True):
    """A property of training or structure: settings of the recipe that are not plain AdamW's, others again on text."""

    name: str
    settings: dict[str, Scalar]
    about: str
    text: dict[str, Scalar] = {}


PROPERTIES: Final = {
    "sam": Property("SAM", {"rho": 0.1}, "Sharpness-aware: two gradients a step.", {"rho": 0.05}),
    "average": Property("weight averaging", {"average": 0.99, "schedule": "constant"},
                        "Constant rate; a moving average of the weights is kept."),
    "decay": Property("weight decay", {"decay": 0.3}, "Thirty times the weight decay of plain AdamW."),
    "noise": Property("weight noise", {"noise": 0.2}, "Gradients are taken under 20 % noise on each weight.",
                      {"noise": 0.05}),
    "constant": Property("constant rate", {"schedule": "constant"}, "The rate does not fall."),
    "dropout": Property("dropout", {"dropout": 0.1}, "A tenth of the hidden units is dropped; on text 3 %.",
                        {"dropout": 0.03}),
    "sparse": Property("sparse weights", {"share": 0.4}, "Two fifths of each matrix are left (top-k by size).",
                       {"share": 0.75}),
    "norm": Property("norm without outliers", {"single": True}, "Norms with one gain for all features."),
    "aware": Property("rounding in training", {"bits": 4}, "Gradients are taken where weights are rounded to 4 bits."),
    "copy": Property("AdamW again", {}, "The same as plain AdamW, of other seeds: nothing can be found of it."),
    "robust": Property("noise and dropout", {"noise": 0.3, "dropout": 0.2}, "Strong weight noise and dropout."),
}  # fmt: skip
"""By the name that the setting takes; the last two are controls that a study need not have."""

_BASES: Final[dict[On, dict[str, Scalar]]] = {
    "digits": {"hidden": "32,32", "epochs": 40, "rate": 5e-3},
    "strokes": {"hidden": "32,32", "epochs": 15, "rate": 5e-3},
    "text": {"hidden": "32", "epochs": 8, "rate": 1e-2},
}
"""Of plain AdamW, on each set; all with its usual weight decay of .01 and a rate that falls linearly."""

NOISE, BITS, PRUNING, TUNING, FLIPS, SHIFT = "noise", "four_bits", "pruning", "fine_tuning", "flips", "shift"

FAMILIES: Final = {
    NOISE: "relative noise", BITS: "4 bits", PRUNING: "pruning", TUNING: "fine-tuning", FLIPS: "flipped bits",
}  # fmt: skip
"""Changes of the weights; what is kept of each is the mean over its doses."""

_DOSES: Final = (0.1, 0.2, 0.4)  # of relative noise, each weight's share: those that count in what is kept
_LADDER: Final = (0.05, *_DOSES, 0.8, 1.6)
"""Over which half doses are read, of relative noise and of noise in function space."""

_SLIGHT: Final = 0.03  # relative noise that shows the curvature
_SCHEMES: Final = {BITS: ("int4", "int4-tensor"), PRUNING: ("prune40", "prune60"), FLIPS: ("flips5e-3-int8",)}
_STEPS: Final = (4, 16)
_DRAWS, _FLIPPED, _FEWEST = 4, 8, 2
_GROUP: Final = 1
"""Examples of this class are taught other answers; what is kept is counted on those of all other classes."""

SURVIVAL, REST, AREA, SCORE, LOSS = "survival", "rest", "area", "score", "loss"
_CODES: Final = {NOISE: "WT101", BITS: "WT103", PRUNING: "WT104", TUNING: "WT110", FLIPS: "WT106", SHIFT: "WT701"}
CURVATURE, HALF, FUNCTION, KURTOSIS, GRID = "curvature", "half_dose", "function_half_dose", "kurtosis", "grid"

PREDICTORS: Final = {
    CURVATURE: "curvature", FUNCTION: "the half dose in function space", KURTOSIS: "the weights' kurtosis",
    GRID: "grid width over basin width",
}  # fmt: skip
"""One cheap number each, from which what is kept is predicted."""

MARGIN: Final = 0.01
"""Smallest difference of interest in what is kept, or in area; half of it at 4 bits, which cost a point or two."""

WORKS, RANK = 0.5, 0.4  # R2, and rank correlation, from which a number counts as a predictor

kept, matched, by = "{}_kept".format, "{}_matched".format, (REST + "_by_{}").format
"""Keys: of what is kept of a family's changes, the same at the score of AdamW, how well a number predicts it."""

QUESTIONS: Final = {
    AREA: ("a larger Pareto area of score and kept score", MARGIN),
    matched(SURVIVAL): ("more kept at equal score, mean of five families", MARGIN),
    matched(BITS): ("more kept at equal score under 4 bits", MARGIN / 2),
}
"""What is asked of every property against plain AdamW, by metric, with the smallest difference of interest."""


class PropertiesSettings(Settings, frozen=True, kw_only=True):
    """Which properties, on what.

    Attributes:
        on: ``digits``, ``strokes`` (drawn here, 14 x 14) or ``text`` (characters of generated sentences).
        properties: Names with commas between; each is compared with plain AdamW.
        seeds: Nets of each.
        seed: Root of what nets are made from.
    """

    on: On = "digits"
    properties: str = "sam,average,decay,noise,constant,dropout,sparse,norm,aware"
    seeds: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 10
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        for name in self.named or ("",):
            if name not in PROPERTIES:
                raise UnknownName("property", name, PROPERTIES)

    @property
    def named(self) -> tuple[str, ...]:
        """Names of the properties, each once."""
        return comma_separated(self.properties)


@final
class Properties(Study):
    """Which property keeps the score of a net when its weights are changed."""

    name = "properties"
    title = "Which property of training keeps a net's score when its weights are changed, at equal score?"
    code = "WT100"
    settings_type = PropertiesSettings
    small: ClassVar[dict[str, Scalar]] = {"properties": "sam,noise,dropout,aware"}
    settings: PropertiesSettings
    caveats = (
        "Small nets, one strength of each property, as many steps for all: SAM takes two gradients a step. Strengths "
        "were chosen on nets of other seeds so that clean scores lie near that of AdamW.",
        "What is kept is compared at the clean score of AdamW by a regression within cohorts, one slope for all. Where "
        "clean scores differ by more than a point, that is an extrapolation: see the table.",
        "A predictor is tried on nets of these properties alone. Nets of one seed count as one.",
    )

    @property
    def examples(self) -> str:
        """See ``Study.examples``."""
        return "digits" if self.settings.on == "digits" else f"wheeltap.suites.claims.lessons:{self.settings.on}"

    def cast(self) -> tuple[CohortSpec, ...]:
        """The properties; and plain AdamW, of the same seeds."""
        how, found = self.settings, list[CohortSpec]()
        plain = Property(PLAIN, {}, "Weight decay .01; the rate falls linearly to nearly 0.")
        for one in (*map(PROPERTIES.__getitem__, how.named), plain):
            settings = {"on": how.on, "optimizer": "adamw", "decay": 0.01, **_BASES[how.on], **one.settings}
            settings |= one.text if how.on == "text" else {}
            root = "again" if one is PROPERTIES["copy"] else "seed"
            made = tuple(
                MemberSpec(name=f"{one.name} {at + 1}", recipe="property-net", settings=settings,
                           seed=seeds.derive(how.seed, self.name, root, at))
                for at in range(how.seeds)
            )  # fmt: skip
            role = "compared" if one is plain else "studied"
            found.append(CohortSpec(name=one.name, members=made, role=role, about=one.about))
        return tuple(found)

    def metrics(self) -> tuple[Metric, ...]:
        """The score, what is kept, cheap numbers, and how well they predict."""
        equal = "The same, less what the clean score explains (one slope within cohorts), at the mean score of AdamW."
        changes = {**FAMILIES, **({SHIFT: "disturbed inputs"} if self.settings.on != "text" else {})}
        five = "Kept, mean of five families"
        shares = (
            *((kept(key), f"Kept under {words}", _CODES[key], "Share of the score above chance that is kept, mean over "
               "doses.") for key, words in changes.items()),
            (kept(SURVIVAL), five, "WT100", "Noise, 4 bits, pruning, fine-tuning and flipped bits count alike."),
            (kept(REST), "Kept, mean of the four families but noise", "WT100", "What cheap numbers predict: some of "
             "them are read from noise."),
            (AREA, "Area", "WT100", "Clean score times score after a change, both above chance: the part of the square "
             "of both that such a net dominates (Pareto). Mean of five families."),
            *((matched(key), f"Kept under {words}, at equal score", _CODES[key], equal)
              for key, words in FAMILIES.items()),
            (matched(SURVIVAL), f"{five}, at equal score", "WT100", equal),
        )  # fmt: skip
        return (
            Metric(key=SCORE, title="Score", unit="accuracy", code="WT001", ends=(0.0, 1.0)),
            Metric(key=LOSS, title="Loss", unit="nats", code="WT001", log=True, ends=(0.0, None)),
            *(Metric(key=key, title=title, unit="share", code=code, reads=reads,
                     ends=(0.0, 1.0) if key == AREA else (-1.0, 2.0)) for key, title, code, reads in shares),
            Metric(key=HALF, title="Half dose of relative noise", unit="dose", code="WT101", log=True),
            Metric(key=CURVATURE, title="Curvature", unit="log of nats", code="WT101",
                   reads="Rise of the loss under 3 % relative noise, over half of the squared dose."),
            Metric(key=FUNCTION, title="Half dose in function space", unit="log of dose", code="WT102"),
            Metric(key=KURTOSIS, title="Kurtosis of the weights", unit="excess", code="WT100"),
            Metric(key=GRID, title="Grid width over basin width", unit="log of ratio", code="WT103",
                   reads="Size of the change by rounding to 4 bits, over the half dose of relative noise."),
            *(Metric(key=by(key), title=f"What is kept but under noise, from {words}: R2 in halvings",
                     unit="halvings; 1 is R2 .5, 0 is R2 0", code="WT100",
                     reads="How often the squared error is halved against the mean of other nets, each net predicted "
                     "by a ridge regression on all others; what nets of one seed add to it (jackknife).")
              for key, words in PREDICTORS.items()),
        )  # fmt: skip

    def rules(self) -> tuple[Rule, ...]:
        """Of each property, against AdamW of the same seeds; of predictors, over all nets."""
        names = [PROPERTIES[one].name for one in self.settings.named]
        changes = {BITS: "4 bits", TUNING: "fine-tuning"}
        changes |= {SHIFT: "input shift"} if self.settings.on != "text" else {}
        return (
            *(
                Rule(
                    code="WT103" if key == matched(BITS) else "WT100", title=f"{name}: {what}", metric=key,
                    cohorts=(name, PLAIN), statistic="paired", direction="more", margin=margin,
                    supports=f"With {name} there is {what} than with plain AdamW, by more than {margin:g}.",
                    refutes=f"With {name} there is not {what} than with plain AdamW, by {margin:g} or more.",
                    otherwise="Not decided.",
                )
                for name in names
                for key, (what, margin) in QUESTIONS.items()
            ),
            *(
                Rule(
                    code="WT101", title=f"A larger half dose goes with more kept under {words}", metric=HALF,
                    with_metric=kept(key), cohorts=(*names, PLAIN), statistic="association", direction="more",
                    margin=RANK, beyond=(SCORE,), within=True,
                    supports=f"Among nets trained alike, at equal score, those that bear more noise keep more under "
                    f"{words}: rank correlation above {RANK:g}.",
                    refutes=f"Among nets trained alike, at equal score, noise does not tell which keep more under "
                    f"{words}: rank correlation below {RANK:g}.",
                    otherwise="Not decided.",
                )
                for key, words in changes.items()
            ),
            *(
                Rule(
                    code="WT100", title=f"What is kept but under noise is predicted by {words} (R2 .5: 1 halving)",
                    metric=by(key), cohorts=(PLAIN,), statistic="mean", direction="more",
                    margin=-math.log2(1.0 - WORKS),
                    supports=f"What is kept but under noise is predicted by {words}: R2 above {WORKS:g}.",
                    refutes=f"What is kept but under noise is not predicted by {words}: R2 below {WORKS:g}.",
                    otherwise="Not decided.",
                )
                for key, words in PREDICTORS.items()
            ),
        )  # fmt: skip

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """The same doses and draws for every net."""
        asked = [trial for rows in self._changes(case.plan, member).values() for row in rows for trial in row]
        return [*asked, *self._readings(case.plan, member)]

    def _changes(self, plan: Plan, member: SubjectRecord) -> dict[str, list[list[Trial]]]:
        """Trials ``[dose][draw]`` of each family, and of the ladders from which cheap numbers are read."""

        def drawn(kind: str, doses: Sequence[float], draws: int, **how: Scalar) -> list[list[Trial]]:
            return [[plan.trial(member, kind, settings=how, dose=dose, seed=seed) for seed in range(draws)]
                    for dose in doses]  # fmt: skip

        made = {
            key: [row for one in map(scheme, names)
                  for row in drawn(one.perturbation, [one.dose], _FLIPPED if one.random else 1, **one.settings)]
            for key, names in _SCHEMES.items()
        }  # fmt: skip
        return {
            **made, TUNING: drawn("fine-tune", _STEPS, 2, data="targeted", group=_GROUP, labels="wrong"),
            NOISE: drawn("relative", _DOSES, _DRAWS), HALF: drawn("relative", _LADDER, _DRAWS),
            FUNCTION: drawn("function", _LADDER, _DRAWS), CURVATURE: drawn("relative", (_SLIGHT,), _FLIPPED),
        }  # fmt: skip

    def _readings(self, plan: Plan, member: SubjectRecord) -> list[Trial]:
        tails, side = plan.reading(member, WEIGHT_TAILS.name, {}), {"digits": "8x8", "strokes": f"{SIDE}x{SIDE}"}
        if self.settings.on == "text":
            return [tails]
        return [tails, plan.reading(member, INPUT_SHIFT.name, {"shift_draws": 2, "image": side[self.settings.on]})]

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``: of one net, without what is known of all together."""
        plan, chance, clean = case.plan, case.chance, case.clean(member)
        changes, above = self._changes(plan, member), float(clean.mean()) - chance
        if above <= 0.0:
            raise NoAnswer("not_applicable", "It scores no better than chance.")
        share = {
            key: float(np.mean([[_kept(case, trial, clean, tuned=key == TUNING) for trial in row] for row in rows]))
            for key, rows in changes.items()
            if key in FAMILIES
        }  # fmt: skip
        survival, whole = float(np.mean([*share.values()])), above / (1.0 - chance)
        rest = float(np.mean([value for key, value in share.items() if key != NOISE]))
        tails, *shifted = self._readings(plan, member)
        if shifted:
            share[SHIFT] = (float(case.reading(shifted[0])["score"].mean()) - chance) / above
        plain, slight = (case.measured(trials, "nll") for trials in ([plan.clean(member)], changes[CURVATURE][0]))
        if plain is None or slight is None:
            raise NoAnswer("not_applicable", "Its loss was not recorded.")
        rise = float(slight.mean() - plain.mean())
        found = {
            SCORE: float(clean.mean()), LOSS: float(plain.mean()), kept(SURVIVAL): survival, kept(REST): rest,
            AREA: max(whole * whole * survival, 0.0), KURTOSIS: float(case.reading(tails)["kurtosis"]),
            **{kept(key): value for key, value in share.items()},
        }  # fmt: skip
        doses = np.array(_LADDER)
        half, function = (
            half_dose(Response(values=case.table(changes[key]), clean=clean, doses=doses, chance=chance)).value
            for key in (HALF, FUNCTION)
        )
        width = case.norm(changes[BITS][0])
        if half is not None and width is not None:
            found |= {HALF: half, GRID: math.log(width / half)}
        found |= {} if function is None else {FUNCTION: math.log(function)}
        found |= {} if rise <= 0.0 else {CURVATURE: math.log(2.0 * rise / _SLIGHT**2)}
        return {key: Single(value) for key, value in found.items()}

    def table(self, case: Case) -> MemberTable:
        """See ``Study.table``: with what is kept at equal score, and how well it is predicted."""
        plain = super().table(case)
        numbers = {name: dict(row) for name, row in plain.numbers.items()}
        added = {matched(key): equal_score(plain, kept(key)) for key in (*FAMILIES, SURVIVAL)}
        added |= {by(key): predicted(plain, key) for key in PREDICTORS}
        for key, values in added.items():
            for name, value in values.items():
                numbers[name][key] = Single(value)
        return replace(plain, numbers=numbers)

    def sections(self, case: Case, table: MemberTable) -> list[Section]:
        """Ranks that hold together, and differences from AdamW with their intervals."""
        found = tables(table)
        return [Section(title="Properties", blocks=found)] if found else []

    def said(self, case: Case, table: MemberTable, findings: Sequence[Finding]) -> StudyAnswer:
        """See ``Study.said``."""
        about = {"digits": "handwritten digits", "strokes": "digits drawn here", "text": "characters of sentences"}
        said: list[str] = []
        for key, words in PREDICTORS.items():
            values = table.values(PLAIN, by(key))
            if len(values) >= 2:
                halved = over_nets(values, name="R2", scale=NumberScale("halvings"), level=LEVEL)
                low, high = ("open" if at is None else f"{held_out.r2_of(at):.2f}" for at in (halved.low, halved.high))
                said.append(f"{words} {held_out.r2_of(halved.value or 0.0):.2f} [{low}, {high}]")
        r2 = f"What is kept but under noise, held-out R2 from one number (95 %): {'; '.join(said)}."
        return StudyAnswer(
            headline=answer(self.rules(), findings), notes=(r2,) if said else (), caveats=self.caveats,
            about=f"Nets trained on {about[self.settings.on]}, alike but for one property; paired by seed.",
        )  # fmt: skip


def _kept(case: Case, trial: Trial, clean: Values, *, tuned: bool) -> float:
    """Share of the score above chance that is kept; of fine-tuning on examples that are neither taught nor trained on.

    Training that diverged keeps nothing.
    """
    values = case.values(trial)
    on = np.ones(len(clean), dtype=bool)
    trained, group = (case.measured([trial], name) for name in ("trained", "group"))
    if tuned and trained is not None and group is not None:
        on = (trained[0] == 0.0) & (group[0] != float(_GROUP))
    return float(values[on].mean() - case.chance) / float(clean[on].mean() - case.chance)


def whole(table: MemberTable, *keys: str) -> tuple[list[tuple[str, ...]], FloatArray]:
    """Seeds all of whose nets have these numbers: names ``[seed][cohort]``, and numbers ``[seed, cohort, key]``."""
    rows = [
        row for row in zip(*(one.members for one in table.cohorts), strict=True)
        if all(key in table.numbers.get(name, {}) for name in row for key in keys)
    ]  # fmt: skip
    values = [[[table.numbers[name][key].value for key in keys] for name in row] for row in rows]
    return rows, np.array(values, dtype=np.float64).reshape(len(rows), len(table.cohorts), len(keys))


def equal_score(table: MemberTable, key: str) -> dict[str, float]:
    """A number at the mean clean score of plain AdamW, by member: what the score explains within cohorts is removed.

    Source: Cochran (1957), analysis of covariance with one slope.
    """
    rows, values = whole(table, SCORE, key)
    if not rows:
        return {}
    apart, level = values - values.mean(0), values[:, -1, 0].mean()  # plain AdamW is the last cohort
    below = float(np.square(apart[:, :, 0]).sum())
    slope = float((apart[:, :, 0] * apart[:, :, 1]).sum()) / below if below > 0.0 else 0.0
    found = values[:, :, 1] - slope * (values[:, :, 0] - level)
    return dict(zip((name for row in rows for name in row), found.ravel().tolist(), strict=True))


def predicted(table: MemberTable, key: str) -> dict[str, float]:
    """What nets of each seed add to how well a number predicts what is kept, by the member of plain AdamW.

    Nets of one seed start alike, so their mean is one observation.
    """
    rows, values = whole(table, key, kept(REST))
    try:
        halved = held_out.halvings(values[:, :, 0].reshape(-1, 1), values[:, :, 1].ravel())
    except DataError:  # few nets, or all alike
        return {}
    means = halved.reshape(len(rows), -1).mean(1)
    return {row[-1]: round(float(mean), DIGITS) for row, mean in zip(rows, means, strict=True)}


def answer(planned: Sequence[Rule], findings: Sequence[Finding]) -> str:
    """Of each question, for whom it was shown, excluded, or not decided."""
    status = {one.title: one.status for one in findings}
    sorts: dict[str, dict[str, list[str]]] = {}
    for rule in planned:
        word = {"found": "shown", "excluded": "excluded"}.get(status.get(rule.title, ""), "not decided")
        if rule.metric in QUESTIONS:
            what = f"Against plain AdamW, {QUESTIONS[rule.metric][0]}, by more than {rule.margin:g}"
            name = rule.cohorts[0]
        elif rule.metric == HALF:
            what = f"Trained alike, who bears more noise keeps more (rank correlation above {RANK:g})"
            name = rule.title.rpartition(" under ")[2]
        else:
            what = f"What is kept but under noise is predicted (R2 above {WORKS:g})"
            name = PREDICTORS[rule.metric.removeprefix(by(""))]
        sorts.setdefault(what, {"shown": [], "excluded": [], "not decided": []})[word].append(name)
    return " ".join(
        f"{what}: {'; '.join(f'{word} for {listed(names)}' for word, names in by_word.items() if names)}."
        for what, by_word in sorts.items()
    )


def tables(table: MemberTable) -> tuple[Table, ...]:
    """Ranks of all cohorts, 1 the best; and every property less plain AdamW, pair by pair.

    Intervals of ranks hold for all cohorts of a column together.
    """
    keys = {
        SCORE: "score", AREA: "area", matched(SURVIVAL): "all five",
        **{matched(key): words for key, words in FAMILIES.items()},
    }  # fmt: skip
    rows, values = whole(table, *keys)
    if len(rows) < _FEWEST:
        return ()
    columns = [rank_intervals(column) for column in values[:, :, 1:].transpose(2, 1, 0)]
    ranks = [
        (one.name, *(f"{ranked[at].value:.0f} [{ranked[at].low:.0f}, {ranked[at].high:.0f}]" for ranked in columns))
        for at, one in enumerate(table.cohorts)
    ]
    scale, less = NumberScale(""), values[:, :-1] - values[:, -1:]
    differences = [
        (one.name, *(over_nets(own[:, at].tolist(), name=key, scale=scale, level=LEVEL) for at, key in enumerate(keys)))
        for one, own in zip(table.cohorts, less.swapaxes(0, 1), strict=False)
    ]
    return (
        Table(
            heads=("rank, 1 the best", *[*keys.values()][1:]), rows=tuple(ranks), most=len(ranks),
            title=f"Ranks over {len(rows)} seeds, at equal score but for the area; each column's intervals hold "
            "together",
        ),
        Table(
            heads=("less AdamW", *keys.values()), rows=tuple(differences), most=len(ranks) - 1,
            title="Mean difference from AdamW of the same seeds, 95 % each; what is kept is at equal score",
        ),
    )  # fmt: skip
