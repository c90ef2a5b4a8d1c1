"""Noise at equal effect: the effect is met, the net comes back, and symmetry is read off the change."""

import numpy as np
import pytest
import torch

import wheeltap as wt
from wheeltap.core import symmetry
from wheeltap.core.errors import ModelError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.models.cppn import Cppn, Layout, grid
from wheeltap.suites.pictures.engine.noise import respond

LAYOUT = Layout(3, (("cache", 3), ("gaussian", 4), ("sin", 2)))
POINTS = grid(20)


def net(fold: str = "") -> Cppn:
    rng = np.random.default_rng(1)
    return Cppn.of(LAYOUT, [rng.normal(0, 1 / np.sqrt(s[0]), s).astype(np.float32) for s in LAYOUT.shapes], fold=fold)


def task(of: Cppn) -> wt.Task:
    with torch.no_grad():
        made = wt.Task(POINTS, of(POINTS), measure=wt.measure.squared_error)
    return made.with_symmetry(symmetry.mirror(POINTS[:, :2]))


@pytest.mark.parametrize("kind", ["function", "relative"])
def test_every_draw_changes_the_picture_as_much_as_asked(kind: str) -> None:
    drawn = net()
    before = weights_digest(drawn)
    found = respond(wt.Subject(drawn), task(drawn), kind, effect=0.05, draws=4, root=0)
    assert found.reached.all()
    assert weights_digest(drawn) == before
    assert len(set(found.dose)) == 4
    again = respond(wt.Subject(drawn), task(drawn), kind, effect=0.05, draws=4, root=0)
    assert np.array_equal(found.dose, again.dose)


def test_a_net_that_reads_the_size_of_x_answers_with_full_symmetry() -> None:
    plain, folded = net(), net("abs-x")
    shares = [
        respond(wt.Subject(one), task(one), "function", effect=0.05, draws=4, root=0).symmetry
        for one in (plain, folded)
    ]
    assert shares[0].max() < 0.95
    assert np.allclose(shares[1], 1.0, atol=1e-6)


def test_an_effect_out_of_reach_is_said_to_be() -> None:
    still = Cppn.of(LAYOUT, [np.zeros(shape, dtype=np.float32) for shape in LAYOUT.shapes])
    found = respond(wt.Subject(still), task(still), "relative", effect=0.05, draws=2, root=0)
    assert not found.reached.any()
    assert np.isnan(found.symmetry).all()


def test_too_few_points_are_refused() -> None:
    drawn, few = net(), grid(3)
    with torch.no_grad():
        small = wt.Task(few, drawn(few), measure=wt.measure.squared_error)
    with pytest.raises(ModelError):
        respond(wt.Subject(drawn), small, "function", effect=0.05, draws=1, root=0)


def test_the_symmetric_share_is_that_of_energies() -> None:
    group = symmetry.mirror(POINTS[:, :2])
    x, y = POINTS[:, :1], POINTS[:, 1:2]
    even, odd = (x.square() + y), x * y.exp()
    share = float(even.square().sum() / (even.square().sum() + odd.square().sum()))
    assert float(group.share(even + odd)) == pytest.approx(share, abs=1e-6)
    assert float(group.share(torch.zeros(len(POINTS), 3))) == 0.0
    both = group.share(torch.stack([even + odd, even.expand_as(odd)]))
    assert both.tolist() == pytest.approx([share, 1.0], abs=1e-6)
    known = (even + odd).square().sum()
    assert float(group.share(even + odd, energy=2.0 * known)) == pytest.approx(share / 2, abs=1e-6)
