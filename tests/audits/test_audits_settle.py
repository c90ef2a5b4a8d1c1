"""Three sides of a verdict: shown to exceed the margin, shown not to, or neither; each side corrected by itself."""

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from wheeltap.audits.claims import CLAIM, LOSS, PAIR, Hypothesis
from wheeltap.audits.settle import covered, settle, voided
from wheeltap.core.records import Estimate, Finding, FindingStatus, TaskRecord
from wheeltap.stats import rare, three_sided
from wheeltap.stats.effect import mean_effect
from wheeltap.stats.evidence import Evidence, NoEvidence
from wheeltap.stats.sample import Sample

MARGIN = 0.02
NORMAL = NormalDist()


class Planted(Evidence):
    """What excludes with a p-value that the test chose; nothing without a margin, as a mean."""

    def __init__(self, p: float | None) -> None:
        self.p = p

    def below(self, margin: float, *, one_sided: bool) -> float | None:
        return self.p if margin > 0.0 else None


def planted(above: float | None, below: float | None, *, value: float = 0.001, **more: Any) -> Hypothesis:
    """A tested effect with these p-values of "at most the margin" and "at least the margin", and a fitting interval."""
    high = None
    if below is not None:
        score = NORMAL.inv_cdf(1.0 - below / 2.0)
        high = 1.0 if score <= 0.0 else value + NORMAL.inv_cdf(0.975) * (MARGIN - abs(value)) / score
    low = None if high is None else 2.0 * value - high
    test = estimate(value, low, high, above)
    filled = {"evidence": Planted(below), "margin": MARGIN, "otherwise": "It may be so.", **more}
    return Hypothesis(told(test, because="It is so."), test=test, **filled)


def told(test: Estimate | None = None, *, status: FindingStatus = "found", because: str = "yes") -> Finding:
    estimates = () if test is None else (test,)
    return Finding(code="WT1", title="t", status=status, subject="s", estimates=estimates, because=because)


def estimate(value: float | None, low: float | None, high: float | None, p: float | None = 0.9) -> Estimate:
    return Estimate(name="e", value=value, low=low, high=high, level=0.95, n=90, unit="u", method="m", p=p)


def claim(test: Estimate, evidence: Evidence, *, margin: float = MARGIN, **more: Any) -> Hypothesis:
    return Hypothesis(told(test), test=test, evidence=evidence, margin=margin, **more)


def statuses(*drafts: Hypothesis, alpha: float = 0.05) -> list[FindingStatus]:
    return [finding.status for finding in settle(drafts, alpha=alpha)]


# ---- one test ------------------------------------------------------------------------------------------------------

SIDES: list[tuple[float | None, float | None, FindingStatus]] = [
    (0.01, 0.9, "found"),
    (0.051, 0.9, "inconclusive"),
    (0.9, 0.01, "excluded"),
    (0.9, 0.051, "inconclusive"),
    (0.9, 0.9, "inconclusive"),
    (0.01, 0.01, "found"),  # no data give both; if some did, the alarm would stand
    (None, 0.01, "excluded"),
    (0.01, None, "found"),
    (None, None, "inconclusive"),
]


def test_each_side_is_decided_by_its_own_p_value() -> None:
    for above, below, status in SIDES:
        [found] = settle([planted(above, below)], alpha=0.05)
        assert found.status == status and found.margin is None  # an audit fills that in


def test_without_a_margin_nothing_is_excluded() -> None:
    assert statuses(planted(0.9, 1e-9, margin=0.0)) == ["inconclusive"]
    [found] = settle([planted(1e-9, 1e-9, margin=0.0)], alpha=0.05)
    assert (found.status, found.power) == ("found", None)


def test_a_one_sided_test_finds_only_losses_and_excludes_any_gain() -> None:
    gain, loss = (planted(1e-9, None, value=value, one_sided=True) for value in (-0.2, 0.2))
    assert statuses(gain, loss) == ["inconclusive", "found"]
    wide = estimate(-0.2, -0.3, -0.1, 1e-9)
    assert statuses(claim(wide, Planted(1e-9), one_sided=True)) == ["excluded"]
    assert statuses(claim(wide, Planted(None), one_sided=False)) == ["found"]


@pytest.mark.parametrize("fallback", ["excluded", "inconclusive"])
def test_where_other_evidence_settles_it_the_interval_does_not(fallback: FindingStatus) -> None:
    for below in (1e-9, 0.9, None):
        [found] = settle([planted(0.9, below, fallback=fallback)], alpha=0.05)
        assert found.status == fallback and found.power is None
    assert statuses(planted(0.01, 1e-9, fallback=fallback)) == ["found"]


def test_what_is_not_tested_stands_as_it_is() -> None:
    for status in ("found", "excluded", "inconclusive", "measured", "not_applicable", "error", "skipped"):
        [found] = settle([Hypothesis(told(status=status))], alpha=0.05)
        assert (found.status, found.because, found.power, found.leaning) == (status, "yes", None, False)


# ---- the family ----------------------------------------------------------------------------------------------------


def test_one_holm_correction_over_all_tests_on_either_side() -> None:
    # By hand: .011 x 4 = .044; then .0124 x 3 = .0372, kept at .044; then .02 x 2 = .04, kept at .044.
    some = (0.011, 0.02, 0.0124, 0.9)
    assert statuses(*(planted(p, 0.9) for p in some)) == ["found", "found", "found", "inconclusive"]
    assert statuses(*(planted(0.9, p) for p in some)) == ["excluded", "excluded", "excluded", "inconclusive"]
    equal = (0.02, 0.02, 0.02, 0.9)
    assert statuses(*(planted(p, 0.9) for p in equal)) == ["inconclusive"] * 4, ".02 x 4 is more than .05"
    assert statuses(*(planted(0.9, p) for p in equal)) == ["inconclusive"] * 4


def test_the_sides_do_not_pay_for_each_other() -> None:
    """Of four tests two can only be found and two only be excluded: .024 x 2 is enough on either side."""
    apart = [planted(0.024, None), planted(0.024, None), planted(None, 0.024), planted(None, 0.024)]
    assert statuses(*apart) == ["found", "found", "excluded", "excluded"]
    assert statuses(*(planted(0.024, 0.5) for _ in range(3))) == ["inconclusive"] * 3
    assert statuses(*(planted(0.5, 0.024) for _ in range(3))) == ["inconclusive"] * 3


def test_what_could_not_be_excluded_or_is_not_tested_does_not_count() -> None:
    untested, exact = Hypothesis(told(status="measured")), planted(None, 1e-9, margin=0.0)
    otherwise = planted(None, 1e-9, fallback="inconclusive")
    some = statuses(planted(None, 0.03), exact, otherwise, untested)
    assert some == ["excluded", "inconclusive", "inconclusive", "measured"]
    assert statuses(planted(None, 0.03), planted(None, 0.9)) == ["inconclusive", "inconclusive"]


def test_a_row_that_the_correction_leaves_open_says_its_verdict_alone() -> None:
    others = [planted(0.9, 0.9)] * 3
    safe, costs, leaning, decided, still_open = settle(
        [
            planted(0.9, 0.024, words=LOSS),
            planted(0.024, 0.9, words=LOSS),
            planted(0.9, 0.024, words=LOSS, value=0.01),
            planted(0.9, 1e-9, words=LOSS),
            planted(0.9, 0.9, words=LOSS),
            *others,
        ],
        alpha=0.05,
    )[:5]
    assert [f.verdict_alone for f in (safe, costs, leaning, decided, still_open)] == ["safe", "costs", "safe", "", ""]
    assert [f.status for f in (safe, costs, leaning)] == ["inconclusive"] * 3
    [single] = settle([planted(0.9, 0.024, words=LOSS)], alpha=0.05)
    assert (single.verdict, single.verdict_alone) == ("safe", ""), "the same test without others"
    assert voided(safe).verdict_alone == ""


def test_the_excluded_effect_is_in_points_where_the_score_is() -> None:
    task = TaskRecord(name="t", digest="d", examples=90, measure="u", measures=("u",), bounded=True)
    for record, size in ((None, "0.02"), (task, "2.0 points"), (replace(task, measure="other"), "0.02")):
        [row] = settle([planted(0.9, 1e-9)], alpha=0.05, task=record)
        assert f"more than {size} is" in row.because
        [few] = [covered(replace(row, coverage=0.3, margin=MARGIN), 0.3, record)]
        assert few.status == "not_applicable" and f"more than {size} is" not in few.because


def losses(values: np.ndarray, *, margin: float = MARGIN, **more: Any) -> Hypothesis:
    """A claim on losses of whole answers ``[draw, example]``."""
    test = mean_effect(values, margin=margin, bounded=True, unit="u")
    return claim(test, Sample(values, 1.0), margin=margin, **{"one_sided": True, **more})


@pytest.mark.slow
def test_any_false_verdict_is_as_rare_as_alpha_says_on_either_side() -> None:
    """Six true effects of exactly the margin: whatever is decided is wrong."""
    rate, reports = 0.02, 60
    rng = np.random.default_rng(round(1000 * rate))
    said = [
        statuses(*(losses((rng.random((1, 150)) < rate) * 1.0, margin=rate) for _ in range(6))) for _ in range(reports)
    ]
    most = 0.05 * reports + 3.0 * (0.05 * 0.95 * reports) ** 0.5
    assert all(sum(word in some for some in said) <= most for word in ("found", "excluded"))


# ---- what the numbers are the mean of ------------------------------------------------------------------------------


def test_the_values_decide_and_not_the_interval() -> None:
    """None of 150 answers is lost: its interval ends at 1.8 %, yet a loss of 2 % leaves no trace in one case of 20."""
    none = np.zeros((1, 150))
    high = mean_effect(none, margin=MARGIN, bounded=True, unit="u").high
    assert high is not None and high < MARGIN
    assert statuses(losses(none)) == ["inconclusive"]
    one_test = three_sided.p_below(none, margin=MARGIN, bound=1.0, one_sided=True)
    assert one_test == pytest.approx(2.0 * (1.0 - MARGIN) ** 150, rel=0.1)  # of a two-sided alpha
    assert statuses(losses(none, margin=0.04)) == ["excluded"]


def test_where_few_draws_hit_hard_what_none_showed_is_allowed_for() -> None:
    """A loss that 8 draws do not show may be in a fifth of all: alike in all else, 640 draws exclude it."""
    for draws, status in ((8, "inconclusive"), (640, "excluded")):
        values = np.zeros((draws, 400))
        test = rare.rare_effect(values, (-0.1, 0.9), margin=MARGIN, bounded=True, unit="u")
        [found] = settle([claim(test, Sample(values, 1.0, (-0.1, 0.9)), one_sided=True)], alpha=0.05)
        assert found.status == status
        assert found.power == rare.power_of(values, (-0.1, 0.9), margin=MARGIN, bounded=True, alpha=0.05)
    alike = claim(test, Sample(np.zeros((8, 400)), 1.0), one_sided=True)
    assert statuses(alike) == ["excluded"], "as if all draws were alike"


# ---- what would decide it ------------------------------------------------------------------------------------------


def test_power_is_told_at_the_level_of_the_strictest_test() -> None:
    values = (np.random.default_rng(3).random((1, 300)) < 0.01).astype(np.float64)
    alone, *_ = settle([losses(values)], alpha=0.05)
    many, *_ = settle([losses(values), *(planted(0.9, 0.9) for _ in range(4))], alpha=0.05)
    assert [alone.power, many.power] == [
        three_sided.power_of(values, margin=MARGIN, bound=1.0, one_sided=True, alpha=alpha)
        for alpha in (0.05, 0.05 / 5)
    ]
    assert alone.power is not None and many.power is not None
    assert 300 < (alone.power.examples or 0) < (many.power.examples or 0)
    for lost in (1, 2, 4):  # every undecided test against a margin says what would decide it
        [found] = settle([losses((np.arange(90) < lost)[None] * 1.0, one_sided=False)], alpha=0.05)
        assert found.status == "inconclusive" and found.power is not None
        assert found.power.examples is None or found.power.examples > 90, "else it is near the margin"


# ---- words ---------------------------------------------------------------------------------------------------------


def test_each_side_has_the_words_of_its_question() -> None:
    for words, verdicts in (
        (LOSS, ("costs", "safe", "may cost", "cannot tell")),
        (PAIR, ("differ", "equivalent", "may differ", "cannot tell")),
        (CLAIM, ("found", "excluded", "maybe", "cannot tell")),
    ):
        sides = [planted(*p, words=words) for p in ((0.001, 0.9), (0.9, 0.001), (0.9, 0.9))]
        leaning = claim(estimate(0.03, 0.01, 0.05), Planted(0.9), words=words)
        found = settle([*sides[:2], leaning, sides[2]], alpha=0.05)
        assert tuple(one.verdict for one in found) == verdicts
        assert [one.leaning for one in found] == [False, False, True, False]


LEANING = [
    (0.01, 0.05, True, True),
    (0.01, 0.05, False, True),
    (-0.05, -0.001, True, False),  # a gain is no loss that may be
    (-0.05, -0.001, False, True),
    (0.01, None, True, True),
    (None, None, False, False),
]


def test_an_undecided_effect_leans_only_to_the_side_of_an_alarm() -> None:
    for low, high, one_sided, leans in LEANING:
        draft = claim(estimate(0.0, low, high), NoEvidence(), one_sided=one_sided, words=LOSS)
        [found] = settle([draft], alpha=0.05)
        assert found.leaning == leans and found.verdict == ("may cost" if leans else "cannot tell")


def test_where_a_control_failed_no_verdict_is_left() -> None:
    for value in (0.001, 0.03):
        draft = claim(estimate(value, 0.0005, 0.05), NoEvidence(), otherwise="It may be so.")
        [found] = settle([draft], alpha=0.05)
        void = voided(found)
        assert found.leaning and (void.status, void.verdict, void.leaning) == ("void", "void", False)
        unanswered = replace(found, status="error", leaning=False)
        assert voided(unanswered) == unanswered
