"""What scripted functions and modules hold besides weights, as the file that torch would write of them holds it.

Torch shows code that a program calls, and attributes of its classes, in the file alone. Files are made here, in memory,
and the objects in them are read as parts and names: no class is looked up, and nothing of them runs.
"""

import contextlib
import hashlib
import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final, NamedTuple, cast, final

import torch
from torch import nn

NUMBERED: Final = re.compile(r"___torch_mangle_\d+\.")
"""What torch puts before the second type of a name, and of each process anew."""

_SOURCE: Final = re.compile(r"code/.*\.py")
_DEFINITIONS: Final = re.compile(r"^(?=class |def )", re.MULTILINE)
_DEFINED: Final = re.compile(r"(?:class|def) (\w+)")
_NAMES: Final = re.compile(r"__torch__(?:\.\w+)+")


def function_parts(function: Any) -> list[list[Any]]:
    """Code and constants of a scripted function: torch shows constants nowhere else."""
    with zipfile.ZipFile(io.BytesIO(function.save_to_buffer())) as archive:
        parts = [(name.partition("/")[2], name) for name in sorted(archive.namelist())]
        kept = [(part, name) for part, name in parts if part.startswith("constants") or part.endswith(".py")]
        return [[part, archive.read(name)] for part, name in kept]


class Script(NamedTuple):
    """A scripted module without its weights.

    Attributes:
        code: Of every function and class that is reached from the module's class, in the order of first mention, which
            stands for their names (torch numbers these in each process anew); and constants of code.
        attributes: By the path of a module inside and a name, in lists of texts: what is no parameter, buffer or
            module. Under no name all of a module that says itself what is saved of it.
        shared: Names of attributes and weights that lie in one memory, an attribute among them.
    """

    code: list[Any]
    attributes: dict[str, dict[str, Any]]
    shared: list[list[str]]


def _script_of(module: torch.jit.ScriptModule) -> Script:
    """What the file of a scripted module says besides its weights."""
    file = io.BytesIO()
    cast("Any", torch.jit).save(module, file)
    with zipfile.ZipFile(file) as archive:
        held = {name.partition("/")[2]: name for name in archive.namelist()}
        data = archive.read(held["data.pkl"])
        texts = {name: archive.read(held[name]).decode() for name in held if _SOURCE.fullmatch(name)}
        constants = [[name, archive.read(held[name])] for name in sorted(held) if name.startswith("constants")]
        stored = {
            name.removeprefix("data/"): hashlib.sha256(archive.read(held[name])).hexdigest()
            for name in held if name.startswith("data/")
        }  # fmt: skip
    defined = {
        f"{name.removeprefix('code/').removesuffix('.py').replace('/', '.')}.{found[1]}": text
        for name, whole in texts.items() for text in _DEFINITIONS.split(whole) if (found := _DEFINED.match(text))
    }  # fmt: skip
    words = [word for code, word, _ in pickletools.genops(data) if code.name == "GLOBAL"]
    waiting = [str(word).replace(" ", ".") for word in reversed(words)]
    order, code = dict[str, int](), list[str]()

    def known(name: str) -> str:
        """The function or class of a name that may go on with a method."""
        while name not in defined and "." in name:
            name = name.rpartition(".")[0]
        return name

    while waiting:
        if (name := known(waiting.pop())) in defined and name not in order:
            order[name] = len(order)
            waiting += reversed(_NAMES.findall(defined[name]))
    for name in order:
        text = _NAMES.sub(lambda at: f"<{order.get(known(at[0]))}>{at[0].removeprefix(known(at[0]))}", defined[name])
        code += [NUMBERED.sub("", name), text]
    values = _Values(order, stored)
    attributes, weights = _attributes(module, _Reader(io.BytesIO(data)).load(), values)
    shared = [sorted({*names, *weights.get(key, ())}) for key, names in values.mentions.items()]
    return Script([code, constants], attributes, [names for names in shared if len(names) > 1])


def scripts_in(
    modules: Iterable[tuple[str, nn.Module]],
) -> Iterator[tuple[str, nn.Module, Script | None, dict[str, Any] | None]]:
    """Modules with what the files of scripted ones say of them.

    Args:
        modules: By their paths, each before those within it.

    Yields:
        Path and module; of a script that is in no other one, what its file says; of all of a script, their saved
        attributes.
    """
    scripts = dict[str, Script]()
    for path, module in modules:
        top = next((one for one in scripts if not one or f"{path}.".startswith(f"{one}.")), None)
        whole = None
        if top is None and isinstance(module, torch.jit.ScriptModule):
            whole = scripts[top := path] = _script_of(module)
        saved = None if top is None else scripts[top].attributes.get(path.removeprefix(top).lstrip("."), {})
        yield path, module, whole, saved


class _SavedObject:
    """An object in a file: what its class is called, what it was made from, and its state."""

    title: ClassVar[str]
    state: Any = None

    def __init__(self, *given: Any) -> None:
        self.given = given

    def __new__(cls, *_: Any) -> "_SavedObject":
        """As a file makes objects: without the call that sets what they were made from."""
        return object.__new__(cls)

    given: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Storage(NamedTuple):
    kind: str
    key: str


@final
class _Reader(pickle.Unpickler):
    """Reads objects as ``_SavedObject``, whatever their classes are: none is imported."""

    def find_class(self, module: str, name: str, /) -> type[_SavedObject]:
        return type("Saved", (_SavedObject,), {"title": f"{module}.{name}"})

    def persistent_load(self, pid: Any, /) -> _Storage:
        _, kind, key, *_ = pid
        return _Storage(kind.title, key)


@final
class _Values:
    """Saved values as lists of texts.

    Args:
        order: Numbers of classes, by name.
        stored: Digests of the bytes of tensors, by key.
    """

    def __init__(self, order: dict[str, int], stored: dict[str, str]) -> None:
        self._order, self._stored, self._seen = order, stored, dict[int, int]()
        self.place, self.mentions = "", dict[str, list[str]]()

    def of(self, value: Any) -> Any:
        """One value; an object that was met already, by its number."""
        if isinstance(value, _Storage):
            several = self.mentions.setdefault(value.key, [])
            several.append(f"{self.place} #{len(several)}" if several else self.place)
            return ["numbers", value.kind, self._stored.get(value.key, "")]
        if not isinstance(value, _SavedObject | dict | list | tuple | type):
            return [type(value).__name__, repr(value)]
        if isinstance(value, type):
            return ["class", self._title(value)]
        if isinstance(value, tuple):
            return ["tuple", *map(self.of, cast("tuple[Any, ...]", value))]
        if id(cast("object", value)) in self._seen:
            return ["again", str(self._seen[id(cast("object", value))])]
        self._seen[id(cast("object", value))] = len(self._seen)
        if isinstance(value, _SavedObject):
            return ["object", self._title(type(value)), self.of(value.given), self.of(value.state)]
        if isinstance(value, list):
            return ["list", *map(self.of, cast("list[Any]", value))]
        return ["dict", *([self.of(key), self.of(one)] for key, one in cast("dict[Any, Any]", value).items())]

    def _title(self, kind: type[_SavedObject]) -> str:
        return f"<{self._order[kind.title]}>" if kind.title in self._order else kind.title


def _attributes(
    module: torch.jit.ScriptModule, saved: _SavedObject, values: _Values
) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
    """Attributes as ``Script`` has them, and names of weights by the key of their memory."""
    found, waiting = dict[str, dict[str, Any]](), [("", module, saved)]
    keys = dict[str, list[str]]()
    while waiting:
        path, inner, held = waiting.pop()
        if not isinstance(held.state, dict):
            values.place = path
            found[path] = {"": values.of(held.state)}
            continue
        state = cast("dict[str, Any]", held.state)
        weights = {
            name for kind in ("_parameters", "_buffers") for name, _ in getattr(cast("Any", inner), kind).items()
        }
        modules = dict(cast("Any", inner)._modules.items())
        found[path] = {}
        for name, one in state.items():
            values.place = f"{path}.{name}".lstrip(".")
            if name in weights:
                for key in _keys_in(one):
                    keys.setdefault(key, []).append(values.place)
            elif name != "training" and name not in modules:
                found[path][name] = values.of(one)
        waiting += [
            (f"{path}.{name}".lstrip("."), one, state[name]) for name, one in reversed(modules.items()) if name in state
        ]
    return found, keys


def _keys_in(value: Any) -> Iterator[str]:
    """Keys of the memory that a saved tensor lies in."""
    if isinstance(value, _Storage):
        yield value.key
    for one in value.given if isinstance(value, _SavedObject) else value if isinstance(value, tuple) else ():  # pyright: ignore[reportUnknownVariableType]
        yield from _keys_in(one)


def shown(module: nn.Module, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Attributes of a module of a scripted one that torch shows, such as tensors in lists; objects may not be."""
    inside = cast("Any", module)._c
    for name in names:
        with contextlib.suppress(RuntimeError):
            if inside.hasattr(name):
                yield name, inside.getattr(name)
