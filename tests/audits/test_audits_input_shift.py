"""WT701: a net that reads one feature among many, one that averages them, and what shifted inputs cost each."""

from typing import Any

import numpy as np
import pytest
import torch
from reports import finding
from scipy.stats import kendalltau, spearmanr
from torch import Tensor, nn
from twins import Wired

import wheeltap as wt
from wheeltap.audits import input_shift
from wheeltap.core.errors import UsageError
from wheeltap.core.records import Finding
from wheeltap.engine.readings import input_shift as reading
from wheeltap.engine.readings import readings
from wheeltap.engine.readings.input_shift import InputShift
from wheeltap.plans.plan import AuditSpec
from wheeltap.plans.readings.input_shift import LADDERS, SHIFTS
from wheeltap.sources import digits
from wheeltap.testing.contract import ReadingContract
from wheeltap.testing.planted import numbers

FEATURES, EXAMPLES = 16, 300


def signals() -> tuple[Tensor, Tensor]:
    """Every feature tells the class: one of them sharply, the mean of all of them just as well."""
    targets = torch.arange(EXAMPLES) % 2
    sides = 2.0 * targets[:, None] - 1.0
    return (sides + 0.8 * numbers(EXAMPLES, FEATURES, seed=0).float()), targets


def reader(weights: Tensor, name: str) -> wt.Subject:
    model = nn.Sequential(nn.Linear(FEATURES, 2)).eval()
    layer = model[0]
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([-weights, weights]))
        layer.bias.zero_()
    return wt.Subject(model, name=name)


def averaging() -> wt.Subject:
    return reader(torch.full((FEATURES,), 1.0 / FEATURES), "averaging")


def relying() -> wt.Subject:
    """Its answers come from the first two features."""
    return reader(torch.tensor([0.5, 0.5] + [0.0] * (FEATURES - 2)), "relying")


def task() -> wt.Task:
    return wt.Task(*signals(), name="signals")


def of(report: wt.Report, subject: str) -> Finding:
    return finding(report, "WT701", subject)


class TestReading(ReadingContract):
    reading = InputShift
    settings = {"shift_draws": 2}  # noqa: RUF012 - as in the contract


def by_hand(subject: wt.Subject, on: wt.Task, change: Any) -> float:
    with torch.no_grad():
        answers = subject.model(change(on.inputs)).argmax(1)
    return float((answers == on.targets).double().mean())


def test_scores_are_those_of_inputs_changed_by_hand() -> None:
    images = digits.task()
    read = readings.get("input-shift")({"image": "8x8", "shift_draws": 2}).read(
        wt.Subject(digits.subject().model, name="net"), images, root=3, seed=0
    )
    at = {
        (SHIFTS[int(shift)], int(level)): float(score.astype(np.float64).mean())
        for shift, level, score in zip(read.values["shift"], read.values["level"], read.values["score"], strict=True)
    }

    def paler(inputs: Tensor) -> Tensor:
        return inputs.mean(1, keepdim=True) + 0.25 * (inputs - inputs.mean(1, keepdim=True))

    assert at["contrast", 2] == pytest.approx(by_hand(digits.subject(), images, paler), abs=1e-9)

    def blurred(inputs: Tensor) -> Tensor:
        """Slowly: each pixel the weighted mean of all others, coordinates held at the edges."""
        kernel = np.exp(-0.5 * (np.arange(-3, 4) / 1.0) ** 2)
        kernel = torch.tensor(kernel / kernel.sum(), dtype=torch.float32)
        picture, out = inputs.reshape(-1, 8, 8), torch.zeros(len(inputs), 8, 8)
        for row in range(8):
            for column in range(8):
                for i, down in enumerate(range(-3, 4)):
                    for j, right in enumerate(range(-3, 4)):
                        held = picture[:, min(max(row + down, 0), 7), min(max(column + right, 0), 7)]
                        out[:, row, column] += kernel[i] * kernel[j] * held
        return out.reshape(-1, 64)

    assert at["blur", 1] == pytest.approx(by_hand(digits.subject(), images, blurred), abs=1e-9)
    assert {name for name, _ in at} == {"noise", "blur", "occlusion", "contrast"}


def test_the_net_that_relies_on_few_features_loses_more() -> None:
    report = wt.compare(averaging(), relying(), task(), audits=["input-shift"], seed=1)
    calm, hurt = of(report, "averaging"), of(report, "relying")
    assert hurt.status == "found"
    assert (calm.estimates[0].value or 0.0) < 0.01 < (hurt.estimates[0].value or 0.0)
    pair = of(report, "averaging vs relying")
    assert pair.status == "found" and (pair.estimates[0].value or 0.0) > 0.03
    again = wt.compare(relying(), wt.Subject(relying().model, name="again"), task(), audits=["input-shift"], margin=0.1)
    same = of(again, "relying vs again")
    assert same.status == "excluded" and same.estimates[0].value == 0.0
    names = [estimate.name for estimate in hurt.estimates]
    assert names[:3] == ["loss under input shift", "loss under feature noise 0.5", "loss under feature dropout 0.1"]
    assert any(name.startswith("loss under relative noise") for name in names)
    [correlation] = [one for one in hurt.estimates if one.name.startswith("correlation")]
    assert correlation.low is not None and correlation.high is not None
    assert correlation.low <= (correlation.value or 0.0) <= correlation.high
    variants = {curve.variant for curve in report.record.curves if curve.subject == "relying"}
    assert variants == {"", "feature dropout"}


def test_correlations_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    one = rng.integers(0, 4, 60).astype(float)
    two = one + rng.integers(0, 4, 60)
    assert input_shift._alike(one, two, grouped=False).value == pytest.approx(spearmanr(one, two).statistic)
    assert input_shift._alike(one, np.zeros(60), grouped=False).value is None
    for ties in (9, 3):
        a, b = (rng.permutation(9) % ties * 1.0 for _ in range(2))
        assert input_shift._tau(a, b) == pytest.approx(kendalltau(a, b).statistic)
    assert input_shift._tau(a, a) == 1.0 and input_shift._tau(a, np.ones(9)) is None


def test_the_correlations_interval_holds_the_true_one() -> None:
    rng, held, true = np.random.default_rng(1), 0, 0.5
    for _ in range(400):
        both = rng.multivariate_normal([0.0, 0.0], [[1.0, true], [true, 1.0]], 120)
        found = input_shift._alike(both[:, 0], both[:, 1], grouped=False)
        # Spearman's correlation of normal pairs is 6/pi asin(r/2).
        held += (found.low or 0.0) <= 6 / np.pi * np.arcsin(true / 2) <= (found.high or 0.0)
    assert 0.92 <= held / 400 <= 0.98


def test_an_occlusion_covers_the_share_it_says_and_as_many_tokens_change_places() -> None:
    for dose, sides in ((0.05, (8, 8)), (0.1, (8, 8)), (0.2, (8, 8)), (0.4, (28, 28))):
        images = numbers(20, 1, *sides, seed=3).float()
        covered = reading._occlusion(images, dose, np.random.default_rng(0)) != images
        assert float(covered.float().mean()) == pytest.approx(dose, abs=0.7 / min(sides))
    context = list(range(1000))
    moved = reading._swapped(context, 0.2, np.random.default_rng(0), [])
    assert sorted(moved) == context
    assert np.mean(np.array(moved) != context) == pytest.approx(0.2, abs=0.04)


def test_what_cannot_be_asked_is_refused_before_anything_runs() -> None:
    for settings, message in (
        ({"shifts": "blur"}, "disturbance of these inputs"),
        ({"shifts": "nosuch"}, "no disturbance of inputs called 'nosuch'"),
        ({"image": "5x5"}, "The examples are no images of this size"),
        ({"level": 4}, "cannot be used"),
        ({"shift_draws": 1}, "cannot be used"),
    ):
        with pytest.raises(UsageError, match=message):
            wt.plan(relying(), task(), audits=[AuditSpec(name="input-shift", settings=settings)])


def test_tokens_are_changed_by_shares() -> None:
    contexts = [[1 + at % 2 if k % 5 < 3 else 2 - at % 2 for k in range(12)] for at in range(50)]
    on = wt.ChoiceTask(contexts, [[[1], [2]]] * 50, [0, 1] * 25)

    table = nn.Embedding.from_pretrained(torch.eye(24), freeze=False)
    bag = Wired(lambda net, ids: net.table(ids).cumsum(1), table=table)  # answers with what it saw most often
    report = wt.audit(wt.Subject(bag.eval(), name="bag"), on, audits=["input-shift"])
    found = report["WT701"][0]
    assert [one.name for one in found.estimates[1:4]] == [
        f"loss under {name} {LADDERS[name][1]:g}" for name in ("swapped tokens", "dropped tokens", "replaced tokens")
    ]
