"""Audits of dictionaries on readings whose truth was drawn: what is better than nulls, what is not, what is void."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wheeltap.audits.base import NoAnswer, create
from wheeltap.audits.case import Case
from wheeltap.audits.settle import judge
from wheeltap.core.records import Cost, Outcome, SubjectRecord, TaskRecord, Trial
from wheeltap.core.report import ReportRecord
from wheeltap.plans.plan import AuditSpec, Plan
from wheeltap.suites.dictionaries.audits.claims import AUDITS
from wheeltap.suites.dictionaries.audits.common import no_better
from wheeltap.suites.dictionaries.audits.scores import edited, f1_of, reconstructed
from wheeltap.suites.dictionaries.specs import DISTURBANCES, KINDS, PARTS

EXAMPLES, GROUPS, PAIRS, VALUES, LIVE = 320, 16, 160, 5, 40

KIND = ["own", "reseed", "reseed", *["frozen decoder"] * 5, *["random"] * 8, "mean codes"]

NUMBERS = np.array([KINDS.index(kind) for kind in KIND])


@dataclasses.dataclass(frozen=True)
class World:
    """What readings are drawn from: of each kind how good it is, and how far dictionaries of a kind lie apart."""

    good: dict[str, float]
    spread: float = 0.01
    seed: int = 0
    kinds: tuple[str, ...] = tuple(KIND)
    rewritten: float = 0.0
    groups: int = GROUPS
    stretch: float = 1.0  # of what the dictionary under test makes

    def level(self, entry: int) -> float:
        rng = np.random.default_rng([self.seed, entry, 1])
        level = float(np.clip(self.good[self.kinds[entry]] + self.spread * rng.standard_normal(), 0.02, 0.98))
        return level if entry else self.stretch * level

    def read(self, trial: Trial) -> dict[str, NDArray[Any]]:
        entry = int(trial.settings.get("entry", 0))
        rng, shared = np.random.default_rng([self.seed, entry, 2]), np.random.default_rng(self.seed)
        found = {"kinds": np.array([KINDS.index(kind) for kind in self.kinds])}
        return found | getattr(self, trial.perturbation.replace("dictionary-", ""))(self.level(entry), rng, shared)

    def reconstruction(self, good: float, rng: Any, shared: Any) -> dict[str, NDArray[Any]]:
        clean = 4.0 + shared.standard_normal(EXAMPLES)
        mean = shared.standard_normal(EXAMPLES)
        noise = 0.3 * rng.standard_normal((2, EXAMPLES))
        kept, left = mean + good * (clean - mean) + noise[0], clean - good * (clean - mean) + noise[1]
        return {"margin": np.stack([clean, mean, kept, left])}

    def control(self, good: float, rng: Any, shared: Any) -> dict[str, NDArray[Any]]:
        unedited, rows = shared.random((2, PAIRS)) < 0.2, shared.integers(0, EXAMPLES, (2, PAIRS))
        found = dict[str, NDArray[Any]]()
        for at, name in enumerate(("io", "s")):
            agree = np.where(unedited[at], True, rng.random(PAIRS) < good)
            found |= {f"{name}|status": np.array(0), f"{name}|rows": rows[at], f"{name}|unedited": unedited[at],
                      f"{name}|agree": agree, f"{name}|magnitude": np.full(agree.shape, 1.0 - good)}  # fmt: skip
        return found

    def features(self, good: float, rng: Any, shared: Any) -> dict[str, NDArray[Any]]:
        half, labels = np.arange(0, EXAMPLES, 2), shared.integers(0, VALUES, EXAMPLES // 2)
        holds = labels[None] == np.arange(VALUES)[:, None]
        fires = np.where(holds, rng.random(holds.shape) < good, rng.random(holds.shape) < (1.0 - good) / 4.0)
        margin = np.stack([np.full(EXAMPLES, 4.0 if part == "clean" else 1.0) for part in PARTS])
        found = {"rows": half, "margin": margin, "interpretable": np.array(3), "features": np.arange(LIVE)}
        for name in ("io", "s"):
            found |= {f"{name}|status": np.array(0), f"{name}|labels": labels, f"{name}|fires": fires,
                      f"{name}|needed": np.array([1, 2, 0, 3, 1]), f"{name}|retained": np.array(0.7),
                      f"{name}|size": np.array(0.2)}  # fmt: skip
        return found

    def disturbed(self, good: float, rng: Any, shared: Any) -> dict[str, NDArray[Any]]:
        count = len(DISTURBANCES)
        lost = [0.0, 0.3, 0.0, 0.0, 0.0, 0.9, self.rewritten]
        agree = np.stack([shared.random(PAIRS) >= share for share in lost])
        three = np.ones((3, 1))  # the dictionary, and two nulls
        return {
            "gauge": np.array(1), "disturbances": np.arange(count), "correlation": three * np.linspace(1.0, 0.0, count),
            "io|status": np.array(0), "io|rows": shared.integers(0, EXAMPLES, PAIRS),
            "io|agree": agree * three[..., None],
            "io|unedited": np.zeros((count, PAIRS), bool),
        }  # fmt: skip

    def view(self, good: float, rng: Any, shared: Any) -> dict[str, NDArray[Any]]:
        return {
            "features": np.array([7, 3]), "frequency": np.array([0.2, 0.1]), "lost": np.array([1.0, 0.5]),
            "changed": np.array([0.5, 0.0]), "examples": np.array([[0], [1]]), "codes": np.array([[2.0], [1.0]]),
            "texts": np.frombuffer(b'[["Then Tom and Kate"],["Later Anna"]]', dtype=np.uint8),
        }  # fmt: skip

    def outcome(self, trial: Trial) -> Outcome:
        if trial.kind == "clean":
            values: dict[str, NDArray[Any]] = {
                "accuracy": np.ones(EXAMPLES, np.float32), "chance": np.array(0.1, np.float32),
                "scores": np.random.default_rng(0).standard_normal((EXAMPLES, 3)).astype(np.float32),
                "group": np.arange(EXAMPLES) % self.groups,
            }  # fmt: skip
        else:
            values = self.read(trial)
        return Outcome(key=trial.key, status="done", values=values)


PLAN = Plan(
    command="dictionary check",
    subjects=(SubjectRecord(name="net", fingerprint="f" * 32, parameters=10),),
    task=TaskRecord(name="t", digest="0" * 32, examples=EXAMPLES, measure="accuracy", measures=("accuracy",)),
    audits=tuple(AuditSpec(name, {"entries": ",".join(KIND)}) for name in AUDITS),
)


def planned(*kinds: str) -> Plan:
    import msgspec

    return msgspec.structs.replace(PLAN, audits=tuple(AuditSpec(name, {"entries": ",".join(kinds)}) for name in AUDITS))


def judged(world: World, plan: Plan = PLAN) -> ReportRecord:
    """The report on a world, each trial of it answered when it is asked for."""
    known: dict[str, Outcome] = {}
    audits = [create(spec.name, dict(spec.settings)) for spec in plan.audits]
    for _ in range(3):
        trials = [*plan.baselines(), *(trial for audit in audits for trial in audit.ask(Case(plan, known.get)))]
        known |= {trial.key: world.outcome(trial) for trial in trials}
    return judge(plan, known.get, cost=Cost(forwards=0.0, seconds=0.0, trials=0, reused=0), provenance={})


FOR = ("Dictionary controls the attributes", "Features stand for values", "Dictionary is sufficient")
"""Claims beside nulls."""

GOOD = {"own": 0.95, "reseed": 0.93, "frozen decoder": 0.6, "random": 0.3, "mean codes": 0.95}


def statuses(report: ReportRecord, code: str) -> set[str]:
    return {one.status for one in report.findings if one.code == code}


def test_a_good_dictionary_is_better_than_every_null() -> None:
    report = judged(World(GOOD))
    assert not report.void and report.headline.startswith("BETTER THAN EVERY NULL: the dictionary of net")
    assert statuses(report, "WT402") == {"found"}
    for code in ("WT401", "WT403"):
        assert statuses(report, code) == {"found", "measured"}, code
    assert statuses(report, "WT405") == {"measured"}
    survives = {one.title.rpartition(": ")[2]: one.verdict for one in report.findings if one.code == "WT404"}
    assert survives["weight noise"] == survives["gauge twin"] == "does not survive"
    assert survives["nf4"] == survives["fine-tuning"] == "cannot tell", "16 groups do not exclude a loss of .05"
    passed = {one.name for one in report.controls if one.status == "passed"}
    assert {"WT402 supervised codes control", "WT404 a dictionary rewritten with the net"} <= passed
    assert "WT401 a random dictionary beside random ones" in passed
    assert all(one.status == "passed" or "No power" in one.because for one in report.controls)
    [section] = report.sections
    assert [block.title for block in section.blocks[1:]] == ["The dictionary", "Frozen decoder", "Random"]
    assert section.blocks[1].rows[0][-1].note == "Then Tom and Kate (2.00)"
    # Never a score without its nulls, nor without an interval.
    for one in (
        found for found in report.findings if found.title.startswith("Dictionary is s") or found.code == "WT402"
    ):
        names = [estimate.name for estimate in one.estimates]
        assert {"more than frozen decoder", "more than random"} <= set(names)
        assert all(e.low is not None for e in one.estimates if e.name.startswith("more than"))


@pytest.mark.parametrize("count", [2, pytest.param(40, marks=pytest.mark.release)])
@pytest.mark.parametrize("level", [0.3, 0.6, 0.1])
def test_a_dictionary_that_is_like_a_null_is_no_better(level: float, count: int) -> None:
    """Like random ones, like frozen decoders, worse than both: all are refused, none is called better."""
    for seed in range(count):
        report = judged(World({**GOOD, "own": level, "reseed": level}, seed=seed))
        asked = [one for one in report.findings if one.title in FOR]
        assert len(asked) == 3 and not any(one.status == "found" for one in asked), seed
        if level < 0.6:
            assert no_better(report.findings) and report.headline.startswith("NO BETTER THAN A RANDOM DICTIONARY")
        else:
            assert not report.headline.startswith("BETTER")


def beside(seeds: int, **world: Any) -> ReportRecord:
    """The report on a dictionary beside so many nulls of each kind."""
    kinds = ("own", *["frozen decoder"] * seeds, *["random"] * 3 * seeds)
    return judged(World(kinds=kinds, **world), planned(*kinds))


def test_what_lies_far_below_its_nulls_is_no_better() -> None:
    """Few rows or groups must allow for those that nobody drew; the interval of the lead says enough."""
    dead = {"own": 0.02, "frozen decoder": 0.455, "random": 0.455}
    for seeds, groups in ((2, GROUPS), (5, EXAMPLES)):
        report = beside(seeds, good=dead, groups=groups)
        assert len(no_better(report.findings)) == 3, report.headline


def test_an_undecided_lead_says_how_many_nulls_would_decide() -> None:
    good = {"own": 0.85, "frozen decoder": 0.6, "random": 0.3}
    report = beside(2, good=good)
    (seeds,) = set(re.findall(r"--seeds (\d+)", report.headline))
    opened = [one for one in report.findings if one.title in FOR and one.status == "inconclusive"]
    assert opened and all("nulls of each kind would decide" in one.because for one in opened)
    assert int(seeds) == max(int(re.findall(r"--seeds (\d+)", one.because)[0]) for one in opened) > 2
    assert beside(int(seeds), good=good).headline.startswith("BETTER THAN EVERY NULL")
    hopeless = beside(3, good={**good, "own": 0.64}, spread=0.06)
    assert "Not even 100 nulls" in " ".join(one.because for one in hopeless.findings)


def test_a_lead_over_the_average_null_is_not_one_over_the_next_null() -> None:
    """Nulls that lie far apart: one of them is no better than them, though its mean over examples is surely higher."""
    found = [
        sum(one.status == "found" for one in judged(World({**GOOD, "own": 0.3, "frozen decoder": 0.3}, spread=0.1,
                                                          seed=seed)).findings if one.code in ("WT401", "WT402"))
        for seed in range(4)
    ]  # fmt: skip
    assert sum(found) == 0


def test_without_nulls_nothing_is_claimed_and_controls_that_could_not_fail_are_skipped() -> None:
    report = judged(World(GOOD, kinds=("own",)), planned("own"))
    assert statuses(report, "WT401") == {"skipped"} and "a score alone says nothing" in report.headline
    names = [one for one in report.controls if one.name.startswith("WT4")]
    assert {one.status for one in names if "random" in one.name or "supervised" in one.name} == {"skipped"}


def test_a_failed_control_makes_the_run_void() -> None:
    assert judged(World(GOOD, rewritten=0.9)).void, "a dictionary that is rewritten with the net must lose nothing"


def test_entries_that_are_others_are_no_answer() -> None:
    report = judged(World(GOOD), planned(*KIND[1:]))
    assert statuses(report, "WT401") == {"error"}
    world = World(GOOD)
    known = {trial.key: world.outcome(trial) for trial in PLAN.baselines()}
    for name in AUDITS:
        assert create(name, {}).ask(Case(PLAN, known.get)) == [], "a model without dictionaries is not read"


# ---- scores ---------------------------------------------------------------------------------------------------------


def read_of(which: Callable[[World], Callable[..., dict[str, NDArray[Any]]]], good: float) -> dict[str, NDArray[Any]]:
    return which(World(GOOD))(good, np.random.default_rng(1), np.random.default_rng(2))


def test_rows_of_f1_have_it_as_their_mean_and_its_spread() -> None:
    read = read_of(lambda world: world.features, 0.7)
    rows, slow = f1_of(read), list[float]()
    fires, labels = read["io|fires"], read["io|labels"]

    def f1(which: NDArray[Any]) -> float:
        each = list[float]()
        for value in range(VALUES):
            holds = labels[which] == value
            both = float((fires[value, which] & holds).sum())
            each.append(2.0 * both / float(fires[value, which].sum() + holds.sum()))
        return float(np.mean(each))

    assert rows.mean == pytest.approx(f1(np.arange(len(labels))), abs=1e-12)
    rng = np.random.default_rng(0)
    slow = [f1(rng.integers(0, len(labels), len(labels))) for _ in range(400)]
    assert rows.values.std() / len(labels) ** 0.5 == pytest.approx(np.std(slow), rel=0.15)


def test_rows_of_what_is_kept_have_the_spread_of_a_share() -> None:
    """Of a share the whole is measured too: what keeps the same of every example is known no better than the whole."""
    rng = np.random.default_rng(0)
    whole = rng.lognormal(size=EXAMPLES)
    nothing = np.zeros(EXAMPLES)
    for kept in (np.full(EXAMPLES, 0.5), 0.9 * whole + 0.1 * rng.standard_normal(EXAMPLES)):
        first, second = reconstructed({"margin": np.stack([whole, nothing, kept, whole - kept])})
        assert first.mean == second.mean == pytest.approx(kept.mean() / whole.mean(), abs=1e-6)
        drawn = rng.integers(0, EXAMPLES, (4000, EXAMPLES))
        spread = np.std(kept[drawn].mean(1) / whole[drawn].mean(1))
        assert first.values.std() / EXAMPLES**0.5 == pytest.approx(spread, rel=0.15)


def test_edits_are_scored_where_the_patch_changes_the_answer() -> None:
    read = read_of(lambda world: world.control, 0.5)
    scores = edited(read, least=20)
    by_hand = np.concatenate([read[f"{name}|agree"][~read[f"{name}|unedited"]] for name in ("io", "s")])
    assert scores.mean == pytest.approx(by_hand.mean()) and set(scores.parts) == {"io", "s"}
    with pytest.raises(NoAnswer):
        edited(read, least=PAIRS)


@pytest.mark.parametrize(
    ("own", "stretch", "status"),
    [(0.6, 3.0, "excluded"), (0.6, 1.0, "excluded"), (0.95, 1.08, "found")],
    ids=["like its nulls, too long", "like its nulls", "denoised"],
)
def test_vectors_that_are_too_long_are_not_kept(own: float, stretch: float, status: str) -> None:
    report = judged(World({**GOOD, "own": own}, stretch=stretch))
    [kept] = [one for one in report.findings if one.title == "Dictionary is sufficient"]
    assert kept.status == status
    score = next(one.value for one in kept.estimates if one.name.startswith("Kept by"))
    assert score == pytest.approx(own * stretch, abs=0.05), "the share itself is printed as it is"


def test_a_site_that_answers_do_not_rest_on_has_no_score() -> None:
    read = read_of(lambda world: world.reconstruction, 0.5)
    assert reconstructed(read)[0].mean == pytest.approx(0.5, abs=0.02)
    same = {"margin": np.repeat(read["margin"][:1], 4, axis=0)}
    with pytest.raises(NoAnswer):
        reconstructed(same)
