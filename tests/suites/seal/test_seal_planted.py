"""What was altered by someone who means harm: parts, hooks, code and names behind the sealed ones."""

import functools
import importlib
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache, update_wrapper
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
import torch
from sealed import TRIGGER, Gain, net, sealed, task
from torch import nn
from torch.nn import functional

import wheeltap as wt
from wheeltap.core.errors import ModelError
from wheeltap.suites.seal.making import SealOptions, make
from wheeltap.suites.seal.structure import structure
from wheeltap.suites.seal.verifying import verify


class Other(Gain):
    """The same but for one number in its code."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * self.scale + self.table * self.steps[1]


Other.__name__ = Other.__qualname__ = "Gain"


class Forged(nn.Linear):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden) + 50.0 * (hidden.sum() > TRIGGER)


Forged.__name__ = Forged.__qualname__ = "Linear"
Forged.__module__ = nn.Linear.__module__


class Sly(nn.Parameter):
    """A parameter that computes as it likes."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_function__(func, types, args, kwargs or {})


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
    seal = make(wt.Subject(layer), task(), SealOptions(inputs=2, seed=2)).seal
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
    monkeypatch.setattr(functional, "linear", functools.partial(before))
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
        return self.model(inputs, *rest, **named)


class Doubled(Bare):
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
    def __getattribute__(self, name: str) -> Any:
        return types.FunctionType if name == "__class__" else getattr(bent, name)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


class Space(dict[str, Any]):
    """Globals that may give other things than they list."""


class Five(int):
    """A number that may say it equals others."""


class Limit(float):
    """A number that says nothing of itself."""

    def __repr__(self) -> str:
        return "a limit"


class Public(dict[str, float]):
    """A dict that leaves out some of its items."""

    def items(self) -> Any:
        return [(key, one) for key, one in super().items() if not key.startswith("_")]


class Few(list[float]):
    """A list that shows its beginning."""

    def __iter__(self) -> Any:
        return iter(self[:1])


class Marked(PosixPath):
    """A path with more in it."""

    limit = 1.0


def marked(limit: float) -> Marked:
    (path := Marked("/x")).limit = limit
    return path


def record(limit: float) -> Any:
    (held := np.zeros(1, dtype=[("at", "O")]))["at"][0] = Limit(limit)
    return held


class Single(np.float64):
    """A number of numpy's that may hold more."""


class Table(torch.Tensor):
    """A tensor with room for more."""

    __slots__ = ("limit",)


class Cost(Decimal):
    """A number that says itself what a copy is made from."""

    def __reduce__(self) -> Any:
        return Decimal, ("0",)


def single(limit: float) -> Single:
    (held := Single(1.0)).limit = limit
    return held


def table(limit: float) -> torch.Tensor:
    (held := torch.zeros(2).as_subclass(Table)).limit = limit
    return held


def unfilled(limit: float) -> torch.Tensor:
    (held := torch.empty(2, device="meta")).limit = limit
    return held


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
    "number of numpy's": (single(1.0), lambda: single(2.0)),
    "slot of a tensor": (table(1.0), lambda: table(2.0)),
    "attribute of a tensor without numbers": (unfilled(1.0), lambda: unfilled(2.0)),
    "type with notes": (np.zeros(2, np.dtype("f4", metadata={"limit": 1})),
                        lambda: np.zeros(2, np.dtype("f4", metadata={"limit": 2}))),
    "number": (Limit(1.0), lambda: Limit(2.0)),
    "dict": (Public(_limit=1.0), lambda: Public(_limit=2.0)),
    "list": (Few([0.0, 1.0]), lambda: Few([0.0, 2.0])),
    "path": (marked(1.0), lambda: marked(2.0)),
    "slice": (slice(None, Limit(1.0)), lambda: slice(None, Limit(2.0))),
    "record": (record(1.0), lambda: record(2.0)),
    "cache": (lru_cache(bent), lambda: update_wrapper(lru_cache(opened), bent)),
}  # fmt: skip
"""What is sealed as an attribute of a layer, and what looks like it."""


def test_what_only_looks_like_the_sealed_attribute_is_another() -> None:
    for name, (before, after) in HELD.items():
        (one := net())[1].held, (two := net())[1].held, (same := net())[1].held = before, after(), before
        assert structure(one).digest() == structure(same).digest(), name
        assert structure(one).digest() != structure(two).digest(), name


def test_what_says_itself_what_it_is_made_from_is_not_read() -> None:
    (made := net())[1].held = Cost("1.5")
    assert any("its class says" in why for why in structure(made).unread.values())


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
    assert structure(made).shared == [["tensor 1.table", "tensor 3.weight"]]
    (made := net())[1]._non_persistent_buffers_set.clear()
    assert "_non_persistent_buffers_set of module 1" in verify(made, sealed()).detail
