"""Structure of a live module: classes, configuration, source and hooks that were not sealed are altered."""

import copy
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sealed import Gain, net, sealed, task
from torch import nn

import wheeltap as wt
from wheeltap.cli import main
from wheeltap.core.errors import FileFormatError, ModelError
from wheeltap.suites.seal.making import SealOptions, make
from wheeltap.suites.seal.structure import difference, sealed_structure, structure
from wheeltap.suites.seal.verifying import verify


class Other(Gain):
    """Another class."""


class Linear(nn.Linear):
    """A class of the same name, of the user's."""


def patched(made: nn.Sequential) -> None:
    before = made.forward
    made.forward = lambda inputs: before(inputs) * 1.0  # pyright: ignore[reportAttributeAccessIssue]


ACCIDENTS: dict[str, tuple[Callable[[nn.Sequential], object], str]] = {
    "hook": (lambda made: made.register_forward_hook(lambda m, x, y: y), "forward hooks of the model"),
    "patched": (patched, "attribute forward of the model"),
    "appended": (lambda made: made.append(nn.Tanh().eval()), "module 4"),
    "buffer": (lambda made: made[1].register_buffer("push", torch.ones(1), persistent=False), "tensor 1.push"),
    "another tensor": (lambda made: made[1].scale.mul_(1 + 2e-7), "attribute scale of module 1"),
    "setting": (lambda made: made[1].steps.append(3), "attribute steps of module 1"),
    "class": (lambda made: setattr(made[1], "__class__", Other), "class of module 1"),
    "class of the same name": (lambda made: setattr(made[3], "__class__", Linear), "class of module 3"),
    "training": (lambda made: made[2].train(), "attribute training of module 2"),
}


def test_each_accident_is_altered_and_named() -> None:
    """Most of these give the sealed outputs on the sealed inputs."""
    assert verify(net(), sealed()).verdict == "identical"
    for name, (change, words) in ACCIDENTS.items():
        made = net()
        with torch.no_grad():
            change(made)
            found = verify(made, sealed())
        assert (name, found.verdict, found.bits) == (name, "altered", 0)
        assert words in found.detail, f"{name}: {found.detail}"
    with torch.no_grad():
        (made := net())[1].table[0] += 1e-3
    assert verify(made, sealed()).verdict == "altered", "a buffer that no file keeps"


def test_a_method_that_was_replaced_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a user's class it is altered; of an installed one it is other library code, as long as outputs agree."""
    own, linear = Gain.forward, nn.Linear.forward
    monkeypatch.setattr(Gain, "forward", lambda self, hidden: own(self, hidden) * 1.0)  # a patch left behind
    assert verify(net(), sealed()).verdict == "altered"
    monkeypatch.undo()
    monkeypatch.setattr(nn.Linear, "forward", lambda self, inputs: linear(self, inputs) * 1.0)
    assert verify(net(), sealed()).verdict == "other library code"


LAYER = '''"""A module."""
from torch import nn


class Layer(nn.Linear):
    """A layer."""

    bound = 1.0

    @property
    def shift(self):
        return 0.0

    def forward(self, inputs):
        return super().forward(inputs).clamp(-50.0, 50.0) + self.shift


def net():
    return Layer(6, 3).eval()
'''

SOURCES: dict[str, tuple[str, str, bool]] = {
    "comment": ("        return super()", "        # a note\n        return super()", True),
    "docstring": ('"""A layer."""', '"""The same layer."""', True),
    "code": ("clamp(-50.0, 50.0)", "clamp(-50.0, 49.0)", False),
    "property": ("return 0.0", "return 0.0 * self.bound", False),
    "attribute of the class": ("bound = 1.0", "bound = 2.0", False),
}


def test_the_source_of_a_users_class_counts_without_comments_and_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)

    def loaded(name: str, text: str) -> nn.Module:
        (tmp_path / f"layer_{name}.py").write_text(text)
        torch.manual_seed(0)
        return importlib.import_module(f"layer_{name}").net()

    seal = make(wt.Subject(loaded("sealed", LAYER)), task(), SealOptions(inputs=2, seed=2)).seal
    for number, (name, (old, new, same)) in enumerate(SOURCES.items()):
        found = verify(loaded(str(number), LAYER.replace(old, new)), seal)
        assert (name, found.verdict) == (name, "identical" if same else "altered")


def test_a_class_without_source_is_the_same_on_the_inputs_at_most() -> None:
    space: dict[str, Any] = {"nn": nn}  # as at a prompt
    exec("class Typed(nn.Linear):\n    def forward(self, inputs):\n        return super().forward(inputs)", space)
    model = space["Typed"](6, 3).eval()
    made = make(wt.Subject(model), task(), SealOptions(inputs=2, seed=2))
    assert len(made.notes) == 1
    found = verify(model, made.seal)
    assert (found.verdict, found.bits) == ("same on the inputs asked", 0)


class Bare(nn.Module):
    """A wrapper of the user's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.model(inputs)


@pytest.mark.release
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_a_compiled_net_passes() -> None:
    inside = net()
    inside.compile(backend="eager")
    for made in (torch.compile(net(), backend="eager"), inside):
        assert verify(made, sealed()).passed  # pyright: ignore[reportArgumentType]


def test_wrappers_of_torch_that_only_call_the_sealed_net_pass() -> None:
    for made in (
        nn.Sequential(net()).eval(), nn.DataParallel(net()).eval(), nn.DataParallel(nn.Sequential(net())).eval(),
        nn.Sequential(net().bfloat16()).eval(),
    ):  # fmt: skip
        assert verify(made, sealed()).passed
    (hooked := nn.Sequential(net()).eval()).register_forward_hook(lambda module, inputs, output: output)
    for made in (hooked, Bare(net()).eval(), nn.Sequential(net(), nn.Identity()).eval()):
        assert not verify(made, sealed()).passed


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:The .grad attribute:UserWarning")
def test_programs_are_refused() -> None:
    exported = torch.export.export(net(), (torch.ones(2, 6),)).module()
    for made in (torch.jit.trace(net(), torch.ones(2, 6)), torch.fx.symbolic_trace(net()), exported):
        with pytest.raises(ModelError):
            verify(made, sealed())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ModelError):
        make(wt.Subject(torch.jit.trace(net(), torch.ones(2, 6))), task(), SealOptions(inputs=2))  # pyright: ignore[reportArgumentType]


def test_the_order_of_modules_counts() -> None:
    torch.manual_seed(0)
    parts = {"first": nn.Linear(6, 6), "second": nn.Linear(6, 6)}
    one, two = (structure(nn.ModuleDict({name: parts[name] for name in names})) for names in (parts, reversed(parts)))
    assert difference(one, two).words and not difference(one, one).words


PACKAGE = "from torch import nn\n\n\nclass Shift(nn.Module):\n    def forward(self, x):\n        return x + {shift}\n"


def test_another_version_of_a_package_is_an_outcome_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place := tmp_path / "site-packages").mkdir()
    (place / "shifting_pack.py").write_text(PACKAGE.format(shift="1.0"))
    (tmp_path / "deployed_net.py").write_text(
        "import torch\nfrom torch import nn\nimport shifting_pack\n\n\n"
        "def net():\n    torch.manual_seed(1)\n"
        "    return nn.Sequential(nn.Linear(6, 3), shifting_pack.Shift()).eval()\n"
    )
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.syspath_prepend(str(tmp_path))
    deployed, path = importlib.import_module("deployed_net"), tmp_path / "net.seal"
    make(wt.Subject(deployed.net()), task(), SealOptions(inputs=4, seed=2)).seal.save(path)
    command = ["verify", "deployed_net:net", str(path)]
    assert main(command) == 0
    for shift, code in (("1.0 * 1", 0), ("22.0", 1)):
        (place / "shifting_pack.py").write_text(PACKAGE.format(shift=shift))
        importlib.reload(sys.modules["shifting_pack"])
        assert main(command) == 1
        assert main([*command, "--allow-other-library"]) == code, "outputs decide whether it can be allowed"
    monkeypatch.delitem(sys.modules, "shifting_pack")


def test_a_structure_reads_back_and_is_the_same_of_a_copy_and_of_a_cast() -> None:
    first = structure(net())
    assert sealed_structure(first.text()) == first
    assert structure(copy.deepcopy(net()).half()) == first
    for text in ("", "eJw=", first.text()[:-8], "e" * 40):
        with pytest.raises(FileFormatError):
            sealed_structure(text)


def test_where_a_configuration_was_loaded_from_does_not_count() -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra llm")

    def difference_of(**settings: object) -> str:
        made = [net(), net()]
        for model, more in zip(made, ({}, settings), strict=True):
            model.config = transformers.LlamaConfig(**more)
        return difference(*map(structure, made)).words

    assert not difference_of(name_or_path="b", dtype="bfloat16")
    assert difference_of(rope_theta=500.0)
