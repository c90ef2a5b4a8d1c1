"""AUCs against counting pairs, the regression against a general optimiser, intervals against known truths."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from benchmarks.detection.added_value import FEWEST_GROUPS, LEAST, MODELS, AddedValue, Block, Features, added_value, auc
from benchmarks.detection.logistic import RIDGE, fit, held_out
from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate


def counted(scores: np.ndarray, labels: np.ndarray) -> float:
    """The share of pairs in the right order, one by one; ties count half."""
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels == 1] for b in scores[labels == 0]]
    return float(np.mean(pairs))


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_is_the_share_of_pairs_in_the_right_order(items: list[tuple[int, bool]]) -> None:
    scores, labels = (np.array(column, dtype=float) for column in zip(*items, strict=True))
    if len(set(labels)) == 2:
        assert auc(scores, labels) == pytest.approx(counted(scores, labels), abs=1e-12)
        assert auc(-scores, labels) == pytest.approx(1 - counted(scores, labels), abs=1e-12)


def test_the_regression_is_the_maximum_of_the_penalised_likelihood() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(80, 3))
    labels = (features @ [1.5, -1.0, 0.0] + rng.logistic(size=80) > 1.0).astype(float)

    def loss(c: np.ndarray) -> float:
        signed = (2 * labels - 1) * (features @ c[:3] + c[3])
        return float(np.logaddexp(0, -signed).sum() + RIDGE / 2 * np.square(c[:3]).sum())

    oracle = optimize.minimize(loss, np.zeros(4), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12})
    assert np.allclose(fit(features, labels), oracle.x, atol=1e-5)


def test_labels_that_a_score_separates_wholly_have_a_finite_fit() -> None:
    score = np.concatenate([np.linspace(-4, -3, 30), np.linspace(3, 4, 3)])[:, None]
    found = fit(score, (score[:, 0] > 0).astype(float), ridge=1e-3)
    assert np.isfinite(found).all() and 1 < found[0] < 50


def test_no_item_is_scored_by_a_fit_that_saw_its_group() -> None:
    """Labels are random, but within a group they equal the score: only a fit that saw the group could know."""
    groups = np.repeat(np.arange(12), 20)
    labels = np.random.default_rng(1).integers(0, 2, size=240).astype(float)
    own = np.zeros((240, 12))
    own[np.arange(240), groups] = 2 * labels - 1
    # Other groups' features tell nothing of a group's own column, so within a group every score is the same.
    assert all(auc(held_out(own, labels, groups=groups)[groups == g], labels[groups == g]) == 0.5 for g in range(12))


def test_scores_do_not_depend_on_the_units_of_the_features() -> None:
    world = World(output=0.7, input=0.4, weight=0.3)
    features = world.drawn(np.random.default_rng(2))
    scaled = replace(
        features, weight=Block(scores={n: 1e4 * s - 3e5 for n, s in features.weight.scores.items()}, forwards=10)
    )
    assert added_value(scaled).added.value == pytest.approx(added_value(features).added.value, abs=1e-9)


@dataclass(frozen=True)
class World:
    """Independent normal scores of unit variance, each higher by its own shift where the label is 1.

    The best combination has a shift whose square is the sum of theirs, and an AUC of Phi(shift / sqrt 2).

    Attributes:
        output: Shift of the output score; so too ``input`` and ``weight``.
        copied: Whether the weight score is the output score seen through noise, and so adds nothing.
        spread: Standard deviation between groups of the shift of the weight score.
    """

    output: float
    input: float
    weight: float
    copied: bool = False
    spread: float = 0.0
    groups: int = 12
    items: int = 100

    def drawn(self, rng: np.random.Generator) -> Features:
        labels = np.tile([0.0, 0.0, 1.0, 1.0], self.groups * self.items // 4)
        groups = np.repeat(np.arange(self.groups), self.items)
        shift = self.weight + self.spread * rng.normal(size=self.groups)[groups]
        output, given, weight = (s * labels + rng.normal(size=len(labels)) for s in (self.output, self.input, shift))
        if self.copied:
            weight = output + rng.normal(size=len(labels))
        return Features(
            labels=labels,
            groups=groups,
            output=Block(scores={"margin": output}, forwards=1),
            input=Block(scores={"flips": given}, forwards=10),
            weight=Block(scores={"flips": weight}, forwards=10),
        )

    @property
    def gain(self) -> float:
        both = self.output**2 + self.input**2
        whole = both if self.copied else both + self.weight**2
        return float(stats.norm.cdf(math.sqrt(whole / 2)) - stats.norm.cdf(math.sqrt(both / 2)))


def judged(world: World, *, runs: int, seed: int) -> list[AddedValue]:
    rng = np.random.default_rng(seed)
    return [added_value(world.drawn(rng)) for _ in range(runs)]


def covers(estimate: Estimate, truth: float) -> bool:
    assert estimate.low is not None and estimate.high is not None
    return estimate.low <= truth <= estimate.high


def test_every_auc_has_its_closed_form_value() -> None:
    """One large world: 24,000 items."""
    world = World(output=0.8, input=0.5, weight=0.6, items=2000)
    found = added_value(world.drawn(np.random.default_rng(3)))
    shifts = {"output": 0.8, "input": 0.5, "weight": 0.6}
    for estimate in found.single:
        shift = shifts[estimate.name.partition(":")[0]]
        assert estimate.value == pytest.approx(stats.norm.cdf(shift / math.sqrt(2)), abs=0.012)
    for estimate, parts in zip(found.models, MODELS.values(), strict=True):
        shift = math.hypot(*(shifts[part] for part in parts))
        assert estimate.value == pytest.approx(stats.norm.cdf(shift / math.sqrt(2)), abs=0.012)
    assert found.added.value == pytest.approx(world.gain, abs=0.006)
    assert found.found and "no evidence" not in found.verdict


@pytest.mark.parametrize(
    "world",
    [World(output=1.0, input=0.7, weight=0.0), World(output=1.0, input=0.7, weight=0.0, copied=True)],
    ids=["noise", "a copy of the output"],
)
def test_weight_scores_that_add_nothing_are_seldom_credited(world: World) -> None:
    results = judged(world, runs=120, seed=4)
    assert sum(r.found for r in results) <= 1  # the gain must reach .02, which by chance it hardly ever does
    above = np.mean([r.added.low is not None and r.added.low > 0 for r in results])
    assert above <= 0.025 + 3.1 * math.sqrt(0.025 * 0.975 / 120)


def test_the_interval_covers_a_known_gain_and_the_gain_is_found() -> None:
    world = World(output=0.8, input=0.5, weight=0.9, spread=0.3)
    results = judged(world, runs=200, seed=5)
    middle = float(np.mean([r.added.value for r in results]))
    # The closed form is for the mean shift; shifts that differ between groups lower the mean a little.
    assert middle == pytest.approx(world.gain, abs=0.015)
    covered = np.mean([covers(r.added, middle) for r in results])
    slack = 3.1 * math.sqrt(0.95 * 0.05 / 200)
    assert 0.95 - slack <= covered <= 0.95 + slack
    assert np.mean([r.found for r in results]) >= 0.95


def test_the_t_interval_agrees_with_a_bootstrap_of_the_groups() -> None:
    features = World(output=0.8, input=0.5, weight=0.6, spread=0.4, groups=20).drawn(np.random.default_rng(6))
    found = added_value(features).added
    groups = np.asarray(features.groups)
    matrix = {name: block.matrix() for name, block in features.blocks.items()}
    models = [held_out(np.hstack(parts), features.labels, groups=groups) for parts in
              ([matrix["output"], matrix["input"], matrix["weight"]], [matrix["output"], matrix["input"]])]  # fmt: skip
    gains = np.array(
        [np.subtract(*(counted(m[groups == g], features.labels[groups == g]) for m in models)) for g in range(20)]
    )
    assert found.value == pytest.approx(gains.mean(), abs=1e-12)
    drawn = np.random.default_rng(7).integers(0, 20, size=(4000, 20))
    low, high = np.quantile(gains[drawn].mean(1), [0.025, 0.975])
    assert found.high - found.low == pytest.approx(high - low, rel=0.2)


def test_labels_dealt_at_random_within_groups_give_as_large_a_gain_as_seen_in_few_cases() -> None:
    """A permutation test: with the weight scores shuffled within group and label, nothing is left to gain."""
    features = World(output=0.8, input=0.5, weight=0.8, items=60).drawn(np.random.default_rng(8))
    seen = added_value(features).added.value
    rng, key = np.random.default_rng(9), np.asarray(features.groups)
    score = features.weight.scores["flips"]

    def shuffled() -> float:
        order = np.lexsort((rng.random(len(score)), key))
        mixed = np.empty_like(score)
        mixed[np.argsort(key, kind="stable")] = score[order]
        value = added_value(replace(features, weight=Block(scores={"flips": mixed}, forwards=10))).added.value
        assert value is not None
        return value

    assert seen is not None and seen > max(shuffled() for _ in range(40))


def test_groups_that_all_show_the_same_auc_still_have_an_interval() -> None:
    labels = np.tile([0.0, 0.0, 1.0, 1.0], 10)
    groups = np.repeat(np.arange(10), 4)
    flat = Block(scores={"margin": np.zeros(40)}, forwards=1)
    found = added_value(
        Features(labels=labels, groups=groups, output=flat, input=flat, weight=Block(scores={"w": labels}, forwards=1))
    )
    half = float(stats.t.ppf(0.975, 9)) * 0.25 / math.sqrt(10)
    assert found.added.value == 0.5 and found.added.low == pytest.approx(0.5 - half)
    assert found.models[-1].value == 1.0 and found.models[-1].high == 1.0
    assert found.models[-1].low == pytest.approx(1 - half)


def added(value: float, low: float, high: float) -> AddedValue:
    gain = Estimate(name="g", value=value, low=low, high=high, level=0.95, n=10, unit="AUC", method="t")
    return AddedValue(single=(), models=(), added=gain)


def test_the_verdict_needs_both_a_gain_of_two_hundredths_and_an_interval_above_nothing() -> None:
    assert added(LEAST, 0.001, 0.039).found
    assert not added(LEAST - 0.001, 0.015, 0.025).found
    assert not added(0.3, -0.001, 0.6).found
    assert not added(-0.3, -0.4, -0.2).found
    assert added(0.05, 0.01, 0.09).verdict == (
        "weight scores add +0.050 AUC [+0.010, +0.090] to output and input scores (10 groups)"
    )
    assert added(0.005, -0.001, 0.011).verdict == (
        "no evidence of added value: weight scores add +0.005 AUC [-0.001, +0.011] to output and input scores "
        "(10 groups); a gain of 0.023 would be found 4 times in 5"
    )


def plain(**changes: object) -> Features:
    features = World(output=0.5, input=0.5, weight=0.5, items=4).drawn(np.random.default_rng(0))
    return replace(features, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.full(48, 0.5)}, "labels cannot be used"),
        ({"labels": np.zeros(47)}, "differ in number"),
        ({"labels": np.repeat([0.0, 1.0], 24)}, "one label only"),
        ({"weight": Block(scores={"w": np.full(48, np.nan)}, forwards=1)}, "NaN or infinity"),
        ({"weight": Block(scores={"w": np.zeros(48)}, forwards=11)}, "more passes"),
    ],
)
def test_what_cannot_be_judged_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        plain(**changes)


def test_fewer_than_ten_groups_are_not_judged() -> None:
    few = World(output=0.5, input=0.5, weight=0.5, groups=FEWEST_GROUPS - 1).drawn(np.random.default_rng(0))
    with pytest.raises(DataError, match="too few groups"):
        added_value(few)
