"""What a model is besides its tensors: modules, code, hooks, settings, wrappers; and what of it is not as sealed."""

import base64
import contextlib
import inspect
import types
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final, cast, final

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wheeltap.core import anatomy, canon
from wheeltap.core.anatomy import (
    attributes,
    in_library,
    memory_of,
    module_parts,
    origins,
    same_code,
)
from wheeltap.core.bounded import parsing
from wheeltap.core.describe import COMPILER, SHAPE, Describer
from wheeltap.core.errors import FileFormatError, ModelError
from wheeltap.core.scripted import NUMBERED, scripts_in

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
        reader = Describer({id(inner): "inner"}, portable=True)
        items = {name: reader.read(name, value) for name, value in held.items() if name != "_modules"}
        items |= dict(reader.items())
        read.append({name: value for name, value in items.items() if not name.endswith(_COUNTED)})
    return read[0] == read[1]


_CODE: Final = "<code>"
_LIBRARY: Final = "library "
_OF_MODULES: Final = frozenset(
    {"_modules", "_parameters", "_buffers", "_compiled_call_impl", "_is_torch_compile", "__overloads__"}
)  # fmt: skip
"""What is read in another way, and what torch leaves in a module that it compiled or scripted."""

_OF_BUFFERS: Final = frozenset({"persistent", "_is_buffer"})
"""What torch notes in a buffer that is made by ``nn.Buffer``, and loses in a cast."""

_OF_PROGRAMS: Final = frozenset(
    {
        "_initializing", "_c", "_concrete_type", "_actual_script_module", "forward", "training", "train", "eval",
        "_graph", "_code", "_codegen", "_replace_hooks", "_create_node_hooks", "_erase_node_hooks", "_deepcopy_hooks",
    }
)  # fmt: skip
"""What a scripted or exported module holds beside the code that it runs, and that no pass reads."""

_KIND: Final = "kind of the model"
_MARK: Final = 4
"""Characters of the digests by which a difference is located: 16 bits. The digest of all of it decides."""

_TEXT: Final = 2**22
"""Bytes of the text that locates, at most."""

_PLAIN: Final = (Tensor, nn.Parameter, nn.Buffer)

Numbers = Tensor | np.ndarray[Any, Any]

Parts = dict[str, dict[str, str]]
"""Digests by owner (a module's path, or code) and name."""


@final
@dataclass(frozen=True)
class Structure:
    """What a model is besides its tensors.

    Attributes:
        parts: Digests of all that is no installed code.
        libraries: Digest of each installed file that a class of a module is from.
        unread: What could not be read, and why.
        program: Whether it is a program that torch made of a module: scripted, traced, or exported.
        shared: Names of what lies in one memory. More than was sealed is altered; casts and loading may leave less.
    """

    parts: Parts
    libraries: dict[str, str]
    unread: dict[str, str]
    program: bool
    shared: list[list[str]]

    def digest(self) -> str:
        """Of all parts: 128 bits."""
        rows = sorted([owner, name, one] for owner, held in self.parts.items() for name, one in held.items())
        return canon.key("structure", rows)

    def text(self) -> str:
        """Short marks of all parts, by which a difference is located: compressed, alike modules once."""
        kinds, rows = dict[tuple[tuple[str, str], ...], int](), list[tuple[str, int]]()
        for owner, held in self.parts.items():
            marks = tuple((name, one[:_MARK]) for name, one in held.items())
            rows.append((owner, kinds.setdefault(marks, len(kinds))))
        listed = (list(kinds), rows, self.libraries, _versions(self.libraries), self.shared)
        return base64.b64encode(zlib.compress(msgspec.json.encode(listed), 9)).decode()


_Listed = tuple[list[list[tuple[str, str]]], list[tuple[str, int]], dict[str, str], dict[str, str], list[list[str]]]


def structure(model: nn.Module) -> Structure:
    """Of a model, without wrappers that only call it; its tensors count by name and kind alone."""
    modules = dict(tree(model))
    names = {id(module): f"module {path}" for path, module in modules.items()}
    for path, module in modules.items():
        for name, part in _tensors(module):
            names.setdefault(id(part), f"tensor {path}.{name}")
    reader, places, parts = Describer(names, portable=True), dict[str, tuple[str, str]](), cast("Parts", {})
    program = isinstance(next(iter(modules.values())), torch.jit.ScriptModule | torch.fx.GraphModule)
    shared = list[list[str]]()
    for number, (path, module, script, saved) in enumerate(scripts_in(modules.items())):
        kind = reader.class_of(type(module))
        parts[path] = {f"class {type(module).__qualname__}": canon.key("class", kind)}
        parts[path] |= {_KIND: canon.key("kind", program)} if not path else {}
        if script is not None:
            parts[path]["code of the program"] = canon.key("code", script.code)
            shared += [[f"{path} {name}".strip() for name in several] for several in script.shared]
        parts[path] |= {
            "modules": canon.key(
                "modules", [[name, names[id(inside(one))]] for name, one in children(module, root=not path)]
            )
        }
        empty = [name for kind in _PARTS for name, part in vars(module).get(kind, {}).items() if part is None]
        parts[path] |= {"empty places": canon.key("empty", sorted(empty))} if empty else {}
        for name, part in _tensors(module):
            own, more = (
                "" if type(part) in _PLAIN else reader.class_of(type(part)),
                attributes(part).keys() - origins(part) - _OF_BUFFERS,
            )
            stated = sorted(one for one in more if not one.startswith(COMPILER))
            held = [[one, reader.read(f"{path}.{name}.{one}", attributes(part)[one])] for one in stated]
            parts[path][f"tensor {name}"] = canon.key("tensor", [own, held])
        parts[path] |= {
            f"{name or 'saved state'} (scripted)": canon.key("scripted", one) for name, one in (saved or {}).items()
        }
        for name, value in _settings(module):
            place = f"<{number}>.{name}"
            places[place] = (path, name)
            parts[path][name] = reader.read(place, value)
    items = {"hooks of all modules": reader.read("hooks of all modules", _hooks_of_all()), **dict(reader.items())}
    libraries = {name: one for name, one in items.items() if name.startswith(_LIBRARY)}
    _gather(parts, {name: one for name, one in items.items() if name not in libraries}, reader, places)
    shared += _sharing(modules, ((_where(at, places), held) for at, held in reader.numbers))
    return Structure(parts, libraries, {_where(at, places): why for at, why in reader.unread.items()}, program, shared)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for kind in ("_parameters", "_buffers"):
        yield from holding(module, kind)


def _sharing(modules: dict[str, nn.Module], others: Iterable[tuple[str, Numbers]]) -> list[list[str]]:
    """Names of tensors and arrays that lie in the memory of each other: code that writes to one changes them all."""
    spans, known = list[tuple[int, int, str]](), [
        (f"tensor {path}.{name}".replace(" .", " "), part) for path, module in modules.items()
        for name, part in _tensors(module)
    ]  # fmt: skip
    for name, held in (*known, *others):
        with contextlib.suppress(RuntimeError, NotImplementedError):  # of a kind that has no memory
            spans.append((*memory_of(held), name))
    found, end = list[list[str]](), 0
    for start, stop, name in sorted(one for one in spans if one[0] < one[1]):
        found += [[]] if start >= end else []
        found[-1].append(name)
        end = max(end, stop)
    return [sorted(names) for names in found if len(names) > 1]


def _settings(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Attributes of a module that its forward may read, hooks among them, and code that torch compiled."""
    program = isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule)
    for name, value in module_parts(module).items():
        own = not callable(value) or isinstance(
            value, type | torch.jit.ScriptModule | cast("Any", torch)._C.ScriptMethod
        )
        own = own or (isinstance(value, types.MethodType) and _from_file(value.__func__))
        passing = own and (name in _OF_PROGRAMS or (name.startswith("__") and callable(value)))  # methods of containers
        if name not in _OF_MODULES and not (program and passing):
            yield name, value
    for name in OTHER_HOOKS:
        if held := vars(module).get(name):
            yield name, list(held.values())
    if unsaved := sorted(
        vars(module).get("_non_persistent_buffers_set", set()) & dict(holding(module, "_buffers")).keys()
    ):
        yield "_non_persistent_buffers_set", unsaved
    call = vars(module).get("_compiled_call_impl")
    if call is not None and not compiled_call(module, call):
        yield "_compiled_call_impl", call
    if isinstance(module, torch.jit.ScriptModule):
        held = cast("Any", module)
        yield "training", held.training
        methods = [name for name in held._c._method_names() if not name.startswith("__")]
        for name in methods:
            code, constants = held._c._get_method(name).code_with_constants
            yield f"code of {name}", [NUMBERED.sub("", code), dict(constants)]


def _hooks_of_all() -> list[Any]:
    """Hooks that torch calls for every module, and what stands between functions of torch and their callers."""
    held = cast("Any", nn.modules.module)
    modes = cast("Any", torch.overrides)._get_current_function_mode_stack()
    under = cast("Any", torch.utils)._python_dispatch._get_current_dispatch_mode_stack()
    hooks = [list(several.values()) for several in (held._global_forward_pre_hooks, held._global_forward_hooks)]
    return [*hooks, list(modes), list(under)]


def _gather(parts: Parts, items: dict[str, str], reader: Describer, places: dict[str, tuple[str, str]]) -> None:
    """Puts what was read of objects to the attribute at which it was met, and all else to code."""
    inside = dict[str, list[tuple[str, str]]]()
    code = dict[str, str]()
    for key, one in items.items():
        place = _place(key, places)
        if place:
            at = reader.places.get(one, "")
            near = f"at {at.removeprefix(place)}" if at.startswith(place) else one  # alike in modules that are alike
            inside.setdefault(place, []).append((key.removeprefix(place), near))
        else:
            code[key] = one
    for place, (owner, name) in places.items():
        own, more = parts[owner][name], inside.get(place, [])
        at = reader.places.get(own, "")
        parts[owner][name] = canon.key("part", ["at" if at == place else own, sorted(more)])
    parts[_CODE] = code


def _place(key: str, places: dict[str, tuple[str, str]]) -> str:
    """The attribute at which an object was met."""
    if not key.startswith("<"):
        return ""
    ends = [at for at, sign in enumerate(key) if sign in " .[#"]
    return next((key[:at] for at in reversed([*ends, len(key)]) if key[:at] in places), "")


def _where(at: str, places: dict[str, tuple[str, str]]) -> str:
    place = _place(at, places)
    return _name(*places[place]) + at.removeprefix(place) if place else at


def _versions(libraries: dict[str, str]) -> dict[str, str]:
    """Versions of the packages that files are of."""
    tops = sorted({name.removeprefix(_LIBRARY).partition(".")[0] for name in libraries})
    known = metadata.packages_distributions()
    return {top: metadata.version(known[top][0]) for top in tops if top in known}


# ---- what differs -----------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Difference:
    """What of a model's structure is not as sealed: names, in words.

    Attributes:
        added: What was not sealed.
        missing: What was sealed and is not there.
        changed: What is another.
        libraries: Installed files that are others, with the versions of their packages.
        program: Whether the model is a program that torch made of a module, and none was sealed.
    """

    added: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    program: bool = False

    def words(self) -> str:
        """All but installed files, in sentences; empty where there is nothing."""
        said = (("Not sealed", self.added), ("Missing", self.missing), ("Not as sealed", self.changed))
        return " ".join(f"{what}: {listed(names)}." for what, names in said if names)


def difference(sealed: str, text: str, found: Structure) -> Difference:
    """What of a structure is not as sealed.

    Args:
        sealed: Digest of the structure that was sealed: it decides.
        text: What locates a difference.
        found: The structure at hand.

    Raises:
        FileFormatError: If the text is none that a seal has.
    """
    kinds, rows, libraries, versions, shared = _read(text)
    others = tuple(
        f"{name.removeprefix(_LIBRARY)} ({_change(name, versions)})"
        for name, one in found.libraries.items() if libraries.get(name, one) != one
    )  # fmt: skip
    before = [set(names) for names in shared]
    joined = tuple(
        f"{names[0]} and {names[1]} in one memory"
        for names in found.shared
        if not any(one >= {*names} for one in before)
    )
    if found.digest() == sealed:
        return Difference(added=joined, libraries=others)
    known, own = {owner: dict(kinds[at]) for owner, at in rows}, found.parts
    both = [owner for owner in own if owner in known]
    added, missing = _beside(own, known), _beside(known, own)
    passing = (_KIND, *(["modules"] if added or missing else []))
    changed = _names(
        (owner, name) for owner in both for name, one in own[owner].items()
        if name not in passing and one[:_MARK] != known[owner].get(name, one[:_MARK])
    )  # fmt: skip
    unknown = () if added or missing or changed else ("something that the seal keeps no name of",)
    another = _KIND not in known.get("", {}) or known[""][_KIND] != own[""][_KIND][:_MARK]
    return Difference((*added, *joined), missing, changed or unknown, others, found.program and another)


def _beside(one: Parts, two: Parts) -> tuple[str, ...]:
    """What the first has and the second has not; of a module, its path alone, and nothing of modules inside it."""
    modules = [owner for owner in one if owner not in two]
    tops = [name for name in modules if not any(name.startswith(f"{other}.") for other in modules if other)]
    held = ((owner, name) for owner in one if owner in two for name in one[owner] if name not in two[owner])
    return (*(f"module {name}" if name else "the model" for name in tops), *_names(held))


def _names(several: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_name(owner, name) for owner, name in several))


def listed(several: Sequence[str], most: int = 4) -> str:
    """The first of some names, and how many more there are."""
    more = len(several) - most
    return ", ".join(several[:most]) + (f" and {more} more" if more > 0 else "")


def _change(name: str, versions: dict[str, str]) -> str:
    top = name.removeprefix(_LIBRARY).partition(".")[0]
    now = _versions({name: ""}).get(top, "not installed")
    sealed = versions.get(top, "not sealed")
    return f"{top} {sealed}, other code" if now == sealed else f"{top} {sealed} was sealed, and this is {now}"


_WORDS: Final = {
    "_forward_hooks": "forward hooks", "_forward_pre_hooks": "forward pre-hooks", "modules": "order of modules",
}  # fmt: skip


def _name(owner: str, name: str) -> str:
    if owner == _CODE:
        return name.partition(" by default")[0].partition(" closing over")[0].removesuffix(SHAPE)
    what = _WORDS.get(name, name if " " in name else f"attribute {name}")
    return f"{what} of {f'module {owner}' if owner else 'the model'}"


def _read(text: str) -> _Listed:
    with parsing("seal", "The seal's description of the structure cannot be read.", expected="names and marks"):
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), _TEXT)
        listed = msgspec.json.decode(data, type=_Listed)
    if any(not 0 <= at < len(listed[0]) for _, at in listed[1]):
        raise FileFormatError("The seal's description of the structure does not fit itself.",
                              expected="a kind for each module", got="one that is not there")  # fmt: skip
    return listed
