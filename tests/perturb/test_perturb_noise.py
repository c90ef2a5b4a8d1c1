"""Noise: what moves, by how much, and the closed form of what it costs."""

import numpy as np
import pytest
import torch
from function_cases import inputs_of
from scipy import stats
from torch import Tensor

from wheeltap.core.layer import Layer
from wheeltap.core.records import Scalar
from wheeltap.core.site import WHOLE
from wheeltap.engine.apply import Disturbance
from wheeltap.perturb import create
from wheeltap.perturb.base import BY, Draw, Noise, Weights, move
from wheeltap.testing.planted import PlantedCase, linear_regression, numbers

LAYER = Layer(name="x", kind="linear", weight="x.weight", bias="x.bias", shape=(200, 300))
KINDS: list[tuple[str, dict[str, Scalar]]] = [
    ("relative", {}),
    ("relative", {"draw": "sign"}),
    ("std", {}),
    ("std", {"draw": "sign"}),
]


def held() -> Weights:
    return Weights(numbers(200, 300, seed=0) * 3 + 1, numbers(200, seed=1) * 5)


def moved(name: str, settings: dict[str, Scalar], dose: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    before = held()
    after = create(name, settings).replace(LAYER, before, dose, Draw(0, seed))
    assert after.bias is not None
    assert before.bias is not None
    return after.weight - before.weight, after.bias - before.bias


def units(name: str) -> tuple[Tensor, Tensor]:
    """Expected standard deviation of each element at dose 1."""
    before = held()
    assert before.bias is not None
    if name == "relative":
        return before.weight.abs(), before.bias.abs()
    return tuple(torch.full_like(part, float(np.std(part.numpy()))) for part in (before.weight, before.bias))  # type: ignore[return-value]


def test_each_number_moves_by_its_unit_times_the_dose_and_apart_from_all_others() -> None:
    for name, chosen in KINDS:
        changes = moved(name, chosen, 0.125)
        for change, unit in zip(changes, units(name), strict=True):
            standard = (change / unit / 0.125).flatten().numpy()
            n = len(standard)
            assert abs(standard.mean()) < 5 / n**0.5
            assert abs((standard**2).mean() - 1) < 5 * 2**0.5 / n**0.5
            if chosen:
                torch.testing.assert_close(change.abs(), 0.125 * unit, rtol=1e-9, atol=1e-12)
                assert abs(float(change.sign().mean())) < 5 / n**0.5
            elif n > 200:
                assert stats.kstest(standard, "norm").pvalue > 1e-3
        weight, bias = changes
        for drawn in (*weight.T[:5], weight.flatten()[:200], weight.T.flatten()[:200]):
            assert abs(float(np.corrcoef(drawn, bias)[0, 1])) < 5 / 200**0.5
        # Also where the weight has the bias's size.
        thin = Layer(name="x", kind="linear", weight="x.weight", bias="x.bias", shape=(200, 1))
        before = Weights(numbers(200, 1, seed=0), numbers(200, seed=1))
        after = create(name, chosen).replace(thin, before, 0.5, Draw(0, 0))
        assert after.bias is not None and before.bias is not None
        pair = [(after.weight - before.weight).flatten(), after.bias - before.bias]
        if name == "relative":
            pair = [pair[0] / before.weight.flatten(), pair[1] / before.bias]
        assert abs(float(np.corrcoef(*pair)[0, 1])) < 5 / 200**0.5


# The closed form: expected rise of a linear model's squared error.


def rise(case: PlantedCase, name: str, dose: float) -> float:
    """Noise of mean zero raises the squared error of example x by E|dW x + db|^2: the cross term averages to zero."""
    inputs, (weight, bias) = inputs_of(case), (held.detach() for held in case.subject.model.parameters())
    second, units = inputs.square().mean(0), len(weight)
    if name == "std":
        spread = weight.var(correction=0) * units * second.sum() + units * bias.var(correction=0)
    elif name == "relative":
        spread = (weight.square() @ second).sum() + bias.square().sum()
    else:
        spread = (inputs @ weight.T + bias).square().sum(1).mean()
    return dose**2 * float(spread)


@pytest.mark.parametrize(("name", "chosen"), [*KINDS, ("function", {})])
@pytest.mark.parametrize("dose", [0.02])
def test_a_linear_model_loses_what_the_closed_form_says(name: str, chosen: dict[str, Scalar], dose: float) -> None:
    case, made = linear_regression(), create(name, chosen)
    model, task = case.subject.model, case.task

    def error() -> float:
        with torch.no_grad():
            return float((model(inputs_of(case)) - task.targets).square().sum(1).mean())

    clean, risen, expected = error(), list[float](), rise(case, name, dose)
    with Disturbance(case.subject, made, WHOLE, case.factors() if made.needs else None) as disturbance:
        for seed in range(150):
            disturbance.apply(dose, root=0, seed=seed)
            risen.append(error() - clean)
    assert error() == clean
    spread = float(np.std(risen, ddof=1)) / len(risen) ** 0.5
    assert abs(float(np.mean(risen)) - expected) < 4 * spread
    assert dose < 0.5 or spread < 0.05 * expected


@pytest.mark.parametrize(("name", "settings"), KINDS)
@pytest.mark.parametrize(("dtype", "transposed"), [(torch.float32, True), (torch.bfloat16, False)])
def test_what_is_written_at_once_lies_along_the_direction(
    name: str, settings: dict[str, Scalar], dtype: torch.dtype, transposed: bool
) -> None:
    """Drawn a few at a time into the weights, or as a whole to be kept: the same bits."""
    made = create(name, settings)
    assert isinstance(made, Noise)
    weight = numbers(2, BY + 7, seed=0).to(dtype)
    before = Weights(weight.T if transposed else weight, numbers(5, seed=1).to(dtype))
    assert before.bias is not None
    kept, written = (Weights(before.weight.clone(), before.bias.clone()) for _ in range(2))
    along = made.direction(LAYER, before, Draw(1, 2))
    move(kept, before, along, 0.3)
    length = made.write(written, LAYER, before, 0.3, Draw(1, 2))
    assert torch.equal(kept.weight, written.weight) and not torch.equal(kept.weight, before.weight)
    assert kept.bias is not None and written.bias is not None and torch.equal(kept.bias, written.bias)
    known = made.squared_length(before) if length is None else length
    assert known == pytest.approx(along.squared_norm, rel=1e-2 if dtype is torch.bfloat16 else 1e-5)
