"""Moments of a layer's inputs and outputs: their factors, how they are estimated, and where they are not defined."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from function_cases import inputs_of, made
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from twins import Wired

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import ModelError
from wheeltap.core.records import Outcome, Trial
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.needs import moments
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.engine.trials import run_trials
from wheeltap.perturb import create
from wheeltap.perturb.base import BlockFactors
from wheeltap.perturb.noise import factor
from wheeltap.recipes.randomness import reproducible
from wheeltap.testing.planted import CASES, PlantedCase, numbers, planted

Matrix = NDArray[np.float64]


# The factor of a moment.


@dataclass
class MomentCase:
    """Inputs ``[row, d]`` and the rank of their moment."""

    rows: Matrix
    rank: int

    @property
    def moment(self) -> Matrix:
        return self.rows.T @ self.rows / len(self.rows)


def rows_of(kind: str, *, seed: int = 0) -> MomentCase:
    rng = np.random.Generator(np.random.PCG64(seed))
    full = rng.standard_normal((60, 8)) @ rng.standard_normal((8, 8))
    match kind:
        case "full rank":
            return MomentCase(full, 8)
        case "dead inputs":
            full[:, [0, 5]] = 0.0
            return MomentCase(full, 6)
        case "duplicates":
            return MomentCase(np.hstack([full, full[:, 2:5]]), 8)
        case "scaled duplicates":
            return MomentCase(np.hstack([full, full[:, 2:5] * [3.0, -0.01, 500.0]]), 8)
        case "combinations":
            return MomentCase(np.hstack([full[:, :4], full[:, :4] @ rng.standard_normal((4, 5))]), 4)
        case "constant":
            return MomentCase(np.hstack([full, np.ones((60, 1))]), 9)
        case "constant of constants":
            return MomentCase(np.hstack([np.full((60, 1), 3.0), np.ones((60, 1))]), 1)
        case "all dead":
            return MomentCase(np.zeros((60, 4)), 0)
        case _:
            raise AssertionError(kind)


KINDS = (
    "full rank", "dead inputs", "duplicates", "scaled duplicates", "combinations", "constant", "constant of constants",
    "all dead",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_factor_squares_to_the_moment_whitens_it_and_has_its_rank_in_any_units(kind: str) -> None:
    case = rows_of(kind)
    spread, whiten = factor(case.moment)
    assert spread.shape == (len(case.moment), case.rank)
    assert whiten.shape == (case.rank, len(case.moment))
    np.testing.assert_allclose(spread @ spread.T, case.moment, atol=1e-7 * max(1.0, np.abs(case.moment).max()))
    np.testing.assert_allclose(whiten @ spread, np.eye(case.rank), atol=1e-7)
    white = case.rows @ whiten.T
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(case.rank), atol=1e-6)
    scales = 10.0 ** np.linspace(-6, 6, len(case.moment))
    for units in (scales, scales[::-1], np.full_like(scales, 1e-9), np.full_like(scales, 1e9)):
        rows = case.rows * units
        assert factor(rows.T @ rows / len(rows))[0].shape[1] == case.rank


@given(st.lists(st.floats(-9, 9), min_size=8, max_size=8), st.integers(0, 5))
def test_a_change_of_units_is_a_change_of_units_of_the_factor(powers: list[float], seed: int) -> None:
    """Where the rank is full: the draw itself then stays the same."""
    case, units = rows_of("full rank", seed=seed), 2.0 ** np.array(powers)
    spread, whiten = factor(case.moment)
    scaled_spread, scaled_whiten = factor(case.moment * np.outer(units, units))
    np.testing.assert_allclose(scaled_spread, spread * units[:, None], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(scaled_whiten, whiten / units, rtol=1e-6, atol=1e-9)


@given(st.integers(0, 50))
def test_the_square_of_the_whitening_is_the_same_in_any_order(seed: int) -> None:
    order = np.random.Generator(np.random.PCG64(seed)).permutation(8)
    moment = rows_of("full rank").moment
    whiten, permuted = factor(moment)[1], factor(moment[np.ix_(order, order)])[1]
    np.testing.assert_allclose(permuted.T @ permuted, (whiten.T @ whiten)[np.ix_(order, order)], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_moment_that_is_not_finite_is_refused(bad: float) -> None:
    moment = np.eye(3)
    moment[1, 1] = bad
    with pytest.raises(ModelError, match="not finite"):
        factor(moment)


# Where it is not defined.


def outcome(case: PlantedCase, site: Site = WHOLE) -> Outcome:
    task = case.task
    trial = Trial(
        subject=case.subject.record.fingerprint, task=task.digest, measures=tuple(m.name for m in task.measures),
        perturbation="function", version=1, site=site, dose=0.1,
    )  # fmt: skip
    found: list[Outcome] = []
    run_trials([trial], TrialRunner([case.subject], (), task), found.append)
    (only,) = found
    return only


def test_too_few_rows_are_skipped_with_the_reason() -> None:
    case = planted("mlp")
    inputs = inputs_of(case)
    few = PlantedCase(case.subject, Task(inputs[:19], case.task.targets[:19]))
    told = outcome(few)
    assert told.status == "skipped"
    assert "too small for function-space noise" in told.because
    assert not told.values
    # 12 hidden units and a constant: 1.5 x 13 = 20 rows are enough, further inputs count.
    enough = PlantedCase(case.subject, Task(inputs[:20], case.task.targets[:20]))
    assert outcome(enough).status == "done"
    assert (
        outcome(PlantedCase(case.subject, Task(inputs[:8], case.task.targets[:8], more=inputs[8:20]))).status == "done"
    )
    with pytest.raises(ModelError, match="at least 20 rows of input"):
        few.factors()


def test_tied_weights_are_left_alone() -> None:
    """One matrix with two input spaces has no single invariant scale."""
    case = planted("tied")
    assert list(case.factors()) == ["inner"]
    assert [layer.name for layer in case.subject.layers if create("function").accepts(layer)] == ["inner"]
    assert outcome(case).status == "done"
    told = outcome(case, Site("layer", "embed"))
    assert told.status == "skipped"
    assert "touches no weight" in told.because


def test_each_group_of_channels_has_factors_of_its_own() -> None:
    """A grouped convolution is as many maps as groups: as if each were a layer that reads its channels."""
    inputs = numbers(40, 4, 6, seed=1)
    grouped = made(lambda: nn.Sequential(nn.Conv1d(4, 6, 3, groups=2), nn.Flatten()), inputs)
    found = grouped.factors()["0"]
    assert isinstance(found, BlockFactors)
    for at, factors in enumerate(found.factors):
        alone = made(lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten()), inputs[:, 2 * at : 2 * at + 2])
        with torch.no_grad():
            for mine, theirs in zip(alone.subject.model.parameters(), grouped.subject.model.parameters(), strict=True):
                mine.copy_(theirs[3 * at : 3 * at + 3])
        single = alone.factors()["0"]
        assert factors is not None
        torch.testing.assert_close(factors.out, single.out)
        torch.testing.assert_close(factors.whiten, single.whiten)


def test_a_layer_that_the_task_never_reaches_has_no_scale() -> None:
    case = made(
        lambda: Wired(lambda net, rows: net.used(rows), used=nn.Linear(3, 2), unused=nn.Linear(3, 2)),
        numbers(20, 3, seed=0),
    )
    assert list(case.factors()) == ["used"]


def test_activations_that_are_not_finite_are_refused() -> None:
    case = made(lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)), numbers(20, 3, seed=0))
    with torch.no_grad():
        case.subject.model[0].bias.fill_(1e200)
    with pytest.raises(ModelError, match="not finite"):
        case.factors()


def test_attention_sinks_count_as_inputs_and_not_as_outputs() -> None:
    """The first position of a sequence: kept where inputs are whitened, left out where outputs set the scale."""
    with reproducible(0):
        model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 9)).double().eval()
    tokens = torch.randint(9, (30, 5), generator=torch.Generator().manual_seed(2)).tolist()
    contexts = [[0, *row] for row in tokens]
    task = ChoiceTask(contexts, [[[1], [2]]] * 30, [0] * 30)
    factors = moments.layer_moments(Subject(model), task).known["1"]
    with torch.no_grad():
        # Sequences with the same tokens run once.
        hidden = model[0](torch.tensor(sorted(set(map(tuple, contexts)))))
        outs = model[1](hidden)[:, 1:].flatten(0, 1)
    rows = nn.functional.pad(hidden, (0, 1), value=1.0).flatten(0, 1)
    torch.testing.assert_close(factors.out @ factors.out.T, outs.T @ outs / len(outs))
    torch.testing.assert_close(factors.whiten.T @ factors.whiten, torch.linalg.inv(rows.T @ rows / len(rows)))


def test_moments_in_parts_are_the_moments() -> None:
    """However the layers are divided over passes, and the rows over batches."""
    case = planted("conv")
    whole = case.factors()
    single = moments.layer_moments(case.subject, case.task, limit=1).known
    batched = moments.layer_moments(case.subject, Task(inputs_of(case), case.task.targets, batch=7)).known
    for other in (single, batched):
        assert list(other) == list(whole)
        for name, factors in whole.items():
            torch.testing.assert_close(other[name].out, factors.out)
            torch.testing.assert_close(other[name].whiten, factors.whiten)


@pytest.mark.parametrize("kind", CASES)
def test_estimating_leaves_the_subject_alone(kind: str) -> None:
    case = planted(kind)
    case.factors()
    for module in case.subject.model.modules():
        assert not module._forward_pre_hooks
        assert not module._forward_hooks
    assert not case.subject.model.training
