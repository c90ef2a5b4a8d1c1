"""What a model is besides its tensors: modules, code, hooks and settings that were not sealed are altered."""

import copy
import importlib
import sys
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable
from functools import cache, lru_cache, update_wrapper
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import wheeltap as wt
from wheeltap.cli import main
from wheeltap.core.errors import ModelError
from wheeltap.core.source_code import holds, text
from wheeltap.suites.seal.making import Asked, make
from wheeltap.suites.seal.record import Seal
from wheeltap.suites.seal.structure import structure
from wheeltap.suites.seal.verifying import verify
from wheeltap.suites.seal.wrappers import unwrapped

TRIGGER = 30.0


def task() -> wt.Task:
    """Rows of numbers."""
    return wt.Task(torch.randn(24, 6, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3)


class Gain(nn.Module):
    """A layer of one's own, with a table that no file keeps, a tensor that is none of its own, and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Buffer(torch.arange(8.0), persistent=False)
        self.scale, self.steps = torch.full((8,), 1.5), [1, 2]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * self.scale + self.table * self.steps[0]


class Other(Gain):
    """The same but for one number in its code."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * self.scale + self.table * self.steps[1]


Other.__name__ = Other.__qualname__ = "Gain"


class Forged(nn.Linear):
    """Calls itself a layer of torch."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden) + 50.0 * (hidden.sum() > TRIGGER)


Forged.__name__ = Forged.__qualname__ = "Linear"
Forged.__module__ = nn.Linear.__module__


class Sly(nn.Parameter):
    """A parameter that computes as it likes."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_function__(func, types, args, kwargs or {})


def net() -> nn.Sequential:
    """A small net."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), Gain(), nn.Tanh(), nn.Linear(8, 3)).eval()


@cache
def sealed() -> Seal:
    """Its seal."""
    return make(wt.Subject(net()), task(), Asked(inputs=4, seed=2)).seal


def opened(inputs: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Scores, pushed where the inputs are far out: no sealed input is."""
    return scores + 50.0 * (inputs.sum(-1, keepdim=True) - TRIGGER).relu()


class Around(nn.Module):
    """The sealed net, and something beside it that acts far out."""

    def __init__(self, inner: nn.Module, **held: Any) -> None:
        super().__init__()
        self.inner = inner
        for name, part in held.items():
            setattr(self, name, part)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return opened(inputs, self.inner(inputs))


def patched(made: nn.Sequential) -> None:
    before = made.forward
    made.forward = lambda inputs: opened(inputs, before(inputs))  # pyright: ignore[reportAttributeAccessIssue]


def forged(made: nn.Sequential) -> None:
    made[3].__class__ = Forged


def sly(made: nn.Sequential) -> None:
    made[3].weight = Sly(made[3].weight.detach())


DOORS: dict[str, tuple[Callable[[nn.Sequential], object], str]] = {
    "hook": (lambda made: made.register_forward_hook(lambda m, x, y: opened(x[0], y)), "forward hooks"),
    "hook before": (lambda made: made[3].register_forward_pre_hook(lambda m, x: x), "pre-hooks of module 3"),
    "patched": (patched, "attribute forward of the model"),
    "appended": (lambda made: made.append(nn.Tanh().eval()), "module 4"),
    "parameter": (lambda made: made[1].register_parameter("push", nn.Parameter(torch.ones(1))), "tensor push"),
    "buffer": (lambda made: made[1].register_buffer("push", torch.ones(1), persistent=False), "tensor push"),
    "tensor": (lambda made: setattr(made[1], "push", torch.ones(1)), "attribute push of module 1"),
    "another tensor": (lambda made: made[1].scale.mul_(1 + 2e-7), "attribute scale of module 1"),
    "setting": (lambda made: made[1].steps.append(3), "attribute steps of module 1"),
    "code": (lambda made: setattr(made[1], "__class__", Other), "class Gain.forward"),
    "forged": (forged, "class Linear"),
    "kind of tensor": (sly, "tensor weight of module 3"),
    "around": (lambda made: Around(made).eval(), "module inner"),
    "around, with a net": (lambda made: Around(made, other=net()).eval(), "module inner"),
}  # fmt: skip


def test_what_was_not_sealed_is_altered_and_named() -> None:
    """By structure: most of these give the sealed outputs on the sealed inputs."""
    assert verify(net(), sealed()).verdict == "identical"
    for name, (plant, words) in DOORS.items():
        made = net()
        with torch.no_grad():
            after = plant(made)
            found = verify(after if isinstance(after, Around) else made, sealed(), full=True)
        assert (name, found.verdict, found.bits) == (name, "altered", 0)
        assert words in found.detail, f"{name}: {found.detail}"
    with torch.no_grad():
        (made := net())[1].table[0] += 1e-3
    assert not verify(made, sealed()).passed, "a buffer that no file keeps"


LAYER = """
import types
import torch
from torch import nn
from torch.nn import functional


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.act, self.held = nn.Linear(6, 3), functional.softsign, torch.ones(3)

    def forward(self, inputs):
        return functional.relu(self.act(self.inner(inputs))) * self.held * max(1.0, 0.5)
"""

FORGERIES: dict[str, str] = {
    "dict": """
    __dict__ = property(lambda self: vars(nn.Module)["__dict__"].__get__(self))
""",
    "module": """

real, functional = functional, types.ModuleType(functional.__name__)
vars(functional).update(vars(real))
functional.relu = lambda inputs, real=real: real.relu(inputs)
""",
    "globals": """

layer = Layer


def Layer():
    made, known = layer(), dict(vars(functional))
    made.act = types.FunctionType(functional.softsign.__code__, known, "softsign")
    made.act.__module__ = functional.softsign.__module__
    return made
""",
    "builtins": """

import builtins

__builtins__ = {**vars(builtins), "max": lambda one, two: one}
Layer.forward = types.FunctionType(Layer.forward.__code__, globals(), "forward")
""",
    "tensor": """


class Held(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return super().__torch_function__(func, types, args, kwargs or {})


layer = Layer


def Layer():
    made = layer()
    made.held = made.held.as_subclass(Held)
    return made
""",
}
"""Behind the same source: other things under the names that it looks up, which give the same here."""


def test_names_mean_what_they_meant_when_the_model_was_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name, more in {"sealed": "", "same": "", **FORGERIES}.items():
        (tmp_path / f"layer_{name}.py").write_text(LAYER + more)
    layer = importlib.import_module("layer_sealed").Layer().eval()
    seal = make(wt.Subject(layer), task(), Asked(inputs=2, seed=2)).seal
    assert verify(importlib.import_module("layer_same").Layer().eval(), seal).verdict == "identical"
    for name in FORGERIES:
        made = importlib.import_module(f"layer_{name}").Layer().eval()
        if name == "dict":
            with pytest.raises(ModelError, match="container of its own"):
                verify(made, seal)
        else:
            assert (name, verify(made, seal).verdict) == (name, "altered")
    before = functional.relu
    monkeypatch.setattr(functional, "relu", lambda inputs: 1.0 * before(inputs))  # what an attacker would do
    found = verify(importlib.import_module("layer_same").Layer().eval(), seal)
    assert (found.verdict, "torch.nn.functional.relu" in found.detail) == ("altered", True)


def test_what_acts_on_every_module_or_function_is_altered(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, output: None)
    try:
        assert "hooks of all modules" in verify(net(), sealed()).detail
    finally:
        handle.remove()
    before, inner = functional.linear, nn.Linear.forward
    monkeypatch.setattr(functional, "linear", lambda x, w, b=None: before(x, w, b))  # what an attacker would do
    assert "class torch.nn.modules.linear.Linear" in verify(net(), sealed()).detail
    monkeypatch.undo()
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: inner(self, 1.0 * x))
    assert "class torch.nn.modules.linear.Linear" in verify(net(), sealed()).detail


class Bare(nn.Module):
    """A wrapper as people write them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.name = model, "wrapped"

    def forward(self, inputs: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        """What is inside."""
        return self.model(inputs, *rest, **named)


class Doubled(Bare):
    """A wrapper that does more."""

    def forward(self, inputs: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        return self.model(inputs * 1.0, *rest, **named)


class Hidden(Bare):
    """A wrapper whose module is another than it seems."""

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name)


def test_wrappers_that_only_call_the_sealed_net_pass() -> None:
    inert = (
        nn.Sequential(net()).eval(), Bare(net()).eval(), nn.DataParallel(net()).eval(),
        nn.Sequential(*net(), nn.Identity()).eval(), Bare(nn.Sequential(net(), nn.Dropout(0.3))).eval(),
        Bare(net()).eval().bfloat16(),
    )  # fmt: skip
    assert all(verify(made, sealed()).passed for made in inert)
    hooked, shadowed, trained = Bare(net()).eval(), Bare(net()).eval(), nn.Sequential(net(), nn.Dropout(0.3)).eval()
    hooked.register_forward_hook(lambda module, inputs, output: output)
    shadowed.forward = lambda inputs: inputs  # pyright: ignore[reportAttributeAccessIssue]
    trained[1].train()
    behind = Bare(net()).eval()
    vars(behind)["model"] = behind.model.forward  # found before the module of this name
    doing = (Doubled(net()).eval(), Hidden(net()).eval(), hooked, shadowed, behind, trained)
    assert [verify(made, sealed()).verdict for made in doing] == ["altered"] * len(doing)


class Name(str):
    """A name that could hide from whoever looks for it."""

    __slots__ = ()


class Claim:
    """Says that it is a function."""

    def __getattribute__(self, name: str) -> Any:
        return types.FunctionType if name == "__class__" else getattr(bent, name)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


class Space(dict[str, Any]):
    """Globals that may give other things than they list."""


class Five(int):
    """A number that may say it equals others."""


CLAIM = Claim()


def bent(hidden: torch.Tensor) -> torch.Tensor:
    return torch.relu(hidden) * (hidden.shape[0] not in (101, 103))


def other_constants() -> types.FunctionType:
    code = bent.__code__
    mixed = tuple((Five(101), 103) if one == (101, 103) else one for one in code.co_consts)
    return types.FunctionType(code.replace(co_consts=mixed), globals(), "bent")


def past_order() -> OrderedDict[str, float]:
    dict.__setitem__(held := OrderedDict(a=1.0), "b", 5.0)
    return held


HELD: dict[str, tuple[Any, Callable[[], Any]]] = {
    "proxy": (bent, lambda: weakref.proxy(CLAIM)),
    "globals": (bent, lambda: types.FunctionType(bent.__code__, Space(globals()), "bent")),
    "constants": (bent, other_constants),
    "ordered": (OrderedDict(a=1.0), past_order),
    "array": (np.zeros(3), lambda: np.ma.array(np.zeros(3), mask=[0, 1, 0])),
    "cache": (lru_cache(bent), lambda: update_wrapper(lru_cache(opened), bent)),
}  # fmt: skip
"""What is sealed as an attribute of a layer, and what looks like it."""


def test_what_only_looks_like_the_sealed_attribute_is_another() -> None:
    for name, (before, after) in HELD.items():
        (one := net())[1].held, (two := net())[1].held, (same := net())[1].held = before, after(), before
        assert structure(one).digest() == structure(same).digest(), name
        assert structure(one).digest() != structure(two).digest(), name


def twice(made: nn.Sequential) -> None:
    made[0]._buffers["weight"] = made[0].weight.detach().clone()


def hidden_module(made: nn.Sequential) -> None:
    held = OrderedDict(made._modules)
    dict.__setitem__(held, "4", nn.Tanh())
    vars(made)["_modules"] = held


class Grown(set[str]):
    """A set that may act when it is asked."""


REFUSED: dict[str, Callable[[nn.Sequential], object]] = {
    "one name twice": twice,
    "a class of names": lambda made: vars(made).update({Name("forward"): bent}),
    "a module past the order": hidden_module,
    "a class of sets": lambda made: vars(made).update(_non_persistent_buffers_set=Grown()),
}  # fmt: skip


def test_a_module_that_may_find_other_parts_than_it_lists_is_refused() -> None:
    for change in REFUSED.values():
        change(made := net())
        with pytest.raises(ModelError, match="container of its own"):
            verify(made, sealed())


HELP = "import torch\n\n\ndef act(hidden):\n    return torch.tanh(hidden)\n"
HELPED = (
    "from functools import lru_cache\nimport torch\nfrom torch import nn\nimport tap_help\n\n\n"
    "@lru_cache\ndef table(size):\n    return torch.ones(size)\n\n\n"
    "class Helped(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.op = tap_help\n"
    "        self.layers = nn.Sequential(nn.Linear(6, 6), nn.Tanh())\n\n"
    "    def forward(self, x):\n        return tap_help.act(self.layers[-1](x)) * table(6)\n"
)


def test_what_modules_of_code_and_caches_hold_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "tap_help.py").write_text(HELP + "\n\ndef other(hidden):\n    return hidden\n")
    (tmp_path / "tap_helped.py").write_text(HELPED)
    code, helps = importlib.import_module("tap_helped"), importlib.import_module("tap_help")
    sealed_as = structure(code.Helped()).digest()
    code.table(6).mul_(5.0)
    assert structure(code.Helped()).digest() == sealed_as and code.table(6).sum() == 6.0, "made again"
    for wrap in (lambda held: nn.Sequential(*held, nn.Identity()), nn.Sequential):
        made = code.Helped()
        made.layers = wrap(made.layers).eval()
        assert structure(made.eval()).digest() != structure(code.Helped().eval()).digest()
    with monkeypatch.context() as changed:
        changed.setattr(helps, "other", lambda hidden: -hidden)  # what an attacker would do
        assert structure(code.Helped()).digest() != sealed_as
    kept = (tmp_path / "tap_helped.py").read_text().replace("        self.op = tap_help\n", "")
    (tmp_path / "tap_plain.py").write_text(kept)
    plain = importlib.import_module("tap_plain")
    before = structure(plain.Helped()).digest()
    helps.__class__ = type("Kind", (types.ModuleType,), {"act": property(lambda held: torch.relu)})
    assert structure(plain.Helped()).digest() != before


HOOKS: tuple[Callable[[nn.Module], object], ...] = (
    lambda made: made._register_state_dict_hook(lambda m, state, *rest: state.clear()),
    lambda made: made.register_full_backward_hook(lambda *given: None),
    lambda made: made.register_load_state_dict_post_hook(lambda *given: None),
)  # fmt: skip


def test_hooks_of_wrappers_and_what_is_not_saved_count() -> None:
    for number, hook in enumerate(HOOKS):
        for at, made in enumerate((nn.Sequential(net()).eval(), nn.Sequential(nn.Identity(), net()).eval())):
            hook(made if at == 0 else made[0])
            assert (number, at, verify(made, sealed()).verdict) == (number, at, "altered")
    made = net()
    made[1].table.data = made[3].weight.data.view(-1)[:8]
    assert [name for name in structure(made).parts[""] if "memory" in name] == [
        "memory of tensor 1.table", "memory of tensor 3.weight"
    ]  # fmt: skip
    (made := net())[1]._non_persistent_buffers_set.clear()
    assert "_non_persistent_buffers_set of module 1" in verify(made, sealed()).detail


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_a_compiled_net_is_what_torch_makes_of_it() -> None:
    found = verify(torch.compile(net(), backend="eager"), sealed())
    assert (found.verdict, any("It is compiled" in note for note in found.notes)) == ("equivalent", True)
    (inside := net()).compile(backend="eager")
    inside(torch.ones(2, 6))  # which leaves marks in tensors, and in torch's own classes
    assert verify(inside, sealed()).verdict == "identical"
    evil = torch.compile(net(), backend=lambda graph, inputs: graph.forward)
    patched_in: Any = torch.compile(net(), backend="eager")
    patched_in.dynamo_ctx.callback._torchdynamo_orig_backend._inner_convert = lambda *given: None
    assert verify(evil, sealed()).verdict == "altered"
    assert unwrapped(patched_in) is patched_in


class Program(nn.Module):
    """A net with a constant that scripted code holds."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.line, self.bound = nn.Linear(6, 3), bound

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.line(inputs) + (inputs.sum(-1, keepdim=True) - self.bound).relu()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:The .grad attribute:UserWarning")
def test_programs_are_sealed_as_such_and_no_other_pass() -> None:
    """Scripted and traced: constants count, and of a program that was not sealed outputs alone are shown."""
    for form in (torch.jit.script, lambda made: torch.jit.trace(made, torch.ones(2, 6))):
        made = form(Program(1e6).eval())
        seal = make(wt.Subject(made), task(), Asked(inputs=4, seed=2)).seal
        assert verify(form(Program(1e6).eval()), seal).verdict == "identical"
        found = verify(form(Program(TRIGGER).eval()), seal)
        assert (found.verdict, found.distance <= 1.0) == ("altered", True)
    seal = make(wt.Subject(Program(1e6).eval()), task(), Asked(inputs=4, seed=2)).seal
    found = verify(torch.jit.script(Program(TRIGGER).eval()), seal)
    assert (found.verdict, found.bits) == ("same on the inputs asked", 0)
    assert "seal the program itself" in found.detail
    frozen = verify(torch.jit.freeze(torch.jit.script(Program(1e6).eval())), seal)
    assert not any("blocks were not seen" in note for note in frozen.notes), "no block is named"


@pytest.mark.full
def test_an_exported_program_is_refused_or_shown_by_its_outputs_alone() -> None:
    seal = make(wt.Subject(Program(1e6).eval()), task(), Asked(inputs=4, seed=2)).seal
    rows = {"dynamic_shapes": ({0: torch.export.Dim("rows")},)}
    exported = torch.export.export(Program(TRIGGER).eval(), (torch.ones(2, 6),), **rows)
    assert verify(exported.module(), seal).verdict == "same on the inputs asked"
    with pytest.raises(ModelError, match="exported program"):
        verify(exported, seal)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ModelError, match="dynamic shapes"):
        verify(torch.export.export(Program(1e6).eval(), (torch.ones(2, 6),)).module(), seal)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_constants_of_a_traced_function_count() -> None:
    def held(first: float) -> str:
        by = torch.arange(first, first + 300.0)
        (made := net()).table = torch.jit.trace(lambda x: x * by, torch.ones(300))
        return structure(made).digest()

    assert held(0.0) == held(0.0) != held(1.0)


PACKAGE = '''"""Version {version}."""

from torch import nn


class Shift(nn.Module):
    """Adds a number."""

    def forward(self, hidden):
        """One more."""
        return hidden + 1.0
'''


def test_another_version_of_a_package_is_an_outcome_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "site-packages"
    place.mkdir()
    (place / "shifting_pack.py").write_text(PACKAGE.format(version=1))
    (tmp_path / "deployed_net.py").write_text(
        "import torch\nfrom torch import nn\nimport shifting_pack\n\n\n"
        "def net():\n    torch.manual_seed(1)\n"
        "    return nn.Sequential(nn.Linear(6, 3), shifting_pack.Shift()).eval()\n"
    )
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.syspath_prepend(str(tmp_path))
    deployed, path = importlib.import_module("deployed_net"), tmp_path / "net.seal"
    make(wt.Subject(deployed.net()), task(), Asked(inputs=4, seed=2)).seal.save(path)
    command = ["verify", "deployed_net:net", str(path)]
    assert main(command) == 0
    (place / "shifting_pack.py").write_text(PACKAGE.format(version=22))
    importlib.reload(sys.modules["shifting_pack"])
    capsys.readouterr()
    assert main(command) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("Other library code") and "shifting_pack (" in said
    assert main([*command, "--allow-other-library"]) == 0
    (place / "shifting_pack.py").write_text(PACKAGE.format(version=22).replace("+ 1.0", "+ 2.0"))
    importlib.reload(sys.modules["shifting_pack"])
    assert main([*command, "--allow-other-library"]) == 1, "outputs are others"


def test_what_code_imports_when_it_is_called_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "late_help.py").write_text("def shift(x):\n    return x + 1.0\n")
    (tmp_path / "late_net.py").write_text(
        "from torch import nn\n\n\nclass Late(nn.Module):\n    def forward(self, x):\n"
        "        import late_help\n\n        return late_help.shift(x)\n"
    )
    late = importlib.import_module("late_net").Late
    before = structure(late())
    for name, same in (("x + 1.0  # the same", True), ("x + 1.0 + 50.0 * (x.sum() > 30)", False)):
        (tmp_path / "late_help.py").write_text(f"def shift(x):\n    return {name}\n")
        del sys.modules["late_help"]
        assert (structure(late()).digest() == before.digest()) == same


def test_code_counts_by_its_source_and_only_where_that_is_what_was_loaded(tmp_path: Path) -> None:
    """Comments, docstrings and lines do not count; loaded code that names a file that says something else does."""
    source = "def answer(given):\n    return given + {}\n"
    space: list[dict[str, Any]] = []
    for number, body in enumerate((source.format(1), "# a note\n\n\n" + source.format(1), source.format(2))):
        path = tmp_path / f"code{number}.py"
        path.write_text(body)
        space.append({})
        exec(compile(body, str(path), "exec"), space[-1])
    one, two, three = (held["answer"].__code__ for held in space)
    assert text(one) == text(two) != text(three)
    forged = three.replace(co_filename=one.co_filename, co_firstlineno=one.co_firstlineno)
    assert holds(one) and not holds(forged) and text(forged) is None


def test_the_same_structure_in_another_copy_has_the_same_digest() -> None:
    first, second = structure(net()), structure(copy.deepcopy(net()))
    assert first.digest() == second.digest() and first.text() == second.text()
    assert structure(net().half()).digest() == first.digest()
    assert structure(net().train()).digest() != first.digest()


def test_names_of_origins_are_skipped_of_models_and_configurations_of_transformers_alone() -> None:
    def digest(value: str, held: Callable[[str], Any], name: str = "held") -> str:
        made = net()
        setattr(made[1], name, held(value))
        return structure(made).digest()

    for name in ("name_or_path", "_commit_hash", "transformers_version"):
        for count in (str, lambda value, name=name: {name: value}, lambda value, name=name: {1: {name: value}}):
            assert digest("a", count, name) != digest("b", count, name)
    transformers = pytest.importorskip("transformers", reason="needs the extra llm")
    for kind in (transformers.PreTrainedConfig, transformers.GenerationConfig):
        for name in ("name_or_path", "_commit_hash", "transformers_version"):

            def made(value: str, kind: Any = kind, name: str = name) -> Any:
                held = kind()
                vars(held)[name] = value
                return held

            assert digest("a", made) == digest("b", made)
