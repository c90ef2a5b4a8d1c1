"""Wrappers that only call the module in them, shown by what they are made of; and the tree of modules without them."""

import inspect
import types
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from wheeltap.core import anatomy
from wheeltap.core.anatomy import in_library, module_parts, same_code
from wheeltap.core.describe import Reader
from wheeltap.core.errors import ModelError

_CHILD: Final[dict[type, str]] = {nn.DataParallel: "module", DistributedDataParallel: "module"}
"""Wrappers of torch, and under which name they hold what they call."""

_INERT: Final = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
"""Modules that give what they get in eval mode."""

_OF_CLASSES: Final = frozenset(
    {
        "__module__", "__qualname__", "__doc__", "__init__", "forward", "__annotations__", "__dict__", "__weakref__",
        "__firstlineno__", "__static_attributes__", "__annotate__", "__annotate_func__", "__annotations_cache__",
    }
)  # fmt: skip
"""What the class of a wrapper may hold."""


def tree(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module once, with its path, in order; without wrappers of the model, and what is inert in its sequence."""
    seen = set[int]()
    waiting = [("", model)]
    while waiting:
        path, held = waiting.pop()
        module = inside(held) if path else unwrapped(held)
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield path, module
        waiting += [
            (f"{path}.{name}" if path else name, child) for name, child in reversed(children(module, root=not path))
        ]


def children(module: nn.Module, *, root: bool) -> list[tuple[str, nn.Module]]:
    """Names and modules that a module holds, in order, without what is inert in a sequence that is the whole model.

    Code of a model may take modules from a sequence inside it by their number.
    """
    drops = root and type(module) is nn.Sequential
    return [(name, child) for name, child in holding(module, "_modules") if not (drops and _inert(child))]


def inside(module: nn.Module) -> nn.Module:
    """The module of which ``torch.compile`` made this one, or the module itself."""
    while (inner := compiled(module)) is not None:
        module = inner
    return module


def holding(module: nn.Module, kind: str) -> list[tuple[str, Any]]:
    """Names and what stands under them in a module: ``_modules``, ``_parameters`` or ``_buffers``.

    Raises:
        ModelError: If the module keeps attributes in something else than torch does, which may say one thing and do
            another.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return [(name, part) for name, part in getattr(module, kind).items() if part is not None]
    own = vars(module)
    odd = [name for name in _TORCHS if type(own.get(name, {})) not in (dict, OrderedDict)]
    kinds = [vars(base)["__dict__"] for base in type(module).__mro__ if "__dict__" in vars(base)]
    odd += ["__dict__"] if any(type(kind) is not types.GetSetDescriptorType for kind in kinds) else []
    odd = odd or ([] if type(own) is dict else [type(own).__qualname__]) or _hiding(own)
    if odd:
        raise ModelError("A module keeps its parts in a container of its own.", where=type(module).__qualname__,
                         expected="the dict that torch makes", got=", ".join(odd[:3]),
                         do="Put its parts into a module that torch made.")  # fmt: skip
    return [(name, part) for name, part in own[kind].items() if part is not None]


def _hiding(own: dict[str, Any]) -> list[str]:
    """Dicts of a module in which a look-up may find something else than a list of their items shows, and names."""
    odd = [name for name in _TORCHS if list(own.get(name, ())) != [*dict[Any, Any].keys(own.get(name, {}))]]
    keys = [key for several in (own, *(own.get(name, {}) for name in _TORCHS)) for key in several]
    odd += [f"a name of the class {type(key).__qualname__}" for key in keys if type(key) not in (str, int)]
    odd += ["_non_persistent_buffers_set"] if type(own.get("_non_persistent_buffers_set", set())) is not set else []
    names = [] if odd else [name for kind in _PARTS for name in own.get(kind, {})]
    return odd + [f"{name} twice" for name in sorted({name for name in names if names.count(name) > 1})]


_PARTS: Final = ("_parameters", "_buffers", "_modules")


_TORCHS: Final = sorted(name for name, value in vars(nn.Module()).items() if isinstance(value, dict))
"""What torch keeps of a module in dicts: its parts and hooks."""


def _inert(module: nn.Module) -> bool:
    if type(module) not in _INERT or module.training or holding(module, "_modules"):
        return False
    return _bare(module) and _from_file(cast("Any", type(module)).forward)


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside all wrappers that only call it."""
    while (inner := _inside(module)) is not None:
        module = inner
    return module


def _inside(module: nn.Module) -> nn.Module | None:
    """What a wrapper calls; ``None`` of a module that is none."""
    if isinstance(module, torch.jit.ScriptModule):
        return None
    if (inner := compiled(module)) is not None:
        return inner
    held = children(module, root=True)
    if len(held) != 1 or not _bare(module):
        return None
    (name, child), kind = held[0], type(module)
    if kind is nn.Sequential or _CHILD.get(kind) == name:
        return child if _from_file(cast("Any", kind).forward) else None
    return child if len(holding(module, "_modules")) == 1 and _only_forwards(kind, name) else None


def _from_file(function: object) -> bool:
    code = getattr(function, "__code__", None)
    return isinstance(code, types.CodeType) and in_library(code.co_filename) and anatomy.holds(code)


def _bare(module: nn.Module) -> bool:
    """Whether it has no tensors and hooks, and no attribute stands in the place of one of its methods."""
    parts = module_parts(module)
    hooks = any(parts[name] for name in ("_forward_hooks", "_forward_pre_hooks"))
    hooks = hooks or any(vars(module).get(name) for name in OTHER_HOOKS)
    own = bool(holding(module, "_parameters") or holding(module, "_buffers"))
    names = {name for name, _ in holding(module, "_modules")}  # an attribute of this name is found before the module
    hidden = any(name in names or callable(inspect.getattr_static(type(module), name, None)) for name in vars(module))
    return not (hooks or own or hidden) and vars(module).get("_compiled_call_impl") is None


OTHER_HOOKS: Final = tuple(f"_{kind}_hooks" for kind in ("state_dict", "state_dict_pre", "load_state_dict_pre",
                           "load_state_dict_post", "backward", "backward_pre"))  # fmt: skip
"""Hooks of saving, loading and training: what is saved of the model may be another."""


def _only_forwards(kind: type[nn.Module], name: str) -> bool:
    """Whether a class has nothing but a forward that gives its arguments to the module ``name``, and what that gives.

    Its code is compared with that of such a function, compiled here.
    """
    forward = vars(kind).get("forward")
    plain = kind.__bases__ == (nn.Module,) and type(kind) is type and vars(kind).keys() <= _OF_CLASSES
    if not plain or type(forward) is not types.FunctionType or not name.isidentifier():
        return False
    if forward.__defaults__ or forward.__kwdefaults__ or forward.__closure__:
        return False
    own, *given = inspect.signature(forward).parameters.values()
    star = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    written = [f"{star.get(one.kind, '')}{one.name}" for one in given]
    named = [text if one.kind in star else f"{one.name}={one.name}" for one, text in zip(given, written, strict=True)]
    bare = [inspect.Parameter(one.name, one.kind) for one in (own, *given)]
    for call in ([*written[:at], *named[at:]] for at in range(len(given) + 1)):
        space: dict[str, Any] = {}
        exec(f"def forward{inspect.Signature(bare)}:\n return {own.name}.{name}({', '.join(call)})", space)  # noqa: S102 - names alone, checked above
        if same_code(space["forward"].__code__, forward.__code__, first=1):
            return True
    return False


# ---- compiled ---------------------------------------------------------------------------------------------------


def compiled(module: nn.Module) -> nn.Module | None:
    """What ``torch.compile`` was given, if this is what it makes of that with a backend of torch's; else ``None``."""
    if f"{type(module).__module__}.{type(module).__qualname__}" != "torch._dynamo.eval_frame.OptimizedModule":
        return None
    held = dict(holding(module, "_modules"))
    if [*held] != ["_orig_mod"]:
        return None
    inner: nn.Module = held["_orig_mod"]
    again = cast("nn.Module | None", _again(vars(module).get("dynamo_ctx"), inner))
    return inner if again is not None and _alike(vars(module), vars(again), inner) else None


def compiled_call(module: nn.Module, call: Any) -> bool:
    """Whether the call of a module is what ``module.compile()`` makes of it with a backend of torch's."""
    cells = [one.cell_contents for one in getattr(call, "__closure__", None) or ()]
    contexts = [one for one in cells if type(one).__qualname__ == "OptimizeContext"]
    again = _again(contexts[0], cast("Any", module)._call_impl) if len(contexts) == 1 else None
    return again is not None and _alike({"call": call}, {"call": again}, module)


def _again(context: Any, given: Any) -> Any:
    """What torch makes of a module or function with the backend and settings of a context; ``None`` for others."""
    backend = getattr(context, "callback", None)
    while (under := getattr(backend, "_torchdynamo_orig_backend", None)) is not None:
        backend = under
    kind, options = type(backend).__name__, vars(backend) if hasattr(backend, "__dict__") else {}
    if kind == "_TorchCompileWrapper" and type(backend).__module__ == "torch":
        function = options.get("compiler_fn")
        plain = not options.get("kwargs") and _from_file(function) and str(function.__module__).startswith("torch.")
    else:
        plain = kind == "_TorchCompileInductorWrapper" and type(backend).__module__ == "torch"
        plain = plain and all(isinstance(one, bool | int | float | str | None) for one in options["config"].values())
    if not plain:
        return None
    dynamo = cast("Any", torch)._dynamo
    made = dynamo.optimize(
        backend, nopython=context.fullgraph, dynamic=context._dynamic, disable=False
    )  # as torch.compile does
    return made(given)


_COUNTED: Final = ("_torchdynamo_wrapper_id", "_box.error_on_graph_break", "_isolate_recompiles_id")
"""What differs between two compiled modules that are made alike, and after a call."""


def _alike(one: dict[str, Any], two: dict[str, Any], inner: nn.Module) -> bool:
    read = list[dict[str, str]]()
    for held in (one, two):
        reader = Reader({id(inner): "inner"}, portable=True)
        items = {name: reader.read(name, value) for name, value in held.items() if name != "_modules"}
        items |= dict(reader.items())
        read.append({name: value for name, value in items.items() if not name.endswith(_COUNTED)})
    return read[0] == read[1]
