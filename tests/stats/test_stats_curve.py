"""Curves: closed forms for area and half dose, censoring, and laws."""

import numpy as np
import pytest
from simulation import covers

from wheeltap.core.errors import DataError
from wheeltap.stats.curve import Response, area_values, area_weights, band, half_dose, half_dose_ratio
from wheeltap.stats.effect import mean_effect

DOSES = np.array([0.01, 0.1, 1.0, 10.0])


def ramp(retention: list[float], *, clean: float = 0.9, chance: float = 0.1) -> Response:
    """[dose, 3 draws, 20 examples] with the given retention at each dose in every cell."""
    share, doses = np.array(retention)[:, None, None], DOSES[: len(retention)]
    values = np.broadcast_to(chance + (clean - chance) * share, (len(retention), 3, 20))
    return Response(values=values, clean=np.full(20, clean), doses=doses, chance=chance)


def test_area_of_a_line_in_log_dose_is_its_middle() -> None:
    doses = np.array([0.01, 0.02, 0.3, 7.0, 10.0])
    line = 2.0 - 0.3 * np.log(doses)
    values = np.broadcast_to(line[:, None, None], (5, 2, 3)) + np.arange(3.0)
    got = area_values(values, doses)
    assert got.shape == (2, 3)
    assert got[0] == pytest.approx((line[0] + line[-1]) / 2 + np.arange(3.0))
    values, x = np.random.default_rng(0).random((4, 2, 5)), np.log(DOSES)
    want = ((values[1:] + values[:-1]) / 2 * np.diff(x)[:, None, None]).sum(axis=0) / (x[-1] - x[0])
    assert area_values(values, DOSES) == pytest.approx(want), "numpy's trapezoid"


def test_band_stays_in_range_and_has_width_where_all_is_right() -> None:
    mean, low, high = band(np.ones((2, 4, 50)), bounded=True)
    assert mean.tolist() == high.tolist() == [1.0, 1.0]
    assert low == pytest.approx([1 - 2.96 / 52] * 2, abs=2e-3)  # the rule of three, over examples
    mean, low, high = band(np.zeros((2, 4, 50)), bounded=True)
    assert mean.tolist() == low.tolist() == [0.0, 0.0] and (high > 0.05).all()
    values = np.random.default_rng(0).normal(5.0, 1.0, size=(3, 4, 9))
    mean, low, high = band(values, bounded=False)  # not clipped
    assert mean == pytest.approx(values.mean(axis=(1, 2)))
    assert (low < mean).all() and (mean < high).all() and (high > 1.0).all()


def test_half_dose_by_hand() -> None:
    for retention, want in (
        ([1.0, 0.75, 0.25, 0.0], 10**-0.5),  # half way between .1 and 1 in log dose
        ([1.0, 0.9, 0.4, 0.0], 10 ** (-1 + 0.8)),
        ([0.5, 0.4, 0.2, 0.0], 0.01),
        ([1.0, 0.9, 0.8, 0.5], 10.0),
        ([1.0, 0.8, 0.9, 0.1], 10 ** (0.35 / 0.75)),  # .8, .9 pooled to .85
    ):
        for clean, chance in ((0.9, 0.1), (1.0, 2.3)):  # the second: lower is better
            got = half_dose(ramp(retention, clean=clean, chance=chance), unit="sigma")
            assert got.value == pytest.approx(want) and (got.unit, got.n) == ("sigma", 20)


@pytest.mark.parametrize("seed", range(2))
def test_the_confidence_set_against_a_search_dose_by_dose(seed: int) -> None:
    """Slow oracle: interpolate the whole table to each of many doses and ask ``mean_effect`` there."""
    rng = np.random.default_rng(seed)
    values = np.array([1.0, 0.8, 0.3, 0.1])[:, None, None] + rng.normal(0.0, 0.6, size=(4, 3, 25))
    clean = rng.normal(1.0, 0.2, size=25)
    inside: list[float] = []
    fine = np.linspace(np.log(DOSES[0]), np.log(DOSES[-1]), 3001)
    for at in fine:
        k = min(int(np.searchsorted(np.log(DOSES), at, side="right")) - 1, 2)
        w = (at - np.log(DOSES[k])) / np.log(10.0)
        excess = (1 - w) * values[k] + w * values[k + 1] - clean / 2
        if covers(mean_effect(excess, unit="u"), 0.0):
            inside.append(at)
    got = half_dose(Response(values=values, clean=clean, doses=DOSES, chance=0.0))
    for end, want in ((got.low, inside[0]), (got.high, inside[-1])):
        if want in (fine[0], fine[-1]):
            assert end is None
        else:
            assert end is not None and np.log(end) == pytest.approx(want, abs=6e-3)


def test_half_dose_censored_on_either_side() -> None:
    for retention, low, high in (
        ([1.0, 1.0, 0.9, 0.8], 10.0, None), ([0.3, 0.2, 0.1, 0.0], None, 0.01), ([0.9], 0.01, None),
    ):  # fmt: skip
        got = half_dose(ramp(retention))
        assert (got.value, got.low, got.high) == (None, low and pytest.approx(low), high and pytest.approx(high))
    clean = np.array([1.0] + [0.0] * 9)  # exactly at chance: no half of nothing
    got = half_dose(Response(values=np.zeros((4, 3, 10)), clean=clean, doses=DOSES, chance=0.1))
    assert (got.value, got.low, got.high) == (None, None, None) and "not distinguished from chance" in got.method


def test_the_ratio_of_a_shifted_curve_is_the_shift() -> None:
    rng = np.random.default_rng(0)
    noise = 0.05 * rng.normal(size=(1, 4, 30))
    logs = np.log10(DOSES)

    def response(shift: float) -> Response:
        values = 0.5 - 0.25 * (logs - shift)[:, None, None] + noise
        return Response(values=values, clean=np.ones(30), doses=DOSES, chance=0.0)

    got = half_dose_ratio(response(0.3), response(0.0))
    assert got.value == pytest.approx(10**0.3)
    assert got.low == pytest.approx(got.value) and got.high == pytest.approx(got.value)  # noise is shared: it cancels
    assert got.p is not None and got.p < 1e-30
    beyond = half_dose_ratio(response(9.0), response(0.0))
    assert (beyond.value, beyond.low, beyond.p) == (None, None, None)


def test_an_end_of_a_ratio_that_no_number_can_hold_is_open() -> None:
    """At a crossing without a slope worth the name, noise moves the half dose by any number of decades."""
    rng, steps = np.random.default_rng(1), np.array([0.6, 0.5 + 1e-7, 0.5 - 1e-7, 0.4])[:, None, None]
    one, two = (
        Response(values=steps + 0.1 * rng.normal(size=(1, 4, 30)), clean=np.ones(30), doses=DOSES[:4], chance=0.0)
        for _ in range(2)
    )
    flat = [Response(values=r.values - r.values.mean((1, 2), keepdims=True) + steps, clean=r.clean, doses=r.doses,
                     chance=0.0) for r in (one, two)]  # fmt: skip
    got = half_dose_ratio(*flat)
    assert got.value == pytest.approx(1.0)
    assert got.low is None and got.high is None


def test_refuses_what_it_cannot_use() -> None:
    with pytest.raises(DataError, match="log axis"):
        area_weights(np.array([0.0, 1.0]))
    with pytest.raises(DataError, match="fit"):
        area_values(np.ones((3, 2, 5)), DOSES)
    with pytest.raises(DataError, match="paired"):
        half_dose(Response(values=np.ones((4, 2, 5)), clean=np.ones(6), doses=DOSES, chance=0.0))
    one = Response(values=np.ones((4, 2, 5)), clean=np.ones(5), doses=DOSES, chance=0.0)
    other = Response(values=np.ones((4, 3, 5)), clean=np.ones(5), doses=DOSES, chance=0.0)
    with pytest.raises(DataError, match="same draws"):
        half_dose_ratio(one, other)
