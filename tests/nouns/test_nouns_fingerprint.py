"""Fingerprints: two models that answer differently never share an outcome, and one model is known again."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pairs import PAIRS, Base, made
from torch import nn

import wheeltap as wt
from wheeltap.core.fingerprint import described, fingerprint
from wheeltap.testing.planted import CASES, planted


def inputs() -> torch.Tensor:
    return torch.randn(300, 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", PAIRS)
def test_two_models_that_differ_in_no_weight_are_told_apart(kind: str, tmp_path: Path) -> None:
    one, two = made(kind, 1.0), made(kind, -1.0)
    assert [p.tolist() for p in one.parameters()] == [p.tolist() for p in two.parameters()]
    with torch.no_grad():
        targets = one(inputs()).argmax(1)
    probe, store = wt.Probe(inputs(), targets), tmp_path / "both.wheeltap"
    assert fingerprint(one) != fingerprint(two)
    for model, expected in ((one, 1.0), (two, 0.0), (one, 1.0)):
        report = wt.audit(wt.Subject(model, name="net"), probe, audits=["score"], store=store)
        assert report.findings[0].estimates[0].value == expected
    both = wt.compare(wt.Subject(one, name="one"), wt.Subject(two, name="two"), probe, audits=["score"], store=store)
    assert [f.estimates[0].value for f in both.findings] == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("kind", PAIRS)
def test_a_model_made_again_has_the_same_fingerprint(kind: str) -> None:
    one, again = made(kind, 1.0), made(kind, 1.0)
    assert not described(one).differing(described(again))
    one(inputs())
    assert not described(one).differing(described(again))


@pytest.mark.parametrize("kind", CASES)
def test_planted_models_are_known_again(kind: str) -> None:
    model = planted(kind).subject.model
    assert fingerprint(model) == fingerprint(copy.deepcopy(model))


_PRINTED = """
import sys
sys.path.insert(0, {folder!r})
from pairs import PAIRS, made
from wheeltap.core.fingerprint import fingerprint
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


def test_a_layer_that_is_used_twice_is_not_one_that_is_used_once() -> None:
    layer, act = nn.Linear(4, 4), nn.ReLU()
    once, twice = nn.Sequential(layer, act), nn.Sequential(layer, act, layer)
    assert fingerprint(once.eval()) != fingerprint(twice.eval())


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
