"""Digests of Python objects: everything that may decide what a model computes, besides its own weights.

An object is read as what it consists of: numbers, texts, containers, tensors, attributes, the code of functions with
what they close over, and the globals that the user's own code loads. What may change in part (a dict, an instance, what
a function closes over) is described part by part, so that a counter that each call raises hides nothing beside it. What
cannot be read is listed, never skipped in silence: the guard over clean scores stands in for it.
"""

import builtins
import contextlib
import copyreg
import functools
import gc
import importlib
import logging
import sys
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path, PosixPath, PurePath, WindowsPath
from typing import Any, NamedTuple, cast, final

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core import anatomy, canon
from wheeltap.core.anatomy import (
    CACHE,
    CALLED,
    at_home,
    attributes,
    called_by,
    content,
    dense_parts,
    elements,
    globals_of,
    holds_more,
    imported,
    in_installed_module,
    in_library,
    installed,
    is_own,
    is_patch,
    may_be_added,
    module_parts,
    of_library,
    origins,
    pairs_of,
    tensor_parts,
    text_of,
)
from wheeltap.core.scripted import function_parts

MOST_PARTS = 200_000
"""Objects read of one model, besides its tensors' numbers: what lies beyond is listed as unread."""

_SKIPPED_OF_CLASSES = frozenset(
    {
        "__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__abstractmethods__", "_abc_impl",
        "__firstlineno__", "__slotnames__", "__static_attributes__", "__parameters__", "__orig_bases__", "__slots__",
        "__annotate__", "__annotate_func__", "__annotations_cache__",
    }
)  # fmt: skip


def _skipped(name: str, held: object) -> bool:
    """Whether an attribute of a class says nothing of what its instances do."""
    return name in _SKIPPED_OF_CLASSES and (name != "__dict__" or type(held) is types.GetSetDescriptorType)


_VALUES = (
    Tensor, np.ndarray, np.generic, Enum, weakref.ref, torch.Generator, property, staticmethod, classmethod,
)  # fmt: skip
"""Kinds that are read by what they are; a class of the user's may have attributes beside that."""

_NAMED = (torch.dtype, torch.device, torch.layout, torch.memory_format, range, slice)
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))

_SINGLE = 4
"""Bytes of a number in single precision."""

COMPILER = "_dynamo_"
"""How the names of what torch.compile leaves in tensors begin."""

_LEAST = 8
"""Numbers below which nothing is kept in mind as a possible weight."""


class HeldNumber(NamedTuple):
    """Numbers that a model holds besides its parameters and buffers.

    Attributes:
        size: How many; of bytes, as many as there are in single precision.
        at: The tensor or array; ``None`` where it is neither.
    """

    size: int
    at: "weakref.ref[Any] | None"


@final
class Describer:
    """Reads objects into digests; classes and globals met on the way become items of their own.

    Args:
        names: Of tensors and modules that are described elsewhere, by ``id``: here only their name counts.
        portable: Whether digests hold on other machines and against forged names: code counts by its source, own
            classes by their names alone, installed ones by their files; kinds of floating-point numbers and devices
            are all the same.

    Attributes:
        unread: Where something stands that could not be read, and what it is.
        held: Numbers that may be weights, by where they stand.
        numbers: Tensors and arrays that were read, each with where it stands.
        places: Where an object is read whose digest is its place.
    """

    def __init__(self, names: Mapping[int, str], *, portable: bool = False) -> None:
        self.unread: dict[str, str] = {}
        self.held: dict[str, HeldNumber] = {}
        self.numbers: list[tuple[str, Tensor | np.ndarray[Any, Any]]] = []
        self.places: dict[str, str] = {}
        self._portable = portable
        self._names = names
        self._known: dict[int, str] = {}
        self._alive: list[object] = []  # so that no id is used again
        self._open: dict[int, int] = {}
        self._classes: dict[int, str] = {}
        self._globals: dict[str, str] = {}
        self._waiting: deque[tuple[str, Callable[[], str]]] = deque()
        self._inside: set[str] = set()
        self._from_files: dict[types.FunctionType, Any] = {}
        self._place: list[str] = []
        self._items: dict[str, str] = {}
        self._parts = 0

    def read(self, where: str, value: Any) -> str:
        """Digest of ``value``; ``where`` names it among what could not be read."""
        self._place = [where]
        return self._digest(value)

    def items(self) -> Iterator[tuple[str, str]]:
        """Name and digest of every class, global and part met so far, and of those that these lead to."""
        while self._waiting:
            name, read = self._waiting.popleft()
            self._place = [name]
            yield name, read()
        yield from self._items.items()

    def class_of(self, kind: type) -> str:
        """Name of the class, whose code becomes an item."""
        if id(kind) in self._classes:
            return self._classes[id(kind)]
        module = "" if self._portable and is_own(kind) else f"{kind.__module__}."
        name = f"class {module}{kind.__qualname__}"
        taken = sum(known == name or known.startswith(f"{name} #") for known in self._classes.values())
        name = f"{name} #{taken}" if taken else name
        self._classes[id(kind)] = name
        self._alive.append(kind)
        self._waiting.append((name, lambda: self._class(kind)))
        return name

    # ---- values -----------------------------------------------------------------------------------------------

    def _digest(self, value: Any) -> str:
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:
            if isinstance(value, bytes):
                self._hold(len(value) // _SINGLE)
            return _digested(type(value).__name__, repr(value))
        held = id(value)
        if held in self._names:
            return _digested("named", self._names[held])
        if held in self._known:
            if issubclass(cast("type[Any]", type(value)), Tensor | np.ndarray):
                self.numbers.append(("".join(self._place), cast("Any", value)))
            return self._known[held]
        if held in self._open:
            return _digested("within", len(self._open) - self._open[held])
        if self._parts >= MOST_PARTS:
            return self._unreadable(value, "too much to read")
        self._parts += 1
        self._open[held] = len(self._open)
        self._alive.append(value)
        try:
            found, kind = self._of_kind(value), cast("type[Any]", type(value))
            if self._portable and is_own(kind):
                more = attributes(value) if issubclass(kind, _VALUES) else {}
                of_loading = {*origins(cast("object", value)), *(name for name in more if name.startswith(COMPILER))}
                held_more = self._pairs({name: one for name, one in more.items() if name not in of_loading})
                found = _digested(
                    "of", self.class_of(cast("type[Any]", kind)), found, *([held_more] if held_more else [])
                )
        except Exception as error:  # whatever the object's own code raises, and what is nested too deeply
            found = self._unreadable(value, f"{type(error).__name__}: {error}"[:100])
        finally:
            del self._open[held]
        self._known[held] = found
        return found

    def _unreadable(self, value: object, why: str) -> str:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        self.unread.setdefault("".join(self._place), f"{kind}: {why}")
        return _digested("unread", kind)

    def _of_kind(self, value: Any) -> str:
        kind = cast("type[Any]", type(value))  # what an object says of its class may be false
        if issubclass(kind, weakref.ProxyTypes):
            return self._unreadable(value, "a proxy, which may be anything")
        if issubclass(kind, Tensor):
            return self._tensor(value)
        if issubclass(kind, np.ndarray | np.generic):
            array = cast("np.ndarray[Any, np.dtype[Any]]", np.asarray(value))
            self._hold(array.size, cast("object", value))
            self.numbers.append(("".join(self._place), array))
            held = self._each(array.ravel().tolist()) if array.dtype.hasobject else array.tobytes()
            plain = kind is np.ndarray or issubclass(kind, np.generic)
            more = [] if plain else [self.class_of(cast("type[object]", kind)), self._pairs(attributes(value))]
            more += [] if array.dtype.metadata is None else [self._digest(dict(array.dtype.metadata))]
            return _digested("array", str(array.dtype), list(array.shape), held, *more)
        if self._portable and (
            issubclass(kind, torch.device) or (issubclass(kind, torch.dtype) and value.is_floating_point)
        ):
            return _digested(type(value).__name__)
        if issubclass(kind, _NAMED) or kind in (PosixPath, WindowsPath):
            ends = (value.start, value.stop, value.step) if issubclass(kind, range | slice) else ()
            plain = all(type(one) in (int, type(None)) for one in ends)
            return _digested(kind.__name__, *([str(value)] if plain else self._each(ends)))
        if issubclass(kind, torch.Generator):
            return _digested("generator", *tensor_parts(torch.Generator.get_state(value)))
        if issubclass(kind, Enum):
            more = [self._digest(value.value)] if self._portable else []
            return _digested("enum", self.class_of(type(cast("object", value))), value.name, *more)
        if issubclass(kind, type):
            return _digested("class", self.class_of(value))
        if issubclass(kind, types.ModuleType):
            forged = self._portable and kind is types.ModuleType and not imported(value)
            own = self._portable and (not installed(value.__name__, value) or not imported(value))
            more = ["not imported"] * forged + (self._inside_of(value) if own else [])
            return _digested("module", value.__name__, *more)
        if issubclass(kind, logging.Logger):
            return _digested("logger", value.name)
        if issubclass(kind, weakref.ref):
            return _digested("reference", self._digest(cast("weakref.ref[Any]", value)()))
        if issubclass(kind, nn.Module):
            return _digested("module", self.class_of(type(cast("object", value))), self._pairs(module_parts(value)))
        called = self._callable(value)
        return self._object(value) if called is None else called

    def _inside_of(self, module: types.ModuleType) -> list[Any]:
        """All of a module of the user's that an object holds: code may read any of it."""
        held = [(name, one) for name, one in sorted(vars(module).items()) if not name.startswith("__")]
        parts: list[Any] = [self.class_of(type(module))]
        for name, one in held:
            inner = issubclass(type(one), types.ModuleType)
            parts.append([name, self._digest(one) if inner else self._global(f"{module.__name__}.{name}", one)])
        return parts

    def _each(self, values: Any) -> list[str]:
        return [self._digest(value) for value in values]

    def _pairs(self, values: Mapping[Any, Any]) -> list[list[str]]:
        """Keys and values, in order: a forward may go through them in that order."""
        return [[self._digest(key), self._digest(held)] for key, held in values.items()]

    def _spread(self, kind: list[Any], parts: Iterable[tuple[str, Any]]) -> str:
        """Makes each part an item of its own, named by where it was first met; gives that place.

        Args:
            kind: What does not change.
            parts: How each part is reached from here, and what it is; in order.
        """
        first = place = "".join(self._place)
        while f"{place}{SHAPE}" in self._items:  # several that are reached alike: arguments of a partial, say
            place = f"{first} #{len(self._items)}"
        self._items[f"{place}{SHAPE}"] = ""
        outer, reached = self._place, list[str]()
        for step, held in parts:
            reached.append(step)
            self._place = [place, step]
            self._items[f"{place}{step}"] = self._digest(held)
        self._place = outer
        self._items[f"{place}{SHAPE}"] = _digested(*kind, reached)
        at = _digested("at", place)
        self.places[at] = place
        return at

    def _hold(self, size: int, value: object = None) -> None:
        """Keeps in mind what may hold weights."""
        if size >= _LEAST:
            self.held.setdefault("".join(self._place), HeldNumber(size, None if value is None else weakref.ref(value)))

    def _tensor(self, tensor: Tensor) -> str:
        own = {name: vars(tensor)[name] for name in vars(tensor) if name not in origins(tensor)}
        own = {name: held for name, held in own.items() if not (self._portable and name.startswith(COMPILER))}
        more = [self._pairs(own)] if own else []
        if tensor.is_meta:
            return _digested("meta", str(tensor.dtype), list(tensor.shape), *more)
        self._hold(tensor.numel(), tensor)
        try:
            stored = {"": tensor} if tensor.layout is torch.strided else dense_parts(tensor.detach())
            self.numbers += [("".join(self._place), one) for one in stored.values()]
            if tensor.layout is torch.strided:
                return _digested("tensor", *tensor_parts(tensor), *more)
            form = [str(tensor.layout), list(tensor.shape), tensor.layout is torch.sparse_coo and tensor.is_coalesced()]
            return _digested("tensor", *form, [[name, *tensor_parts(one)] for name, one in stored.items()], *more)
        except (RuntimeError, NotImplementedError) as error:
            return self._unreadable(tensor, " ".join(str(error).split())[:100])

    def _object(self, value: Any) -> str:
        """An object of any class: what it contains, its attributes, or what a copy of it would be made from."""
        kind = cast("type[object]", type(value))
        parts: list[Any] = ["object", self.class_of(kind)]
        held: list[tuple[str, Any]] = []
        if isinstance(value, Mapping):
            pairs = pairs_of(cast("Any", value))
            held += [(f"[{self._step(key)}]", one) for key, one in pairs]
            if issubclass(kind, OrderedDict):  # a look-up finds what was put in past its order
                known = {id(key) for key, _ in pairs}
                past = ((key, one) for key, one in dict[Any, Any].items(cast("Any", value)) if id(key) not in known)
                held += [(f"[{self._step(key)}] past the order", one) for key, one in past]
            if self._portable and isinstance(value, defaultdict):
                held.append((".default_factory", cast("Any", value).default_factory))
        elif isinstance(value, set | frozenset):
            parts.append(sorted(self._each(elements(cast("Any", value)))))
        elif isinstance(value, list | tuple | deque):
            listed_parts = elements(cast("Any", value))
            if listed_parts and all(type(one) is float for one in listed_parts):
                self._hold(len(listed_parts))
            held += [(f"[{at}]", one) for at, one in enumerate(listed_parts)]
        elif isinstance(value, int | float | complex | str | bytes | bytearray | PurePath):
            if isinstance(value, bytes | bytearray):
                self._hold(len(value) // _SINGLE)
            parts.append(text_of(value))
        elif holds_more(kind):
            # Not written in Python: what a copy of it would be made from says what it holds, unless a class of the
            # user's says so itself.
            own = [one for one in kind.__mro__ if self._portable and is_own(one)]
            if any({"__reduce__", "__reduce_ex__", "__getstate__"} & vars(one).keys() for one in own):
                return self._unreadable(value, "its class says itself what a copy is made from")
            reducer = copyreg.dispatch_table.get(kind)
            reduced: Any = value.__reduce_ex__(4) if reducer is None else reducer(value)
            if isinstance(reduced, str) and not (in_installed_module(value, reduced) or attributes(value)):
                return self._unreadable(value, "it says its name alone")
            if not isinstance(reduced, str):
                reduced = self._each([list(one) if isinstance(one, Iterator) else one for one in reduced])  # pyright: ignore[reportUnknownArgumentType]
            parts.append(reduced)
        skipped = {*origins(cast("object", value)), *(attributes(Path()) if isinstance(value, PurePath) else ())}
        held += [(f".{name}", one) for name, one in attributes(value).items() if name not in skipped]
        return self._spread(parts, held)

    def _step(self, key: Any) -> str:
        return repr(key) if type(key) in _PLAIN else self._digest(key)

    # ---- code -------------------------------------------------------------------------------------------------

    def _callable(self, value: Any) -> str | None:
        """A function of any kind; ``None`` for anything else."""
        kind = cast("type[Any]", type(value))
        if issubclass(kind, functools.partial):
            made = cast("functools.partial[Any]", value)
            return _digested(
                "partial", self._digest(made.func), self._each(made.args), self._pairs(made.keywords),
                self._pairs(vars(made)),
            )  # fmt: skip
        if issubclass(kind, types.MethodType):
            return _digested("method", self._digest(value.__func__), self._digest(value.__self__))
        if issubclass(kind, types.FunctionType):
            return self._function(value)
        if issubclass(kind, types.CodeType):
            return _digested("code", self._code(value))
        if issubclass(kind, staticmethod | classmethod):
            return _digested(kind.__name__, self._digest(value.__func__))
        if issubclass(kind, property):
            return _digested("property", self._each((value.fget, value.fset)))
        if issubclass(kind, torch.jit.ScriptFunction):
            return _digested("script", *(function_parts(value) if self._portable else [str(value.code)]))
        if self._portable and issubclass(kind, CACHE):
            CACHE.cache_clear(value)  # what it holds is no code: it is computed again
            called = [one for one in gc.get_referents(value) if callable(one) and not isinstance(one, type)]
            passing = (*functools.WRAPPER_ASSIGNMENTS, "cache_parameters")
            more = {name: one for name, one in cast("dict[str, Any]", vars(value)).items() if name not in passing}
            return _digested("cached", self._each(called), self._pairs(more))
        if issubclass(kind, _BUILT_IN):
            owner = getattr(value, "__self__", None)
            bound = None if owner is None or isinstance(owner, types.ModuleType) else self._digest(owner)
            return _digested("routine", str(getattr(value, "__module__", "")), value.__qualname__, bound)
        return None

    def _function(self, function: types.FunctionType) -> str:
        if type(function.__globals__) is not dict:
            return self._unreadable(function, "it looks names up in something else than a dict")
        cells = [content(cell) for cell in function.__closure__ or ()]
        own = not (of_library if self._portable else in_library)(function.__code__.co_filename)
        own = own or (self._portable and not (anatomy.holds(function.__code__) and at_home(function)))
        named = [function.__qualname__] if self._portable and own else [function.__module__, function.__qualname__]
        parts: list[Any] = ["function", *named]
        held: list[tuple[str, Any]] = [
            *((f" closing over {name}", cell) for name, cell in zip(function.__code__.co_freevars, cells, strict=True)),
            (" by default", function.__defaults__), (" by default, named", function.__kwdefaults__),
        ]  # fmt: skip
        if own:
            parts += [self._code(function.__code__), self._loaded(function)]
            if self._portable and cast("Any", function).__builtins__ is not vars(builtins):
                held.append((".__builtins__", cast("Any", function).__builtins__))
            held += [(f".{name}", one) for name, one in vars(function).items() if name != "__wrapped__"]
        return self._spread(parts, held)

    def _code(self, code: types.CodeType) -> list[Any]:
        """What a piece of code does: instructions, names and constants, not where it stands in a file."""
        if self._portable and (text := anatomy.text(code)) is not None:
            return [text]
        constants = [self._code(c) if isinstance(c, types.CodeType) else self._digest(c) for c in code.co_consts]
        names = [code.co_names, code.co_freevars, code.co_cellvars]
        counts = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags]
        return [code.co_code, code.co_exceptiontable, *map(list, names), counts, constants]

    def _loaded(self, function: types.FunctionType) -> list[str]:
        """Names of the globals that a function loads, each of which becomes an item."""
        space, found = function.__globals__, list[str]()
        for name, read in globals_of(function.__code__):
            late = self._imported(function, name.removeprefix("import ")) if name.startswith("import ") else None
            if late is not None:
                found += self._reached(late.__name__, late, read)
            elif name in space:  # else it is a builtin, or not there yet
                label = name if self._portable else f"{function.__module__}.{name}"
                found += self._reached(label, space[name], read)
        return found

    def _imported(self, function: types.FunctionType, name: str) -> types.ModuleType | None:
        """What a function imports when it is called; for a description that is to hold elsewhere, already now."""
        package = function.__globals__.get("__package__")
        for one in (name, f"{package}.{name}".removesuffix(".")) if self._portable and package else (name,):
            if self._portable and one and one not in sys.modules:
                with contextlib.suppress(Exception):  # whatever that module raises: the call will raise it too
                    importlib.import_module(one)
            if one in sys.modules:
                return sys.modules[one]
        return None

    def _reached(self, label: str, value: Any, attributes: set[str]) -> list[str]:
        """Names of the items of a global; of a module of the user's, of what may be read of it."""
        kind = cast("type[object]", type(value))
        if not issubclass(kind, types.ModuleType):
            return [self._global(label, value)]
        space = cast("dict[str, Any]", vars(value))
        kinds = [self.class_of(kind)] if self._portable and is_own(kind) else []
        known = installed(value.__name__, value) and (not self._portable or imported(value))
        if known or f"module {value.__name__}" in self._inside:
            put = [name for name in sorted(attributes) if self._portable and is_patch(name, space.get(name))]
            return [
                *kinds,
                f"module {value.__name__}",
                *(self._global(f"{value.__name__}.{name}", space[name]) for name in put),
            ]
        self._inside.add(f"module {value.__name__}")
        try:
            held = [(f"{value.__name__}.{name}", space[name]) for name in sorted(attributes) if name in space]
            return kinds + [item for label, one in held for item in self._reached(label, one, attributes)]
        finally:
            self._inside.discard(f"module {value.__name__}")

    def _global(self, label: str, held: Any) -> str:
        if isinstance(held, type):
            return self.class_of(held)
        # Names that no module has (exec, a notebook's cell) may stand for several globals.
        label = f"global {label}"
        key = f"{label} {id(held)}"
        if key not in self._globals:
            taken = sum(known == label or known.startswith(f"{label} #") for known in self._globals.values())
            self._globals[key] = f"{label} #{taken}" if taken else label
            self._alive.append(held)
            self._waiting.append((self._globals[key], lambda: self._digest(held)))
        return self._globals[key]

    def _class(self, kind: type) -> str:
        """A class: its bases; of code that is not torch's or Python's, every method and attribute too."""
        if self._portable:
            return self._class_anywhere(kind)
        parts: list[Any] = ["class", kind.__module__, kind.__qualname__, [self.class_of(b) for b in kind.__bases__]]
        top = kind.__module__.partition(".")[0]
        if top == "torch" and issubclass(kind, nn.Module):
            forward = vars(kind).get("forward")
            return _digested(*parts, self._digest(forward), self._raw(forward))
        known = installed(kind.__module__, sys.modules.get(kind.__module__))
        if known and (top in sys.stdlib_module_names or top in ("torch", "numpy")):
            return _digested(*parts)
        own = {name: held for name, held in vars(kind).items() if not _skipped(name, held)}
        if known or top == "wheeltap":
            # An installed package's own globals are not read: its code stands for it.
            return _digested(*parts, [[name, self._raw(held)] for name, held in own.items()])
        return self._spread(parts, [(f".{name}", held) for name, held in own.items()])

    # ---- on other machines ------------------------------------------------------------------------------------

    def _class_anywhere(self, kind: type) -> str:
        """A class, the same on each machine; of an installed one the file, and what in it is not from such a file."""
        own = is_own(kind)
        parts: list[Any] = ["class", *([] if own else [kind.__module__]), kind.__qualname__]
        parts += [[self.class_of(base) for base in kind.__bases__], self.class_of(type(kind))]
        held = {name: one for name, one in vars(kind).items() if not _skipped(name, one)}
        if own:
            return self._spread(parts, [(f".{name}", one) for name, one in held.items()])
        file = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
        of_python = kind.__module__.partition(".")[0] in sys.stdlib_module_names and "-packages" not in file
        if of_python or not file.endswith((".py", ".pyc")):
            return _digested(*parts)
        if (label := f"library {kind.__module__}") not in self._items:
            data = Path(file).read_bytes()
            self._items[label] = canon.digest("file", data[_DATED:] if file.endswith(".pyc") else data)
        items = [(name, one, self._from_file(one, deep=name in CALLED)) for name, one in held.items()]
        return _digested(*parts, [[name, code] for name, one, code in items if not may_be_added(name, one, code, file)])

    def _from_file(self, value: Any, *, deep: bool = False) -> Any:
        """A name for what an installed file says: the digest of anything else that may be called.

        Args:
            value: A method or another attribute of an installed class, or a function.
            deep: Whether the functions that it calls by name are looked at too.
        """
        if is_own(cast("type[object]", type(value))):
            return self._digest(value)
        inner = getattr(value, "__func__", None) or getattr(value, "fget", None) or getattr(value, "func", value)
        if type(inner) is not types.FunctionType:
            kind = cast("type[object]", type(inner))
            plain = kind in _PLAIN or issubclass(kind, type) or not (callable(inner) or hasattr(kind, "__get__"))
            return None if plain or isinstance(inner, _BUILT_IN) else self._digest(inner)
        code = inner.__code__
        if not of_library(code.co_filename) or not anatomy.holds(code):
            return self._digest(inner)
        if inner in self._from_files:
            return self._from_files[inner]
        self._from_files[inner] = [code.co_qualname]  # what it closes over may lead to itself
        cells = [content(cell) for cell in inner.__closure__ or ()]
        wrapped = [self._from_file(one, deep=deep) for one in cells if type(one) is types.FunctionType]
        called = [said for name, one in called_by(inner) if (said := self._called(name, one))] if deep else []
        self._from_files[inner] = [code.co_qualname, wrapped, called]
        return self._from_files[inner]

    def _called(self, name: str, value: Any) -> Any:
        """What a function of an installed file calls: its code, or that it is none of an installed package."""
        if type(value) is types.FunctionType:
            return self._from_file(value)
        odd = not imported(value) if isinstance(value, types.ModuleType) else is_patch(name, value)
        return ["put", type(value).__qualname__] if odd else None

    def _raw(self, value: Any) -> Any:
        """The code of a library's method alone; of its attributes those that are plain."""
        inner = getattr(value, "__func__", getattr(value, "fget", value))
        if type(inner) is types.FunctionType:
            return self._code(inner.__code__)
        return self._digest(value) if type(value) in _PLAIN else None


_DATED = 16
"""Bytes at the beginning of compiled code that say when it was compiled."""


SHAPE = " shape"
"""How names of items end that say which parts an object has."""

_BUILT_IN = (
    types.BuiltinFunctionType, types.WrapperDescriptorType, types.MethodWrapperType, types.MethodDescriptorType,
    types.ClassMethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType,
)  # fmt: skip


def digest_of(value: object) -> str:
    """Digest of one object, with the code of the user's own classes and functions that it leads to."""
    reader = Describer({})
    return _digested(reader.read("", value), sorted([name, held] for name, held in reader.items()))


def _digested(*parts: Any) -> str:
    return canon.digest("described", canon.canonical(_builtin(list(parts))))


def _builtin(value: Any) -> Any:
    """Bytes as texts: canonical bytes know no others."""
    if isinstance(value, list):
        return [_builtin(part) for part in cast("list[Any]", value)]
    if isinstance(value, bytes | memoryview):
        return canon.digest("bytes", cast("bytes | memoryview", value))
    return value
