"""Registries: built-ins, entry points of really present distributions, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from wheeltap.audits.base import BUILTIN as AUDITS
from wheeltap.audits.base import Audit, audits
from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.registry import Registry
from wheeltap.perturb import BUILTIN, Perturbation, create, perturbations

Plugged = Callable[..., Registry[Perturbation]]

MODULE = """
from wheeltap.perturb.noise import RelativeNoise, StdNoise
from wheeltap.core.settings import Settings
from wheeltap.perturb.base import Noise

class Own(Noise):
    name, title, unit, lowest, highest = "own", "own", "own", 0.0, 1.0
    def direction(self, layer, weights, draw):
        return weights

class Unrelated:
    pass

instance = Own()
"""


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Registry[Perturbation]]:
    """Makes registries with entry points of a distribution, as pip would leave it: each call one of its own group."""
    info = tmp_path / "wheeltap_ground_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wheeltap-ground-plugin\nVersion: 1.0\n")
    (tmp_path / "wheeltap_ground_plugin.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)

    def registry(group: str = "wheeltap.ground", **points: str) -> Registry[Perturbation]:
        lines = "\n".join(f"{name} = {value}" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[{group}]\n{lines}\n")
        return Registry("perturbation", group, BUILTIN, Perturbation)

    return registry


def test_every_builtin_is_there_under_its_own_name() -> None:
    for name in BUILTIN:
        assert perturbations.get(name).name == name
        assert create(name).name == name
    for name in AUDITS:
        assert audits.get(name).name == name
    assert set(BUILTIN) <= set(perturbations)
    assert list(perturbations) == sorted(perturbations)
    assert issubclass(audits.get("score"), Audit)


def test_a_near_miss_is_told_and_a_far_miss_is_given_the_list(plugged: Plugged) -> None:
    misses = {"relativ": "relative", "Quantise": "quantize", "prunning": "pruning"}
    for (name, meant), known in zip(misses.items(), (perturbations, perturbations, audits), strict=True):
        with pytest.raises(UnknownName, match=f"Did you mean '{meant}'") as caught:
            known.get(name)
        assert isinstance(caught.value, LookupError) and isinstance(caught.value, ValueError)
    listed = "Choose one of: cast, erase, fine-tune, flip, flip-worst, function, merge, none"
    with pytest.raises(UnknownName, match=listed):
        plugged().get("zzzzzz")


def test_a_plugin_adds_names_and_replaces_none(plugged: Plugged) -> None:
    """A report must mean the same everywhere."""
    found = plugged(own="wheeltap_ground_plugin:Own")
    assert set(found) == {*BUILTIN, "own"}
    assert found.get("own").name == "own"
    with pytest.raises(UsageError, match="'relative' is declared twice") as caught:
        plugged(relative="wheeltap_ground_plugin:StdNoise").get("std")
    assert "the package 'wheeltap-ground-plugin'" in str(caught.value) and "Rename it" in str(caught.value)


def test_what_is_no_perturbation_or_broken_is_named(plugged: Plugged) -> None:
    wrong = dict.fromkeys(("Unrelated", "instance", "Settings"), "is not a Perturbation")
    values = {f"wheeltap_ground_plugin:{name}": words for name, words in wrong.items()}
    broken = ("wheeltap_no_such_module:Own", "wheeltap_ground_plugin:NoSuchName")
    for value, words in (values | dict.fromkeys(broken, "cannot be loaded")).items():
        with pytest.raises(UsageError, match=f"'wrong' {words}") as caught:
            plugged("wheeltap.ground-wrong", wrong=value).get("wrong")
        assert value in str(caught.value) and "wheeltap.ground-wrong" in str(caught.value)


def test_a_process_adds_classes_of_its_own_under_free_names() -> None:
    things = Registry("reading", "wheeltap.no-such-group", {"heads": "wheeltap.engine.readings.heads:Heads"}, object)
    things.add("mine", "collections:Counter")
    things.add("mine", "collections:Counter")  # the same again, as when a module is read twice
    assert things.get("mine").__name__ == "Counter"
    assert list(things) == ["heads", "mine"]
    for taken in ("mine", "heads"):
        with pytest.raises(UsageError, match="declared twice"):
            things.add(taken, "collections:OrderedDict")
