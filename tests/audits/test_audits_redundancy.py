"""WT201: planted cancelling units are found, sound nets and re-coded copies are not, and the words tell why not."""

import numpy as np
import pytest
import reports
from torch import nn

from wheeltap import gauge
from wheeltap.audits.redundancy import undone
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.readings import create
from wheeltap.report.report import Report
from wheeltap.sources import digits as source
from wheeltap.stats.effect import mean_effect

NETS = 3


@pytest.fixture(scope="module")
def nets() -> list[nn.Module]:
    return [source.train(seed) for seed in range(NETS)]


def twin(model: nn.Module, *gauges: str, seed: int = 0, **settings: float) -> nn.Module:
    family = gauge.find(model)
    assert isinstance(family, gauge.Family)
    return gauge.twin(model, gauge.describe(family, *gauges, seed=seed, **settings))


def run(task: Task, *models: nn.Module) -> Report:
    """A report on ``net 0``, ``net 1`` ..., without graded copies: they cost more than all the rest."""
    subjects = [Subject(model, name=f"net {at}") for at, model in enumerate(models)]
    return reports.run(subjects, task, "redundancy", keep=("twin", "planted", "stronger"))


def shares(model: nn.Module, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Share undone per pair and example, of the opposing and of the random pairs."""
    reading = create("cancellation", {"permutations": 1, "shuffles": 1})
    moved = reading.read(Subject(model, name="net"), task, root=0, seed=0).values["moved"].astype(np.float64)
    return undone(moved[0]), undone(moved[1])


class TestShare:
    def test_closed_forms(self) -> None:
        one, two = np.array([1.0, 3.0]), np.array([2.0, 2.0])
        for both, share in ((0 * one, 1.0), (one + two, 0.0), (2 * (one + two), -1.0), ((one + two) / 2, 0.5)):
            assert undone(np.stack([one, two, both])[None]).mean() == pytest.approx(share)

    def test_the_mean_is_the_ratio_of_means_and_its_spread_that_of_the_ratio(self) -> None:
        assert (undone(np.zeros((2, 3, 5))) == 0.0).all(), "units that move nothing share nothing"
        rng = np.random.default_rng(0)

        def drawn() -> np.ndarray:
            common = rng.lognormal(0.0, 0.8, 80)
            return np.stack([common * rng.lognormal(0.0, 0.5, 80) for _ in range(3)])

        ratio = [1 - m[2].mean() / (m[0].mean() + m[1].mean()) for m in (drawn() for _ in range(2000))]
        found = [mean_effect(undone(drawn()[None]), unit="share") for _ in range(400)]
        one = drawn()
        assert undone(one[None]).mean() == pytest.approx(1 - one[2].mean() / (one[0].mean() + one[1].mean()))
        errors = [(e.high - e.low) / 2 / 1.99 for e in found if e.high is not None and e.low is not None]
        assert np.mean(errors) == pytest.approx(float(np.std(ratio)), rel=0.1)


@pytest.mark.slow
class TestPower:
    def test_a_copy_that_does_the_same_has_the_same_share(self, nets: list[nn.Module], digits_task: Task) -> None:
        """And units split in two that do the same are no cancellation."""
        ours, theirs = (
            shares(nets[0], digits_task)[0],
            shares(twin(nets[0], "permute", "rescale", "dead", seed=5), digits_task)[0],
        )
        assert np.allclose(ours, theirs, atol=1e-3)
        assert float(shares(twin(nets[0], "split", seed=5), digits_task)[0].mean()) < 0.1


@pytest.mark.slow
class TestReport:
    def test_a_planted_copy_is_found_alone_and_in_a_pair(self, nets: list[nn.Module], digits_task: Task) -> None:
        report = run(digits_task, nets[0], twin(nets[0], "cancel", seed=9, pairs=8, scale=4.0))
        assert not report.void
        sound, planted, pair = report["WT201"]
        assert [found.status for found in (sound, planted, pair)] == ["excluded", "found", "found"]
        assert sound.smallest_detectable is not None and 0.5 < sound.smallest_detectable <= 1.0
        ratio = reports.estimate(planted, "cancellation_ratio")
        assert ratio.p is not None and ratio.p <= 0.02
        assert reports.number(planted, "units_with_a_copy") >= 32  # the 32 units added are copies of others
        assert reports.estimate(planted, "nll_rescued").n == 300
        passed = {c.name.removeprefix("WT201 "): c.status for c in report.controls if c.name.startswith("WT201")}
        copies = {"reparametrized copy": "passed", "planted cancelling units": "passed"}
        assert passed == {**copies, "detection power": "skipped"}

    def test_two_sound_nets_do_not_differ(self, nets: list[nn.Module], digits_task: Task) -> None:
        report = run(digits_task, nets[1], nets[2])
        one, two, pair = report["WT201"]
        assert (one.status, two.status) == ("excluded", "excluded")
        # Its interval reaches half of the margin: that they differ is not shown, nor that they do not.
        assert (pair.status, pair.verdict) == ("inconclusive", "cannot tell")
        assert pair.power is not None and pair.power.near and pair.power.draws is None, "more pairs would not tell"
