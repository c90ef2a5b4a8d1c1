"""Structure of a model: class names, configuration and source digests; and its differences from a sealed structure."""

import ast
import base64
import inspect
import sys
import sysconfig
import textwrap
import types
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, cast, final

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wheeltap.core import canon
from wheeltap.core.bounded import parsing
from wheeltap.core.errors import ModelError
from wheeltap.core.typed import named_modules

_WRAPPERS: Final[dict[type, str]] = {nn.DataParallel: "module", DistributedDataParallel: "module", nn.Sequential: "0"}
"""Wrappers of torch that only call one module, by the name under which they hold it."""

_COMPILED: Final = "OptimizedModule"
"""Class of what ``torch.compile`` returns."""

_LIBRARIES: Final = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})

_SKIPPED: Final = frozenset(vars(nn.Module())) - {"training"} | {
    # How a module is called, and where a model of transformers was loaded from: neither changes what it computes.
    "_compiled_call_impl", "_is_torch_compile", "_is_hf_initialized", "_name_or_path", "name_or_path", "_commit_hash",
    "_original_object_hash", "transformers_version", "dtype", "torch_dtype",
}  # fmt: skip
"""Attributes and entries of a configuration that do not count. Kinds of floating-point numbers are among them, because
casts pass."""

_LONGEST: Final = 60
"""Characters of a setting that a seal keeps as they are; of longer ones it keeps a digest."""

_MAX_TEXT: Final = 2**24
"""Bytes of the decompressed text of a structure."""


@final
class Structure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Structure of a model without the wrappers around it.

    Attributes:
        modules: Class, settings, hooks and digests of the user's own code of each module, by its path, in order.
        libraries: Digest of the source of each class of an installed package.
        versions: Versions of these packages.
        unread: Classes whose source cannot be read: their code is not compared.
    """

    modules: dict[str, dict[str, str]]
    libraries: dict[str, str]
    versions: dict[str, str]
    unread: list[str]

    def text(self) -> str:
        """As a seal keeps it: compressed, in base64."""
        return base64.b64encode(zlib.compress(msgspec.json.encode(self), 9)).decode()


def sealed_structure(text: str) -> Structure:
    """The structure that a seal keeps.

    Raises:
        FileFormatError: If the text holds none.
    """
    with parsing("seal", "The seal's structure cannot be read.", expected="classes and settings of modules"):
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), _MAX_TEXT)
        return msgspec.json.decode(data, type=Structure)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside wrappers of torch that only call it.

    Raises:
        ModelError: If it is a program of TorchScript or ``torch.export``, which holds no Python classes to compare.
    """
    if type(model).__name__ == _COMPILED:
        return unwrapped(model.get_submodule("_orig_mod"))
    children, changed = dict(model.named_children()), any(vars(model).get(name) for name in (*_HOOKS, "forward"))
    if [*children] == [_WRAPPERS.get(type(model))] and not changed:
        return unwrapped(*children.values())
    if isinstance(model, torch.jit.ScriptModule | torch.fx.GraphModule):
        raise ModelError("A seal cannot read scripted, traced or exported programs.", expected="a Python module",
                         got=type(model).__name__, do="Give the module that the program was made from.")  # fmt: skip
    return model


_HOOKS: Final = ("_forward_hooks", "_forward_pre_hooks")


def structure(model: nn.Module) -> Structure:
    """The structure of a model."""
    modules, sources, unread = dict[str, dict[str, str]](), dict[type, str](), set[str]()
    for path, module in named_modules(unwrapped(model)):
        classes = [kind for kind in type(module).__mro__ if issubclass(kind, nn.Module) and kind is not nn.Module]
        for kind in classes:
            if kind not in sources:
                sources[kind] = _source_digest(kind, unread)
        own = [sources[kind] for kind in classes if not _is_installed(kind)]
        parts = {"class": _class_name(type(module))} | ({"code": canon.key("code", own)} if own else {})
        parts |= {
            kind.strip("_").replace("_", " "): _shown([*hooks.values()])
            for kind in _HOOKS if (hooks := getattr(module, kind))
        }  # fmt: skip
        parts |= {f"attribute {name}": _shown(one) for name, one in vars(module).items() if name not in _SKIPPED}
        modules[path] = parts
    every = cast("Any", nn.modules.module)
    hooks = [*every._global_forward_pre_hooks.values(), *every._global_forward_hooks.values()]
    modules[""] |= {"hooks of all modules": _shown(hooks)} if hooks else {}
    libraries = {_class_name(kind): one for kind, one in sources.items() if _is_installed(kind)}
    packages = sorted({name.partition(".")[0] for name in libraries})
    versions = {
        package: str(getattr(sys.modules.get(package), "__version__", "of no known version")) for package in packages
    }
    return Structure(modules, libraries, versions, sorted(unread))


def _is_installed(kind: type | types.FunctionType) -> bool:
    """Whether a class or function belongs to Python or an installed package, by its file."""
    try:
        file = inspect.getfile(kind)
    except (TypeError, OSError):  # of Python itself; or defined at a prompt
        return kind.__module__ != "__main__"
    return file.startswith(_LIBRARIES) or "/site-packages/" in file or "/dist-packages/" in file


def _class_name(kind: type) -> str:
    """Qualified name; without the module for classes of one's own, which may be a script and be imported too."""
    return f"{kind.__module__}.{kind.__qualname__}" if _is_installed(kind) else kind.__qualname__


def _source_digest(kind: type, unread: set[str]) -> str:
    """Digest of a class: source of its methods, values of its attributes; without source, it is added to ``unread``.

    Methods are read one by one, so that one that was replaced after the class was defined counts as well.
    """
    texts = list[str]()
    for name, held in sorted(vars(kind).items()):
        function = getattr(held, "fget", getattr(held, "__func__", held))
        if isinstance(function, types.FunctionType):
            texts.append(f"{name} {_source(function)}")
            unread |= set() if _source(function) else {_class_name(kind)}
        elif not name.startswith("__"):
            texts.append(f"{name} {_shown(held)}")
    return canon.key("class", texts)


def _source(function: types.FunctionType) -> str:
    """Source without comments, layout and docstring; empty where there is none."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return "" if code is None else _source_of(code, code.co_filename)


@lru_cache(maxsize=10_000)
def _source_of(code: types.CodeType, file: str) -> str:
    """As ``_source``, once for each function of a file: equal code in another file may have other decorators."""
    del file  # part of the key only
    try:
        lines = textwrap.dedent(inspect.getsource(code))
    except (OSError, TypeError):
        return ""
    try:
        tree = ast.parse(lines)
    except SyntaxError:  # part of a longer statement, as a lambda among arguments
        return lines
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _shown(value: Any) -> str:
    """A setting as text: plain values in full, functions and classes by name and source, other objects by class."""
    if isinstance(value, types.FunctionType) and not _is_installed(value):
        text = f"{value.__qualname__} {canon.key('function', _source(value))[:16]}"
    elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        text = f"{value.__module__}.{value.__qualname__}"
    elif isinstance(value, Tensor):
        numbers = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        text = f"{value.dtype} {list(value.shape)} {canon.array_digest('numbers', numbers)}"
    elif isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, Any]", value)
        text = canon.array_digest("numbers", array) if array.dtype.kind in "biufc" else "an array of objects"
    elif isinstance(value, Mapping):
        named = cast("Mapping[Any, Any]", value).items()
        text = f"{{{', '.join(f'{key!r}: {_shown(one)}' for key, one in named if key not in _SKIPPED)}}}"
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(map(_shown, cast('Sequence[Any]', value)))}]"
    elif isinstance(value, set | frozenset):
        text = f"{{{', '.join(sorted(map(_shown, cast('set[Any]', value))))}}}"
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes):
        text = repr(value)
    elif callable(to_dict := getattr(value, "to_dict", None)):  # a configuration of transformers
        text = _shown(to_dict())
    else:
        text = f"an object of {type(value).__qualname__}"
    return text if len(text) <= _LONGEST else canon.key("setting", text)[:32]


@final
class Difference(msgspec.Struct, frozen=True):
    """Parts of a structure that are not as sealed.

    Attributes:
        words: All but installed code, in sentences; empty where there is nothing.
        libraries: Classes of installed packages with another source, with the versions of their packages.
    """

    words: str
    libraries: tuple[str, ...]


def difference(sealed: Structure, current: Structure) -> Difference:
    """The parts of a structure that are not as sealed."""
    before, after = sealed.modules, current.modules
    common = [path for path in after if path in before]
    changed = [
        f"{name} of {f'module {path}' if path else 'the model'}"
        for path in common for name in sorted(before[path].keys() | after[path].keys())
        if before[path].get(name) != after[path].get(name)
    ]  # fmt: skip
    added, missing = (
        [f"module {path}" for path in one if path not in other] for one, other in ((after, before), (before, after))
    )
    if not (added or missing or changed) and [*before] != [*after]:
        changed = ["order of modules"]
    libraries = tuple(
        f"{name} ({_version(name, sealed)} was sealed, this is {_version(name, current)})"
        for name, one in current.libraries.items() if sealed.libraries.get(name, one) != one
    )  # fmt: skip
    kinds = (("Not sealed", added), ("Missing", missing), ("Not as sealed", changed))
    return Difference(" ".join(f"{title}: {listed(names)}." for title, names in kinds if names), libraries)


def _version(name: str, of: Structure) -> str:
    top = name.partition(".")[0]
    return f"{top} {of.versions.get(top, '')}"


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first of some names, and the number of the others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
