"""Rules over tables whose truth is known: decided right, undecided where too few members leave it open, never wrong."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from wheeltap.audits.settle import settle
from wheeltap.core.records import Finding
from wheeltap.core.study import Cohort, Metric, Rule, Statistic
from wheeltap.stats.members import Single
from wheeltap.studies import rules
from wheeltap.studies.table import MemberTable

ALPHA = 0.05
RUNS = 25


def table(**cohorts: list[float]) -> MemberTable:
    """A table of one metric, ``x``."""
    names = {cohort: tuple(f"{cohort} {at}" for at in range(len(values))) for cohort, values in cohorts.items()}
    numbers = {
        name: {"x": Single(value)}
        for cohort, values in cohorts.items()
        for name, value in zip(names[cohort], values, strict=True)
    }
    made = tuple(Cohort(name=cohort, members=members) for cohort, members in names.items())
    return MemberTable(cohorts=made, metrics=(Metric(key="x", title="X", unit="points"),), numbers=numbers, lost={})


def rule(statistic: Statistic, *cohorts: str, margin: float, **more: object) -> Rule:
    """A rule about ``x``."""
    return Rule(
        code="WTX09", title=f"{statistic} of x", metric="x", cohorts=cohorts, statistic=statistic, margin=margin, **more
    )  # pyright: ignore[reportArgumentType]


def judged(made: MemberTable, *planned: Rule) -> list[Finding]:
    """The settled findings."""
    drafts = [rules.draft(one, made, among=len(planned), alpha=ALPHA) for one in planned]
    return settle(drafts, alpha=ALPHA)


def normal(rng: np.random.Generator, mean: float, count: int) -> list[float]:
    return [float(value) for value in rng.normal(mean, 1.0, count)]


@pytest.mark.parametrize(
    ("effect", "margin", "count", "right"),
    [
        (6.0, 2.0, 60, "found"),
        (0.0, 2.0, 60, "excluded"),
        (6.0, 2.0, 8, "inconclusive"),
        (0.25, 0.5, 3, "inconclusive"),
    ],
)
def test_a_planted_truth_is_decided_right(effect: float, margin: float, count: int, right: str) -> None:
    # In standard deviations of a member: far beyond the margin; none at all; and far beyond with eight members, or half
    # the margin with three, which are too few to show that one in ten fails.
    planned = rule("difference", "a", "b", margin=margin)
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
        ("one_of", lambda rng, n: (normal(rng, 0.0, 1), normal(rng, 0.0, n))),
    ],
)
def test_several_rules_together_raise_no_false_alarm(
    statistic: Statistic, truth: Callable[[np.random.Generator, int], tuple[list[float], list[float]]]
) -> None:
    wrong, runs, rng, planned = 0, 60, np.random.default_rng(5), rule(statistic, "a", "b", margin=0.0)
    for _ in range(runs):
        samples = [truth(rng, 5) for _ in range(4)]
        drafts = [rules.draft(planned, table(a=a, b=b), among=4, alpha=ALPHA) for a, b in samples]
        wrong += any(one.status == "found" for one in settle(drafts, alpha=ALPHA))
    # Binomial, 60 runs at .05: more than 8 happens in 1 of 300; each rule by itself would err in 11.
    assert wrong <= 8


def test_directions_are_kept_apart_and_one_net_is_compared_with_its_like() -> None:
    rng = np.random.default_rng(0)
    made = table(a=normal(rng, -9.0, 12), b=normal(rng, 0.0, 12))
    for way, status in (("less", "found"), ("more", "excluded")):
        assert judged(made, rule("difference", "a", "b", margin=1.0, direction=way))[0].status == status
    like = normal(np.random.default_rng(3), 0.0, 8)
    [finding] = judged(table(own=[12.0], like=like), rule("one_of", "own", "like", margin=1.0))
    assert finding.status == "found" and finding.estimates[0].n == 8
    assert [one.n for one in finding.estimates[1:]] == [1, 8]


def test_members_that_were_not_made_are_in_no_number_and_equal_numbers_prove_nothing() -> None:
    made = table(a=[1.0, 2.0, 3.0], b=[1.0, 2.0, 3.5])
    there = {name: held for name, held in made.numbers.items() if name != "a 1"}
    short = replace(made, numbers=there, lost={"a 1": "It diverged."})
    [finding] = judged(short, rule("paired", "a", "b", margin=1.0))
    assert finding.estimates[0].n == 2
    control = rules.left_out(short, [])[1]
    assert control.status == "skipped"
    empty = replace(made, numbers={}, lost=dict.fromkeys(made.numbers, "Lost."))
    [finding] = judged(empty, rule("difference", "a", "b", margin=1.0))
    assert finding.status == "not_applicable"
    [finding] = judged(table(a=[1.0] * 4, b=[1.0] * 4), rule("difference", "a", "b", margin=1.0))
    assert finding.status == "inconclusive"


def test_a_planted_net_among_its_like_fails_the_null_control() -> None:
    like = normal(np.random.default_rng(0), 0.0, 24)
    # With a long tail, which numbers of nets may have, none of 24 nets would stand out by 7 points more; halves would.
    for statistic, expected in (("one_of", ("skipped", "failed")), ("difference", ("passed", "skipped"))):
        planned = rule(statistic, "own", "like", margin=7.0)
        made = [table(own=[0.0], like=values) for values in (like, [*like, 60.0])]
        assert tuple(rules.left_out(each, [planned])[0].status for each in made) == expected


@pytest.mark.release
def test_the_null_control_of_two_cohorts_rarely_fails_whatever_the_law() -> None:
    planned, failed, rng = rule("difference", "a", "b", margin=0.05), 0, np.random.default_rng(1)
    for _ in range(200):
        some = [float(value) for value in rng.lognormal(0.0, 1.0, 20)]
        failed += rules.left_out(table(a=some, b=some), [planned])[0].status == "failed"
    assert failed == 0


def scored(rng: np.random.Generator, shift: float, *, nets: int = 16, log: bool = False) -> MemberTable:
    """Copies of nets, flawed and sound, whose second score is higher by ``shift`` in those that are flawed."""
    (base, other), numbers = 20.0 * rng.normal(size=(2, nets)), dict[str, dict[str, Single]]()
    for cohort, own in (("flawed", shift), ("sound", 0.0)):
        for at in range(nets):
            hidden = float(base[at] + own + rng.normal())
            numbers[f"{cohort} {at}"] = {
                "cheap": Single(float(other[at] + rng.normal())), "x": Single(np.exp(hidden / 10) if log else hidden)
            }  # fmt: skip
    metrics = (Metric(key="x", title="Weight noise", unit="", log=log), Metric(key="cheap", title="Outputs", unit=""))
    cohorts = tuple(Cohort(name=c, members=tuple(f"{c} {at}" for at in range(nets))) for c in ("flawed", "sound"))
    return MemberTable(cohorts=cohorts, metrics=metrics, numbers=numbers, lost={})


ADDED = rule("added", "flawed", "sound", margin=0.02, direction="more", beyond=("cheap",), within=True,
             refutes="Adds nothing: less than .02 AUC.")  # fmt: skip


def test_what_a_score_adds_is_found_between_copies_of_a_net_and_not_across_nets() -> None:
    made = scored(np.random.default_rng(0), 9.0)
    [finding] = judged(made, ADDED)
    assert finding.status == "found" and finding.estimates[0].n == 16
    [across] = judged(made, msgspec.structs.replace(ADDED, within=False))
    assert across.status == "inconclusive" and across.estimates[0].n == 32


def test_pairs_are_kept_together_and_numbers_without_a_logarithm_are_an_error() -> None:
    made = scored(np.random.default_rng(2), 9.0, nets=26)
    numbers = {name: held for name, held in made.numbers.items() if name not in ("flawed 3", "sound 5")}
    [finding] = judged(replace(made, numbers=numbers), ADDED)
    assert finding.status == "found" and finding.estimates[0].n == 24
    made = scored(np.random.default_rng(2), 9.0, log=True)
    numbers = {**made.numbers, "sound 2": {**made.numbers["sound 2"], "x": Single(0.0)}}
    [finding] = judged(replace(made, numbers=numbers), ADDED)
    assert finding.status == "error"


def test_a_mean_over_members_is_held_against_nothing() -> None:
    steps = 8 * (-0.005, 0.0, 0.005, 0.002, -0.002)
    for mean, right in ((0.10, "found"), (0.0, "excluded"), (0.02, "inconclusive")):
        [finding] = judged(table(a=[mean + step for step in steps]), rule("mean", "a", margin=0.02, direction="more"))
        assert finding.status == right
        # Five members do not show that one in ten fails: the row says how many would.
        [few] = judged(table(a=[mean + step for step in steps[:5]]), rule("mean", "a", margin=0.02, direction="more"))
        assert few.status == "inconclusive" and ("About 36 members would decide." in few.because)
