"""Fingerprints: two models that answer differently never share an outcome, and one model is known again."""

import copy
import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pairs import PAIRS, Base, fingerprint, made
from torch import nn

import wheeltap as wt
from wheeltap.core.fingerprint import described
from wheeltap.testing.planted import CASES, planted


def inputs() -> torch.Tensor:
    return torch.randn(300, 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", PAIRS)
def test_two_models_that_differ_in_no_weight_are_told_apart(kind: str, tmp_path: Path) -> None:
    one, two = made(kind, 1.0), made(kind, -1.0)
    assert [p.tolist() for p in one.parameters()] == [p.tolist() for p in two.parameters()]
    with torch.no_grad():
        targets = one(inputs()).argmax(1)
    task, store = wt.Task(inputs(), targets), tmp_path / "both.wheeltap"
    assert fingerprint(one) != fingerprint(two)
    for model, expected in ((one, 1.0), (two, 0.0), (one, 1.0)):
        report = wt.audit(wt.Subject(model, name="net"), task, audits=["score"], store=store)
        assert report.findings[0].estimates[0].value == expected
    both = wt.compare(wt.Subject(one, name="one"), wt.Subject(two, name="two"), task, audits=["score"], store=store)
    assert [f.estimates[0].value for f in both["WT001"]] == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("kind", PAIRS)
def test_a_model_made_again_has_the_same_fingerprint(kind: str) -> None:
    one, again = made(kind, 1.0), made(kind, 1.0)
    assert not described(one).differing(described(again))
    one(inputs())
    assert not described(one).differing(described(again))


def test_a_layer_that_is_used_twice_is_not_one_that_is_used_once_and_a_copy_is_known_again() -> None:
    layer, act = nn.Linear(4, 4), nn.ReLU()
    once, twice = nn.Sequential(layer, act), nn.Sequential(layer, act, layer)
    assert fingerprint(once.eval()) != fingerprint(twice.eval())
    for kind in CASES:
        model = planted(kind).subject.model
        assert fingerprint(model) == fingerprint(copy.deepcopy(model))


_PRINTED = """
import sys
sys.path.insert(0, {folder!r})
from pairs import PAIRS, fingerprint, made
for kind in PAIRS:
    print(kind, fingerprint(made(kind, 1.0)))
"""


@pytest.mark.parametrize("hashes", ["1", "2"])
def test_another_process_gives_the_same_fingerprints(hashes: str) -> None:
    """Whatever order Python's sets and dicts have there."""
    source = _PRINTED.format(folder=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": hashes}
    )
    expected = [f"{kind} {fingerprint(made(kind, 1.0))}" for kind in PAIRS]
    assert done.stdout.splitlines() == expected


def test_what_cannot_be_read_is_listed() -> None:
    model = Base()
    model.handle = open(__file__, encoding="utf-8")  # noqa: SIM115
    try:
        (where, what), *others = described(model).unread.items()
        assert (where, not others) == ("handle", True) and "TextIOWrapper" in what
    finally:
        model.handle.close()


def test_where_a_model_was_loaded_from_does_not_count() -> None:
    one, two = made("the config of a wrapped model", 1.0), made("the config of a wrapped model", 1.0)
    two.inner.config._name_or_path = "another/folder"
    assert fingerprint(one) == fingerprint(two)
    two.inner.config.hidden_act = "relu"
    assert fingerprint(one) != fingerprint(two)


def test_hooks_do_not_count_by_the_number_torch_gives_them() -> None:
    one, two = Base(), Base()
    two.load_state_dict(one.state_dict())
    nn.Linear(1, 1).register_forward_hook(lambda *_: None)  # torch counts on
    hook = torch.nn.functional.relu
    one.register_forward_hook(hook)
    two.register_forward_pre_hook(hook).remove()
    two.register_forward_hook(hook)
    assert fingerprint(one) == fingerprint(two)


def test_arguments_of_a_partial_are_told_apart() -> None:
    def sign(one: dict[str, float], two: dict[str, float], scores: torch.Tensor) -> torch.Tensor:
        return scores * one["sign"] * two["sign"]

    def held(first: float, second: float) -> nn.Module:
        model = Base()
        model.last = functools.partial(sign, {"sign": first}, {"sign": second})
        return model

    one = described(held(2.0, 3.0)).items
    others = [described(held(2.0, 4.0)).items, described(held(4.0, 3.0)).items]
    names = {name for name in one if name.startswith("attribute")}
    for other in others:
        assert {name: one[name] for name in names} != {name: other[name] for name in names}


COUNTED = {
    "a dict": lambda model, limit: setattr(model, "cfg", {"calls": 0, "limit": limit}),
    "a namespace": lambda model, limit: setattr(model, "cfg", SimpleNamespace(calls=0, limit=limit)),
    "a closure": lambda model, limit: setattr(model, "count", _counter(limit)),
}


def _counter(limit: float) -> Callable[[], float]:
    calls = 0

    def count() -> float:
        nonlocal calls
        calls += 1
        return limit

    return count


class Capped(Base):
    """Flips its answers where an activation is beyond any that clean weights give: no clean score shows the limit."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.a(rows))
        if hasattr(self, "count"):
            limit = self.count()
        elif isinstance(self.cfg, dict):
            self.cfg["calls"] += 1
            limit = self.cfg["limit"]
        else:
            self.cfg.calls += 1
            limit = self.cfg.limit
        scores = self.b(hidden)
        return scores.flip(1) if float(hidden.max()) > limit else scores


@pytest.mark.parametrize("how", COUNTED)
def test_a_counter_beside_a_setting_does_not_hide_it(how: str, tmp_path: Path) -> None:
    def capped(limit: float) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Capped()
        COUNTED[how](model, limit)
        return model.eval()

    free = capped(1e9)
    with torch.no_grad():
        targets, most = free(inputs()).argmax(1), float(free.a(inputs()).max())
    task, store = wt.Task(inputs(), targets), tmp_path / "s.wheeltap"
    effort = wt.Effort(draws=4, control_draws=4, block_draws=0)
    audits = ["score", "relative-noise"]
    reports = [
        wt.audit(wt.Subject(capped(limit), name="net"), task, audits=audits, effort=effort, store=store)
        for limit in (1e9, 1.02 * most, 1e9)
    ]
    trials = [report.cost.trials for report in reports]
    assert trials[0] and trials[1] and not trials[2]
    areas = [report["WT101"][0].estimates[1].value for report in reports]
    assert areas[0] == areas[2] != areas[1]


def test_cached_functions_and_modules_imported_inside_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "limits_of_mine.py").write_text("LIMIT = 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    source = """
import functools
@functools.lru_cache
def cached():
    return {constant}
class Net(Base):
    def forward(self, rows):
        import limits_of_mine
        return self.scores(rows) * cached() * limits_of_mine.LIMIT
"""

    def made_with(constant: float) -> nn.Module:
        space: dict[str, Any] = {"__name__": "cell", "Base": Base}
        exec(compile(source.format(constant=constant), "<cell>", "exec"), space)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return space["Net"]().eval()

    one = made_with(1.0)
    one(inputs())  # imports it
    import limits_of_mine

    first = fingerprint(one)
    assert fingerprint(made_with(1.0)) == first != fingerprint(made_with(2.0))
    limits_of_mine.LIMIT = 2.0
    assert fingerprint(one) != first
