"""Registries: built-ins, entry points of really present distributions, and what is refused."""

from pathlib import Path

import pytest

from wheeltap.audits.base import BUILTIN as AUDITS
from wheeltap.audits.base import Audit, audits
from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.registry import Registry
from wheeltap.perturb import BUILTIN, Perturbation, create, perturbations

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


def installed(folder: Path, group: str, **points: str) -> None:
    """A distribution in ``folder`` with these entry points, as pip would leave it."""
    info = folder / "wheeltap_ground_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wheeltap-ground-plugin\nVersion: 1.0\n")
    lines = "\n".join(f"{name} = {value}" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}\n")
    (folder / "wheeltap_ground_plugin.py").write_text(MODULE)


def registry(group: str = "wheeltap.perturbations") -> Registry[Perturbation]:
    return Registry("perturbation", group, BUILTIN, Perturbation)


def test_every_builtin_is_there_under_its_own_name() -> None:
    for name in BUILTIN:
        assert perturbations.get(name).name == name
        assert create(name).name == name
    for name in AUDITS:
        assert audits.get(name).name == name
    assert set(BUILTIN) <= set(perturbations)
    assert list(perturbations) == sorted(perturbations)
    assert issubclass(audits.get("score"), Audit)


def test_a_near_miss_is_told() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'relative'") as caught:
        perturbations.get("relativ")
    assert isinstance(caught.value, LookupError)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(UnknownName, match="Did you mean 'quantize'"):
        perturbations.get("Quantise")
    with pytest.raises(UnknownName, match="Did you mean 'pruning'"):
        audits.get("prunning")


def test_a_far_miss_is_given_the_list() -> None:
    with pytest.raises(
        UnknownName, match="Choose one of: cast, erase, fine-tune, flip, flip-worst, function, low-rank, merge, none"
    ):
        registry("wheeltap.no-such-group").get("zzzzzz")


def test_a_plugin_adds_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, "wheeltap.ground-adds", own="wheeltap_ground_plugin:Own")
    monkeypatch.syspath_prepend(tmp_path)
    found = registry("wheeltap.ground-adds")
    assert set(found) == {*BUILTIN, "own"}
    assert found.get("own").name == "own"


def test_a_plugin_that_takes_a_builtins_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report must mean the same everywhere."""
    installed(tmp_path, "wheeltap.ground-replaces", relative="wheeltap_ground_plugin:StdNoise")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="'relative' is declared twice") as caught:
        registry("wheeltap.ground-replaces").get("std")
    assert "the package 'wheeltap-ground-plugin'" in str(caught.value) and "Rename it" in str(caught.value)


@pytest.mark.parametrize("attribute", ["Unrelated", "instance", "Settings"])
def test_what_is_no_perturbation_is_refused(attribute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = f"wheeltap.ground-wrong-{attribute}"
    installed(tmp_path, group, wrong=f"wheeltap_ground_plugin:{attribute}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="'wrong' is not a Perturbation") as caught:
        registry(group).get("wrong")
    assert f"wheeltap_ground_plugin:{attribute}" in str(caught.value)
    assert group in str(caught.value)


@pytest.mark.parametrize("value", ["wheeltap_no_such_module:Own", "wheeltap_ground_plugin:NoSuchName"])
def test_a_broken_plugin_is_named(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = f"wheeltap.ground-broken-{value[-3:]}"
    installed(tmp_path, group, broken=value)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="'broken' cannot be loaded") as caught:
        registry(group).get("broken")
    assert value in str(caught.value)


def test_settings_are_checked() -> None:
    assert create("relative", {"draw": "sign"}).settings.draw == "sign"
    with pytest.raises(UsageError, match="expected: gaussian or sign"):
        create("relative", {"draw": "uniform"})
    with pytest.raises(UsageError, match="expected: no settings"):
        create("prune", {"draw": "sign"})


def test_a_process_adds_classes_of_its_own_under_free_names() -> None:
    things = Registry("reading", "wheeltap.no-such-group", {"heads": "wheeltap.engine.readings.heads:Heads"}, object)
    things.add("mine", "collections:Counter")
    things.add("mine", "collections:Counter")  # the same again, as when a module is read twice
    assert things.get("mine").__name__ == "Counter"
    assert list(things) == ["heads", "mine"]
    for taken in ("mine", "heads"):
        with pytest.raises(UsageError, match="declared twice"):
            things.add(taken, "collections:OrderedDict")
