"""Rules over tables whose truth is known: decided right, undecided where too few members leave it open, never wrong."""

from collections.abc import Callable

import numpy as np
import pytest

from wheeltap.audits.settle import settle
from wheeltap.core.records import Finding
from wheeltap.core.study import Cohort, Metric, Rule, Statistic
from wheeltap.stats.members import Single
from wheeltap.studies import rules
from wheeltap.studies.table import Table

ALPHA = 0.05
RUNS = 40


def table(**cohorts: list[float]) -> Table:
    """A table of one metric, ``x``."""
    names = {cohort: tuple(f"{cohort} {at}" for at in range(len(values))) for cohort, values in cohorts.items()}
    numbers = {
        name: {"x": Single(value)}
        for cohort, values in cohorts.items()
        for name, value in zip(names[cohort], values, strict=True)
    }
    made = tuple(Cohort(name=cohort, members=members) for cohort, members in names.items())
    return Table(cohorts=made, metrics=(Metric(key="x", title="X", unit="points"),), numbers=numbers, lost={})


def rule(statistic: Statistic, *cohorts: str, margin: float, **more: object) -> Rule:
    """A rule about ``x``."""
    return Rule(
        code="WTX09", title=f"{statistic} of x", metric="x", cohorts=cohorts, statistic=statistic, margin=margin, **more
    )  # pyright: ignore[reportArgumentType]


def judged(made: Table, *planned: Rule) -> list[Finding]:
    """The settled findings."""
    drafts = [rules.draft(one, made, among=len(planned), alpha=ALPHA) for one in planned]
    return settle(drafts, alpha=ALPHA)


def normal(rng: np.random.Generator, mean: float, count: int) -> list[float]:
    return [float(value) for value in rng.normal(mean, 1.0, count)]


SPREAD = "difference", "paired"


@pytest.mark.parametrize("statistic", SPREAD)
@pytest.mark.parametrize(
    ("effect", "margin", "count", "right"),
    [(6.0, 2.0, 8, "found"), (0.0, 2.0, 24, "excluded"), (0.25, 0.5, 3, "inconclusive")],
)
def test_a_planted_truth_is_decided_right(
    statistic: Statistic, effect: float, margin: float, count: int, right: str
) -> None:
    # In standard deviations of a member: far beyond the margin; none at all; and half the margin with three members,
    # which is too few to say anything.
    planned = rule(statistic, "a", "b", margin=margin)
    decided = 0
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        [finding] = judged(table(a=normal(rng, effect, count), b=normal(rng, 0.0, count)), planned)
        decided += finding.status == right
    assert decided >= 0.95 * RUNS


@pytest.mark.parametrize(
    ("statistic", "truth"),
    [
        ("difference", lambda rng, n: (normal(rng, 0.0, n), normal(rng, 0.0, n))),
        ("paired", lambda rng, n: (normal(rng, 0.0, n), normal(rng, 0.0, n))),
        ("auc", lambda rng, n: (normal(rng, 0.0, n), normal(rng, 0.0, n))),
        ("one_of", lambda rng, n: (normal(rng, 0.0, 1), normal(rng, 0.0, n))),
        ("ratio", lambda rng, n: tuple([float(v) for v in rng.lognormal(0.0, 0.4, n)] for _ in range(2))),
    ],
)
def test_several_rules_together_raise_no_false_alarm(
    statistic: Statistic, truth: Callable[[np.random.Generator, int], tuple[list[float], list[float]]]
) -> None:
    wrong, runs, rng = 0, 300, np.random.default_rng(5)
    for _ in range(runs):
        findings: list[Finding] = []
        made: list[tuple[Table, Rule]] = []
        for _ in range(4):
            a, b = truth(rng, 5)
            made.append((table(a=a, b=b), rule(statistic, "a", "b", margin=0.0)))
        drafts = [rules.draft(one, each, among=4, alpha=ALPHA) for each, one in made]
        findings = settle(drafts, alpha=ALPHA)
        wrong += any(one.status == "found" for one in findings)
    # Binomial, 300 runs at .05: more than 27 happens once in 1,000.
    assert wrong <= 27


def test_an_effect_on_the_margin_is_rarely_excluded() -> None:
    planned, wrong, runs, rng = rule("difference", "a", "b", margin=1.0), 0, 400, np.random.default_rng(6)
    for _ in range(runs):
        [finding] = judged(table(a=normal(rng, 1.0, 6), b=normal(rng, 0.0, 6)), planned)
        wrong += finding.status == "excluded"
    assert wrong <= 34


def test_directions_are_kept_apart() -> None:
    rng = np.random.default_rng(0)
    made = table(a=normal(rng, -9.0, 6), b=normal(rng, 0.0, 6))
    found = [
        judged(made, rule("difference", "a", "b", margin=1.0, direction=way))[0].status for way in ("less", "more")
    ]
    assert found == ["found", "excluded"]


def test_one_net_is_compared_with_its_like() -> None:
    rng = np.random.default_rng(3)
    [finding] = judged(table(own=[12.0], like=normal(rng, 0.0, 8)), rule("one_of", "own", "like", margin=1.0))
    assert finding.status == "found" and finding.estimates[0].n == 8
    assert [one.n for one in finding.estimates[1:]] == [1, 8]


def test_members_that_were_not_made_are_in_no_number() -> None:
    made = table(a=[1.0, 2.0, 3.0], b=[1.0, 2.0, 3.5])
    short = Table(
        cohorts=made.cohorts, metrics=made.metrics,
        numbers={name: held for name, held in made.numbers.items() if name != "a 1"}, lost={"a 1": "It diverged."},
    )  # fmt: skip
    [finding] = judged(short, rule("paired", "a", "b", margin=1.0))
    assert finding.estimates[0].n == 2
    control = rules.left_out(short, [])[1]
    assert control.status == "skipped" and "It diverged." in control.because


def test_a_rule_without_numbers_is_not_answered() -> None:
    made = table(a=[1.0, 2.0], b=[3.0, 4.0])
    empty = Table(cohorts=made.cohorts, metrics=made.metrics, numbers={}, lost=dict.fromkeys(made.numbers, "Lost."))
    [finding] = judged(empty, rule("difference", "a", "b", margin=1.0))
    assert finding.status == "not_applicable"
    assert "No member of a has this number" in finding.because


def test_equal_numbers_prove_nothing() -> None:
    [finding] = judged(table(a=[1.0] * 4, b=[1.0] * 4), rule("difference", "a", "b", margin=1.0))
    assert finding.status == "inconclusive"


def test_a_planted_net_among_its_like_fails_the_null_control() -> None:
    rng = np.random.default_rng(0)
    planned = rule("one_of", "own", "like", margin=7.0)
    like = normal(rng, 0.0, 24)
    statuses = [rules.left_out(table(own=[0.0], like=some), [planned])[0].status for some in (like, [*like, 60.0])]
    assert statuses == ["passed", "failed"]


def test_the_null_control_of_two_cohorts_rarely_fails_whatever_the_law() -> None:
    planned, failed, rng = rule("difference", "a", "b", margin=0.05), 0, np.random.default_rng(1)
    for _ in range(200):
        some = [float(value) for value in rng.lognormal(0.0, 1.0, 20)]
        failed += rules.left_out(table(a=some, b=some), [planned])[0].status == "failed"
    assert failed == 0


def test_the_headline_says_what_was_decided() -> None:
    rng = np.random.default_rng(0)
    made = table(a=normal(rng, 9.0, 6), b=normal(rng, 0.0, 6))
    planned = [
        rule("difference", "a", "b", margin=1.0, direction="more", supports="More."),
        rule("difference", "b", "a", margin=1.0, direction="more", refutes="Not more."),
    ]
    assert rules.headline(planned, judged(made, *planned)) == "More. Not more."
