"""The training loop against loops of a few lines, and against itself when it is stopped at any step."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wheeltap.core.errors import ModelError, UsageError
from wheeltap.models.mlp import mlp
from wheeltap.plans.artifacts import digest
from wheeltap.recipes.classifier import ClassifierSettings
from wheeltap.recipes.fit import RECORDS, Fit, Hook, Loss, TrainSettings
from wheeltap.recipes.hooks import Average, Sharpness, TopK, WeightNoise
from wheeltap.recipes.make import weights, with_weights
from wheeltap.recipes.randomness import reproducible
from wheeltap.recipes.train import train_classifier

INPUTS = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS[:, :3].argmax(1)
SHORT = TrainSettings(seed=7, epochs=3, batch=16, rate=1e-2, decay=0.01)


def _net(*, dropout: float = 0.0) -> nn.Module:
    with reproducible(1):
        return mlp((6, 8, 8, 3), dropout=dropout)


def _normed() -> nn.Module:
    """With buffers that change, a frozen layer, and one matrix read at two places."""
    with reproducible(1):
        net = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6), nn.Dropout(0.3), nn.Linear(6, 3))
    net[2].weight = net[0].weight
    net[4].bias.requires_grad = False  # pyright: ignore[reportAttributeAccessIssue]
    return net


def _loss(net: nn.Module) -> Loss:
    return lambda rows, step: nn.functional.cross_entropy(net(INPUTS[rows]), TARGETS[rows])


def _fit(net: nn.Module, settings: TrainSettings = SHORT, *, some: Sequence[Hook] = ()) -> Fit:
    return Fit(net, _loss(net), examples=len(INPUTS), settings=settings, hooks=some)


def _done(fit: Fit) -> nn.Module:
    fit.advance(fit.steps)
    assert fit.status == "done"
    return fit.made()


def _bits(net: nn.Module) -> str:
    return digest(weights(net))


def _plain(net: nn.Module, settings: TrainSettings = SHORT) -> nn.Module:
    """What is wanted, in torch alone."""
    order = torch.Generator().manual_seed(settings.seed)
    steps = settings.epochs * -(-len(INPUTS) // settings.batch)
    adam = torch.optim.Adam(net.parameters(), lr=settings.rate, weight_decay=settings.decay)
    falling = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 1.0 / steps, total_iters=steps)
    net.train()
    with reproducible(settings.seed):
        for _ in range(settings.epochs):
            for rows in torch.randperm(len(INPUTS), generator=order).split(settings.batch):
                adam.zero_grad()
                nn.functional.cross_entropy(net(INPUTS[rows]), TARGETS[rows]).backward()
                adam.step()
                falling.step()
    return net.eval()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_it_is_the_plain_loop_to_the_bit(dropout: float) -> None:
    wanted = _bits(_plain(_net(dropout=dropout)))
    assert _bits(_done(_fit(_net(dropout=dropout)))) == wanted
    assert _bits(train_classifier(_net(dropout=dropout), INPUTS, targets=TARGETS, settings=SHORT)) == wanted
    assert wanted != _bits(_net())


def _steps(net: nn.Module, optimizer: torch.optim.Optimizer, rates: Sequence[float]) -> nn.Module:
    """Steps at given rates."""
    order, done = torch.Generator().manual_seed(SHORT.seed), 0
    for _ in range(SHORT.epochs):
        for rows in torch.randperm(len(INPUTS), generator=order).split(SHORT.batch):
            optimizer.param_groups[0]["lr"] = rates[done]
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(INPUTS[rows]), TARGETS[rows]).backward()
            optimizer.step()
            done += 1
    return net


@pytest.mark.parametrize(("optimizer", "schedule"), [("adam", "linear"), ("adamw", "cosine"), ("sgd", "constant")])
def test_optimizers_and_schedules_are_torchs(optimizer: Any, schedule: Any) -> None:
    momentum = 0.9 if optimizer == "sgd" else 0.0
    settings = TrainSettings(
        seed=7, epochs=3, batch=16, rate=0.1, decay=0.3, optimizer=optimizer, schedule=schedule, momentum=momentum
    )
    at = np.arange(12) / 12
    rates = {"linear": 1 - at * (1 - 1 / 12), "cosine": (1 + np.cos(np.pi * at)) / 2, "constant": np.ones(12)}[schedule]
    net = _net()
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[optimizer]
    how = {"momentum": momentum} if momentum else {}
    wanted = _steps(net, kind(net.parameters(), lr=0.1, weight_decay=0.3, **how), list(0.1 * rates))
    found = _done(_fit(_net(), settings))
    for one, two in zip(wanted.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


SETTINGS = {
    "adamw cosine": TrainSettings(epochs=3, batch=16, rate=1e-2, decay=0.1, optimizer="adamw", schedule="cosine"),
    "momentum": TrainSettings(epochs=3, batch=16, rate=1e-2, optimizer="sgd", momentum=0.9),
    "steps": TrainSettings(steps=7, batch=16, rate=1e-2),
    "more steps than records": TrainSettings(epochs=3, batch=2, rate=1e-3),
}


def _resumed_at_each_step(fit: Fit, anew: Fit) -> None:
    """Hands the training from one object to another that has just begun, and so on to the end."""
    arrays, note = fit.arrays(), fit.note()
    anew.resume(arrays, note)
    again = anew.arrays()
    assert anew.note() == note and again.keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(array, again[name]), name
        assert array.dtype == again[name].dtype and array.shape == again[name].shape, name


@pytest.mark.parametrize("settings", SETTINGS)
def test_stopped_after_every_step_it_comes_to_the_same_bits(settings: str) -> None:
    hooks = ClassifierSettings(noise=0.2, rho=0.1, share=0.3, average=0.7)

    def begun() -> Fit:
        return _fit(_normed(), SETTINGS[settings], some=hooks.hooks())

    whole = begun()
    wanted = _bits(_done(whole))
    fit = begun()
    steps = 0
    while fit.status == "training":
        anew = begun()
        _resumed_at_each_step(fit, anew)
        fit = anew
        fit.advance(fit.step + 1)
        steps += 1
    assert (fit.step, steps) == (whole.steps, whole.steps)
    assert _bits(fit.made()) == wanted
    assert all(np.array_equal(array, fit.report()[name]) for name, array in whole.report().items())
    anew = begun()
    anew.resume(fit.arrays(), fit.note())
    assert anew.status == "done" and _bits(_done(anew)) == wanted


def _one_step(net: nn.Module, *some: Hook) -> tuple[list[Tensor], list[Tensor]]:
    """Weights before and after one step of gradient descent at rate 1."""
    before = [parameter.detach().clone() for parameter in net.parameters()]
    _done(_fit(net, TrainSettings(steps=1, batch=50, rate=1.0, optimizer="sgd", schedule="constant"), some=some))
    return before, [parameter.detach() for parameter in net.parameters()]


def _gradient(values: Sequence[Tensor]) -> list[Tensor]:
    net = _net()
    for parameter, value in zip(net.parameters(), values, strict=True):
        parameter.data.copy_(value)
    return list(torch.autograd.grad(nn.functional.cross_entropy(net(INPUTS), TARGETS), list(net.parameters())))


class TestHooks:
    def test_sharpness_takes_the_gradient_uphill(self) -> None:
        before, after = _one_step(_net(), Sharpness(0.5))
        here = _gradient(before)
        size = torch.cat([part.flatten() for part in here]).norm()
        above = _gradient([value + 0.5 * part / size for value, part in zip(before, here, strict=True)])
        for one, two, part, other in zip(before, after, above, here, strict=True):
            torch.testing.assert_close(two, one - part, rtol=1e-4, atol=1e-6)
            assert not torch.allclose(two, one - other, atol=1e-4)

    def test_noise_takes_the_gradient_at_disturbed_weights_and_puts_them_back(self) -> None:
        before, after = _one_step(_net(), WeightNoise(0.5))
        random = torch.Generator().manual_seed(0)  # the seed of the settings
        noisy = [value * (1 + 0.5 * torch.randn(value.shape, generator=random)) for value in before]
        for one, two, part in zip(before, after, _gradient(noisy), strict=True):
            torch.testing.assert_close(two, one - part, rtol=1e-4, atol=1e-6)

    def test_top_k_leaves_the_largest(self) -> None:
        _, plain = _one_step(_net())
        _, after = _one_step(_net(), TopK(0.25))
        for one, two in zip(plain, after, strict=True):
            least = one.abs().flatten().sort(descending=True).values[round(0.25 * one.numel()) - 1]
            wanted = torch.where(one.abs() >= least, one, 0.0) if one.ndim == 2 else one
            assert torch.equal(two, wanted)

    def test_top_k_falls_linearly_and_weights_may_come_back(self) -> None:
        net = _net()
        fit = _fit(net, TrainSettings(steps=20, batch=50, rate=0.3, schedule="constant"), some=[TopK(0.2, until=0.5)])
        matrix = next(iter(net.parameters()))
        kept: list[int] = []
        zero: list[Tensor] = []
        for step in range(20):
            fit.advance(step + 1)
            kept.append(int(np.count_nonzero(matrix.detach())))
            zero.append(matrix.detach() == 0)
        assert kept == [round((1 - 0.8 * min(step / 10, 1.0)) * 48) for step in range(1, 21)]
        assert any(bool((before & ~after).any()) for before, after in pairwise(zero))

    def test_the_average_is_of_the_weights_after_each_step(self) -> None:
        net = _net()
        trained = list(net.parameters())
        wanted = [parameter.detach().clone().double() for parameter in trained]
        fit = _fit(net)
        for step in range(fit.steps):
            fit.advance(step + 1)
            wanted = [0.7 * mean + 0.3 * one.detach() for mean, one in zip(wanted, trained, strict=True)]
        averaged = _done(_fit(_net(), some=[Average(0.7)]))
        for one, two in zip(wanted, averaged.parameters(), strict=True):
            torch.testing.assert_close(one.float(), two.detach(), rtol=1e-4, atol=1e-6)

    def test_what_is_out_of_range_is_refused(self) -> None:
        for wrong in ({"noise": -1.0}, {"rho": float("nan")}, {"share": 0.0}, {"average": 1.0}):
            with pytest.raises(UsageError, match="cannot be trained with these settings"):
                ClassifierSettings(**wrong)


class TestEnds:
    def test_the_loss_is_recorded_over_the_batches_of_each_interval(self) -> None:
        seen: list[float] = []
        net = _net()

        def loss(rows: Tensor, step: int) -> Tensor:
            found = _loss(net)(rows, step)
            seen.append(float(found.detach()))
            return found

        fit = Fit(net, loss, examples=50, settings=TrainSettings(epochs=30, batch=16))
        _done(fit)
        report = fit.report()
        assert len(report["steps"]) == RECORDS and report["steps"][-1] == fit.steps == len(seen) == 120
        parts = np.split(np.array(seen), report["steps"][:-1])
        assert np.allclose(report["losses"], [part.mean() for part in parts], rtol=1e-6)

    def test_no_steps_leave_it_as_it_was(self) -> None:
        fit = _fit(_net(), TrainSettings(steps=0))
        fit.advance(0)
        assert fit.status == "done" and _bits(fit.made()) == _bits(_net()) and len(fit.report()["losses"]) == 0

    @pytest.mark.parametrize("settings", [TrainSettings(rate=1e30), TrainSettings(rate=1e30, steps=1, optimizer="sgd")])
    def test_what_diverges_has_finite_weights(self, settings: TrainSettings) -> None:
        net = _net()
        big = INPUTS * 1e15

        def loss(rows: Tensor, step: int) -> Tensor:
            return nn.functional.cross_entropy(net(big[rows]), TARGETS[rows])

        fit = Fit(net, loss, examples=50, settings=settings)
        for _ in range(2):
            fit.advance(fit.steps)
            assert fit.status == "diverged"
        assert _bits(fit.made()) == _bits(_net())
        assert all(np.isfinite(array).all() for array in fit.report().values())
        with pytest.raises(ModelError, match="diverged"):
            train_classifier(_net(), INPUTS * 1e15, targets=TARGETS, settings=TrainSettings(rate=1e30))

    def test_gradients_and_modes_are_left_clean(self) -> None:
        threads, state = torch.get_num_threads(), torch.get_rng_state()
        with torch.no_grad():
            made = _done(_fit(_net(dropout=0.3), some=[Sharpness(0.1)]))
            assert not torch.is_grad_enabled()
        assert not made.training and all(parameter.grad is None for parameter in made.parameters())
        assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)

    def test_settings_that_make_no_sense_are_errors(self) -> None:
        for name, wrong in (
            ("epochs", 0), ("rate", float("nan")), ("optimizer", "lion"), ("momentum", 1.0), ("steps", -1),
        ):  # fmt: skip
            with pytest.raises(UsageError, match=f"training settings cannot be used(.|\n)*{wrong}"):
                TrainSettings(**{name: wrong})


def test_weights_of_16_bits_come_back_bit_by_bit() -> None:
    net, other = _net().bfloat16(), mlp((6, 8, 8, 3)).bfloat16()
    assert _bits(other) != _bits(net) and weights(net)["0.weight"].dtype == np.int16
    assert _bits(with_weights(other, weights(net))) == _bits(net)
    assert all(torch.equal(one, two) for one, two in zip(net.parameters(), other.parameters(), strict=True))
