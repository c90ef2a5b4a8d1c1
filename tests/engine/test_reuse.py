"""Reuse guard: stored outcomes of a model are reused only while the model still gives the stored outputs."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from pairs import PAIRS, Base, made
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.core.errors import ModelError
from wheeltap.core.records import Finding
from wheeltap.report.origin import NOT_REUSED

AUDITS = ["score", "quantization"]


def inputs() -> Tensor:
    return torch.randn(300, 8, generator=torch.Generator().manual_seed(3))


def task_of(model: nn.Module) -> wt.Task:
    """Examples that the model answers correctly."""
    with torch.no_grad():
        return wt.Task(inputs(), model(inputs()).argmax(1))


def audit(model: nn.Module, task: wt.Task, store: Path, **options: Any) -> wt.Report:
    return wt.audit(wt.Subject(model, name="net"), task, audits=AUDITS, store=store, **options)


def accuracy(report: wt.Report) -> float:
    return report["WT001"][0].estimates[0].value


def results(report: wt.Report) -> list[Finding]:
    """Findings without the keys of their trials, which differ between generations."""
    return [msgspec.structs.replace(finding, trials=()) for finding in report.findings]


def seeded(make: Callable[[], Base]) -> Base:
    """A model that gives each of its two answers on half of the examples."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = make().eval()
        scores = model.scores(inputs())
        model.b.bias[0] -= (scores[:, 0] - scores[:, 1]).median()
        return model


@pytest.mark.parametrize("kind", PAIRS)
def test_models_with_equal_weights_never_share_outcomes(kind: str, tmp_path: Path) -> None:
    plus, minus = made(kind, 1.0), made(kind, -1.0)
    task, store = task_of(plus), tmp_path / "s.wheeltap"
    first = audit(plus, task, store)
    assert (accuracy(first), first.cost.reused) == (1.0, 0)
    other = audit(minus, task, store)
    assert (accuracy(other), other.cost.reused) == (0.0, 0)
    for model, expected in ((plus, first), (minus, other)):  # each finds its own outcomes again
        again = audit(model, task, store)
        assert again.cost.trials == 0
        assert again.findings == expected.findings
    both = wt.compare(wt.Subject(plus, name="plus"), wt.Subject(minus, name="minus"), task, audits=["score"])
    assert [finding.estimates[0].value for finding in both["WT001"]] == [1.0, 0.0, 1.0]


SCALE = 1.0


class Outside(Base):
    """Multiplies its scores by a number that is no part of it."""

    def __init__(self, number: Callable[[], float]) -> None:
        super().__init__()
        self.number = number

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scores(inputs) * self.number()


class Preprocessing(Base):
    def __init__(self, preprocess: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.preprocess = preprocess

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scores(self.preprocess(inputs))


class Buffered(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sign", torch.ones(1))
        self.shift = torch.zeros(8)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scores(inputs + self.shift) * self.sign


def _closure(value: float) -> Callable[[], float]:
    return lambda: value


def _set_global(value: float) -> None:
    global SCALE  # noqa: PLW0603 - what the test is about
    SCALE = value


def _set_default(model: Any) -> None:
    model.number.__defaults__ = (-1.0,)


def _read(path: Path) -> Callable[[], float]:
    return lambda: float(path.read_text())


CHANGES: dict[str, tuple[Callable[[Path], Base], Callable[[Any, Path], object]]] = {
    "closure": (lambda _: Outside(_closure(1.0)),
                lambda model, _: setattr(model, "number", _closure(-1.0))),
    "global": (lambda _: Outside(lambda: SCALE), lambda *_: _set_global(-1.0)),
    "environment variable": (lambda _: Outside(lambda: float(os.environ.get("WT_TEST_SIGN", "1"))),
                             lambda *_: os.environ.__setitem__("WT_TEST_SIGN", "-1")),
    "file": (lambda path: Outside(_read(path)), lambda _, path: path.write_text("-1.0")),
    "preprocessing": (lambda _: Preprocessing(lambda rows: rows),
                      lambda model, _: setattr(model, "preprocess", torch.neg)),
    "default argument": (lambda _: Outside(lambda value=1.0: value), lambda model, _: _set_default(model)),
    "monkeypatched layer": (lambda _: Base(), lambda model, _: setattr(
        model.b, "forward", lambda rows: -nn.functional.linear(rows, model.b.weight, model.b.bias))),
    "buffer": (lambda _: Buffered(), lambda model, _: model.sign.neg_()),
    "tensor attribute": (lambda _: Buffered(), lambda model, _: model.shift.add_(3.0)),
}  # fmt: skip
"""How a model is made, and what changes after its first audit."""


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_reused_after_a_change_and_all_without_one(change: str, tmp_path: Path) -> None:
    make, alter = CHANGES[change]
    number, store = tmp_path / "number.txt", tmp_path / "s.wheeltap"
    number.write_text("1.0")
    try:
        model = seeded(lambda: make(number))
        task = task_of(model)
        first = audit(model, task, store)
        same = audit(model, task, store)
        assert (same.cost.trials, same.cost.reused) == (0, first.cost.trials)
        assert same.findings == first.findings
        alter(model, number)
        changed = audit(model, task, store)
        assert changed.cost.reused == 0
        assert changed.cost.trials == first.cost.trials
        assert accuracy(changed) < 1.0
        assert results(changed) == results(audit(model, task, tmp_path / "fresh.wheeltap"))
    finally:
        os.environ.pop("WT_TEST_SIGN", None)
        _set_global(1.0)


def test_the_report_names_the_first_example_that_differs(tmp_path: Path) -> None:
    flipped: set[int] = set()

    class Listed(Base):
        def forward(self, inputs: Tensor) -> Tensor:
            signs = torch.tensor([-1.0 if example in flipped else 1.0 for example in range(len(inputs))])
            return self.scores(inputs) * signs[:, None]

    model = seeded(Listed)
    task, store = task_of(model), tmp_path / "s.wheeltap"
    audit(model, task, store)
    flipped.update((17, 40))
    report = audit(model, task, store)
    assert "example 17" in str(report.record.provenance[NOT_REUSED])
    assert NOT_REUSED not in audit(model, task, store).record.provenance


class ReadsWhenPerturbed(Base):
    """Reads a file only where its weights are not the ones that it was made with."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.total = float(self.a.weight.detach().sum())

    def forward(self, inputs: Tensor) -> Tensor:
        scores = self.scores(inputs)
        return scores if float(self.a.weight.sum()) == self.total else scores * float(self.path.read_text())


def test_a_file_that_only_perturbed_passes_read_is_noticed(tmp_path: Path) -> None:
    number, store = tmp_path / "number.txt", tmp_path / "s.wheeltap"
    number.write_text("1.0")
    model = seeded(lambda: ReadsWhenPerturbed(number))
    task = task_of(model)
    first = audit(model, task, store)
    assert audit(model, task, store).cost.trials == 0
    number.write_text("-1.0")
    changed = audit(model, task, store)
    assert changed.cost.reused == 0
    assert results(changed) != results(first)
    assert audit(model, task, store).findings == changed.findings  # from the store, by its own generation
    number.write_text("1.0")
    assert audit(model, task, store).findings == first.findings


class Limited(Base):
    """Gives no answer where an output exceeds a limit that is kept outside of it."""

    def __init__(self, limit: list[float]) -> None:
        super().__init__()
        self.limit = lambda: limit[0]

    def forward(self, inputs: Tensor) -> Tensor:
        scores = self.scores(inputs)
        return scores * 0.0 if float(scores.abs().max()) > self.limit() else scores


class Floored(Limited):
    """Gives no answer where all outputs stay below a limit that is kept outside of it."""

    def forward(self, inputs: Tensor) -> Tensor:
        scores = self.scores(inputs)
        return scores * 0.0 if float(scores.abs().max()) < self.limit() else scores


@pytest.mark.parametrize(
    ("network", "unreached", "reached", "schemes"),
    [
        pytest.param(Limited, 1e9, 1.2, "int4,noise30", id="some noisy trials exceed it"),
        pytest.param(Floored, 0.0, 0.95, "int8,wanda90", id="trials with statistics stay below it"),
    ],
)
def test_a_limit_that_only_some_trials_reach_is_noticed(
    network: type[Limited], unreached: float, reached: float, schemes: str, tmp_path: Path
) -> None:
    limit = [unreached]
    model = seeded(lambda: network(limit))
    task, store = task_of(model), tmp_path / "s.wheeltap"
    with torch.no_grad():
        largest = float(model(inputs()).abs().max())
    first = wt.audit(wt.Subject(model, name="net"), task, schemes=schemes, store=store)
    limit[0] = reached * largest
    fresh = wt.audit(wt.Subject(model, name="net"), task, schemes=schemes)
    assert results(fresh) != results(first), "some trials reach the limit"
    for attempt in range(5):  # one of the repeated trials is random
        copied = tmp_path / f"{attempt}.wheeltap"
        shutil.copy(store, copied)
        again = wt.audit(wt.Subject(model, name="net"), task, schemes=schemes, store=copied)
        assert again.cost.reused == 0 and results(again) == results(fresh)


def test_a_changed_measure_is_measured_again(tmp_path: Path) -> None:
    weight = [1.0]

    def weighted(scores: Tensor, targets: Tensor) -> Tensor:
        return weight[0] * (scores.argmax(1) == targets).float()

    model = seeded(Base)
    with torch.no_grad():
        task = wt.Task(inputs(), model(inputs()).argmax(1), measure=wt.measure.of(weighted, bounded=True))
    store = tmp_path / "s.wheeltap"
    assert accuracy(audit(model, task, store)) == 1.0
    weight[0] = 0.5
    changed = audit(model, task, store)
    assert (accuracy(changed), changed.cost.reused) == (0.5, 0)


def test_a_converted_copy_that_code_gives_is_run_again(tmp_path: Path) -> None:
    sign = [1.0]

    def converted() -> nn.Module:
        copy = seeded(Base)
        copy.register_forward_hook(lambda module, args, output: output * sign[0])
        return copy

    model = seeded(Base)
    task, store = task_of(model), tmp_path / "s.wheeltap"
    first = wt.audit(wt.Subject(model, name="net"), task, schemes=[converted], store=store)
    sign[0] = -1.0
    changed = wt.audit(wt.Subject(model, name="net"), task, schemes=[converted], store=store)
    assert changed.cost.reused == 0
    assert results(changed) != results(first)


def test_a_shard_of_another_model_is_refused(tmp_path: Path) -> None:
    number = tmp_path / "number.txt"
    number.write_text("1.0")
    model = seeded(lambda: Outside(_read(number)))
    task = task_of(model)
    for index in range(2):
        audit(model, task, tmp_path / f"{index}.wheeltap", shard=f"{index}/2")
    number.write_text("-1.0")
    with pytest.raises(ModelError):  # by the shard that has the clean pass
        for index in range(2):
            audit(model, task, tmp_path / f"{index}.wheeltap", shard=f"{index}/2")
