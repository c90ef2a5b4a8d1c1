"""Seeds that fail, skewed numbers and ten rules in a study: verdicts on members are wrong as seldom as promised."""

import numpy as np
import pytest

from benchmarks.levels.studies import DESIGNS, RULES_OF_A_STUDY, wrong
from wheeltap.stats.members import NumberScale, Single, difference, mean, paired
from wheeltap.stats.members.unseen import MemberValues, UnseenMembers

SHARE = NumberScale("share", bounded=True)
MARGIN = 0.05


def unseen(values: np.ndarray, distance: float) -> float:
    law = UnseenMembers.of(MemberValues(values, 1.0, (-1.0, 1.0)))
    return law.p_value(distance, toward=1.0, margin=MARGIN, found=False)


def test_the_bound_is_that_of_random_weights() -> None:
    rng = np.random.default_rng(0)
    values = 0.1 * rng.normal(size=8)
    values -= values.mean()
    weights = rng.dirichlet(np.ones(9), 200_000)
    for distance in (0.15, 0.3, 0.5):  # farther than a tenth of the room, so the imaginary member lies at the end
        slow = float((weights @ np.append(values, 1.0) >= distance).mean())
        assert unseen(values, distance) == pytest.approx(slow, rel=0.12)


@pytest.mark.parametrize(("count", "distance"), [(5, 0.5), (20, 0.2), (36, MARGIN)])
def test_members_that_are_all_alike_miss_a_kind_by_the_power_of_its_share(count: int, distance: float) -> None:
    share = max(distance, 0.1)  # of members at the end of the scale that would move the mean so far, or one in ten
    assert unseen(1e-9 * np.arange(count), distance) == pytest.approx((1.0 - share) ** count, rel=0.06)


@pytest.mark.parametrize("name", DESIGNS)
def test_false_verdicts_are_rare(name: str) -> None:
    runs = 30 if name in RULES_OF_A_STUDY else 150
    for count in (5, 20):
        for rate in wrong(DESIGNS[name], count, runs=runs, rng=np.random.default_rng(count)):
            assert rate <= 0.05 + 3.1 * np.sqrt(0.05 * 0.95 / runs), (name, count)


def test_enough_members_decide_and_a_large_effect_needs_few() -> None:
    rng = np.random.default_rng(1)

    def noise(count: int, mean: float = 0.0) -> list[float]:
        return [float(value) for value in rng.normal(mean, 0.01, count)]

    assert (paired(noise(40), noise(40), scale=SHARE).below(MARGIN, "more") or 1.0) <= 0.05
    assert (paired(noise(40, 0.1), noise(40), scale=SHARE).above(MARGIN, "more") or 1.0) <= 0.05
    assert (difference(noise(60), noise(60), scale=SHARE).below(MARGIN, "either") or 1.0) <= 0.05
    shares = mean([Single(value) for value in noise(8, 0.9)], scale=NumberScale("s", bounded=True, ends=(0.0, 1.0)))
    assert (shares.above(0.5, "more") or 1.0) <= 0.05


def test_the_number_needed_follows_from_the_level() -> None:
    rng = np.random.default_rng(2)
    x, y = (0.01 * rng.normal(size=(2, 5))).tolist()
    for alpha in (0.05, 0.005):
        needed = paired(x, y, scale=SHARE).needed(MARGIN, "more", alpha=alpha)
        assert needed is not None and 0.9**needed <= alpha / 2.0 < 0.9 ** (needed - 1)
    two = difference(x, y, scale=SHARE).needed(MARGIN, "more")
    assert two is not None and two > 2 * 36  # either cohort may hide a failure
