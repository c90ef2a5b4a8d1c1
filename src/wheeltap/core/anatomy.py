"""What objects consist of: attributes of instances and modules, globals that code loads, bytes of tensors.

Source of functions: what loaded code does, by the file that it comes from, where that file holds the same code.

Bytecode differs between versions of Python; the syntax tree of a function does not. Names, files and lines of loaded
code can be set to anything, so the file is compiled and its code compared with what was loaded.
"""

import ast
import contextlib
import dis
import functools
import linecache
import sys
import sysconfig
import types
from collections import OrderedDict, deque
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core.typed import inner

_ORIGINS = frozenset(
    {"_name_or_path", "name_or_path", "_commit_hash", "_original_object_hash", "transformers_version"}
)  # fmt: skip
_OF_TRANSFORMERS = {
    "transformers.configuration_utils": "PreTrainedConfig",
    "transformers.generation.configuration_utils": "GenerationConfig",
    "transformers.modeling_utils": "PreTrainedModel",
}


def origins(value: object) -> frozenset[str]:
    """Attributes of an object that say where it was loaded from, which does not change what it computes.

    Only models and configurations of transformers have such. ``_original_object_hash`` is Python's own hash of a
    generation configuration as it was loaded: another number in each process. ``_is_hf_initialized`` says of a weight
    or module that it came from a file.
    """
    kinds = tuple(
        kind for module, name in _OF_TRANSFORMERS.items()
        if isinstance(kind := getattr(sys.modules.get(module), name, None), type)
    )  # fmt: skip
    read = issubclass(type(value), Tensor | nn.Module) and vars(value).get("_is_hf_initialized") is True
    marks = frozenset({"_is_hf_initialized"} if read else ())
    return _ORIGINS | marks if issubclass(type(value), kinds) else marks


_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


@functools.cache
def in_library(file: str) -> bool:
    """Whether a file of code belongs to Python or an installed package; a notebook's cell counts as the user's."""
    return file.startswith((*_LIBRARIES, "<frozen")) or "/site-packages/" in file or "/dist-packages/" in file


def installed(name: str, module: types.ModuleType | None) -> bool:
    """Whether a module belongs to Python or an installed package: by its file, or as one that Python has compiled in.

    One that has neither counts as the user's, whatever its name: a file of the user's may be called as one of Python's.
    """
    file = getattr(module, "__file__", None)
    if file is None:
        within = getattr(getattr(module, "__spec__", None), "origin", None) in ("built-in", "frozen")
        return within and name.partition(".")[0] in sys.stdlib_module_names
    return in_library(file)


def attributes(value: Any) -> dict[str, Any]:
    """Attributes of an instance, in ``__dict__`` and slots, as they lie there, whatever its class shows of them."""
    kinds = type(value).__mro__
    dicts = [held for kind in kinds if type(held := vars(kind).get("__dict__")) is types.GetSetDescriptorType]
    found: dict[str, Any] = dict(dicts[-1].__get__(value) if dicts else getattr(value, "__dict__", {}))
    read = list[Any]()
    for kind in kinds:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            hidden = f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") and name[-2:] != "__" else name
            if name not in ("__dict__", "__weakref__"):
                place: Any = vars(kind).get(hidden)
                read.append(place)
                found[name] = None
                with contextlib.suppress(AttributeError):  # nothing is there
                    member = type(place) is types.MemberDescriptorType
                    found[name] = place.__get__(value) if member else getattr(value, hidden)
        for name, place in vars(kind).items():  # what a class has room for, though it no longer says so
            if type(place) is types.MemberDescriptorType and kind.__flags__ & _HEAP_TYPE and place not in read:
                with contextlib.suppress(AttributeError):
                    found[name] = place.__get__(value)
    return found


_HEAP_TYPE = 1 << 9
"""Flag of classes that were not compiled into Python."""


def elements(value: Any) -> list[Any]:
    """What a list, tuple, deque or set holds, in order, whatever a class of its own shows of it."""
    kind: Any = next(one for one in (list, tuple, deque, set, frozenset) if isinstance(value, one))
    return list(kind.__iter__(value))


def pairs_of(value: Any) -> list[tuple[Any, Any]]:
    """Keys and values of a mapping, in order; of a dict whatever a class of its own shows of it."""
    ordered: Any = OrderedDict
    if isinstance(value, dict):
        return list((ordered if isinstance(value, OrderedDict) else dict[Any, Any]).items(cast("Any", value)))
    return list(value.items())


def text_of(value: Any) -> str:
    """A number, text, bytes or path as text, whatever a class of its own says it is."""
    if isinstance(value, PurePath):
        return PurePath.__str__(value)
    kind: Any = next(one for one in (int, float, complex, str, bytes, bytearray) if isinstance(value, one))
    return kind.__repr__(value)


_UNREAD_OF_MODULES = frozenset(
    {
        "_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook", "_state_dict_hooks",
        "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
        "_non_persistent_buffers_set", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
        "_forward_pre_hooks_with_kwargs",
    }
)  # fmt: skip
"""What torch keeps in a module for training, loading and saving, and what ``module_parts`` tells with each hook."""


def module_parts(module: nn.Module) -> dict[str, Any]:
    """Attributes of a module that its forward may read, by name; hooks without the numbers that torch gives them."""
    held, skipped = vars(module), origins(module)
    parts = {name: value for name, value in held.items() if name not in _UNREAD_OF_MODULES | skipped}
    for name in ("_forward_hooks", "_forward_pre_hooks"):
        flags = [held.get(f"{name}_with_kwargs", {}), held.get(f"{name}_always_called", {})]
        parts[name] = [[hook, *(at in flag for flag in flags)] for at, hook in held.get(name, {}).items()]
    return parts


def holds_more(kind: type) -> bool:
    """Whether instances hold more than attributes: memory beyond that of an object, its dictionary and its slots."""
    slots = sum(isinstance(held, types.MemberDescriptorType) for base in kind.__mro__ for held in vars(base).values())
    ours = object.__basicsize__ + _POINTER * (2 + slots)
    return not vars(kind).get("__module__") or kind.__basicsize__ > ours


_POINTER = object.__basicsize__ // 2


def content(cell: types.CellType) -> Any:
    """What a function closes over; nothing where it is not there yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def globals_of(code: types.CodeType) -> list[tuple[str, set[str]]]:
    """Every global that code loads, nested functions included, with the names of attributes that it may read of it."""
    found: dict[str, set[str]] = {}
    waiting = [code]
    while waiting:
        one = waiting.pop()
        waiting += [constant for constant in one.co_consts if isinstance(constant, types.CodeType)]
        for step in dis.get_instructions(one):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                found.setdefault(str(step.argval), set()).update(one.co_names)
            elif step.opname == "IMPORT_NAME":
                found.setdefault(f"import {step.argval}", set()).update(one.co_names)
    return sorted(found.items())


def tensor_parts(tensor: Tensor) -> tuple[str, list[int], memoryview | bytes]:
    """A tensor's dtype, with the scales of quantized numbers, its shape and bytes: its own memory where it can."""
    if parts := [tensor_parts(part) for part in inner(tensor)]:
        kinds = ", ".join(f"{kind} {shape}" for kind, shape, _ in parts)
        return f"{type(tensor).__name__} of {kinds}", list(tensor.shape), b"".join(data for *_, data in parts)
    flat = written(tensor.detach()).cpu().contiguous()
    # Bytes through an integer view: numpy knows no bfloat16.
    return kind_of(tensor), list(flat.shape), flat.reshape(-1).view(torch.uint8).numpy().data


def dense_parts(tensor: Tensor) -> dict[str, Tensor]:
    """Of a tensor of another layout those that it stores: which numbers are stored counts, and not their sum alone.

    Raises:
        NotImplementedError: If the layout is not known here.
    """
    if tensor.layout is torch.sparse_coo:
        return {"indices": tensor._indices(), "values": tensor._values()}
    if tensor.layout in _COMPRESSED:
        return {name: getattr(tensor, name)() for name in (*_COMPRESSED[tensor.layout], "values")}
    if tensor.is_mkldnn:
        return {"values": tensor.to_dense()}
    raise NotImplementedError(f"layout {tensor.layout}")


_COMPRESSED: Final = {
    layout: ("crow_indices", "col_indices") if rows else ("ccol_indices", "row_indices")
    for layout, rows in (
        (torch.sparse_csr, True), (torch.sparse_bsr, True), (torch.sparse_csc, False), (torch.sparse_bsc, False),
    )
}  # fmt: skip


def memory_of(held: Tensor | np.ndarray[Any, Any]) -> tuple[int, int]:
    """First byte of the memory that numbers lie in, and the one behind the last; the same byte of what has none."""
    if isinstance(held, Tensor):
        plain = held.layout is torch.strided and held.numel() and not held.is_meta
        start, width, steps = (held.data_ptr(), held.element_size(), held.stride()) if plain else (0, 0, (0,))
    else:
        start, width, steps = held.ctypes.data, 1, held.strides
    if not width or 0 in held.shape:
        return 0, 0
    size = [(n - 1) * by * width for n, by in zip(held.shape, steps, strict=True)]
    return start + sum(by for by in size if by < 0), start + sum(by for by in size if by > 0) + held.itemsize


def written(tensor: Tensor) -> Tensor:
    """Numbers as they stand in memory: of quantized ones their codes; without a sign that is put on in reading."""
    return tensor.int_repr() if tensor.is_quantized else tensor.resolve_conj().resolve_neg()


def kind_of(tensor: Tensor) -> str:
    """A tensor's dtype, and of a quantized one what its codes stand for."""
    if not tensor.is_quantized:
        return str(tensor.dtype)
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        held: list[Any] = [tensor.q_scale(), tensor.q_zero_point()]
    else:
        scales, zeros = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
        held = [tensor.q_per_channel_axis(), str(zeros.dtype), [float(one) for one in scales], list(map(float, zeros))]
    return f"{tensor.dtype} {tensor.qscheme()} {held}"


def imported(module: types.ModuleType) -> bool:
    """Whether it is the module of its name, and not one that only says so."""
    return sys.modules.get(module.__name__) is module


def at_home(function: types.FunctionType) -> bool:
    """Whether a function of an installed file looks names up in the module of that file."""
    module = sys.modules.get(str(function.__globals__.get("__name__")))
    return module is not None and vars(module) is function.__globals__


def called_by(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function loads as globals, or as attributes of modules that it loads, each with its name."""
    for name, read in globals_of(function.__code__):
        found = function.__globals__.get(name)
        known = isinstance(found, types.ModuleType) and imported(found)
        yield from ((one, vars(found).get(one)) for one in sorted(read)) if known else ((name, found),)


_LEFT_OUT: Final = frozenset({"type_comment", "kind", "type_params", "ctx"})
"""Fields of syntax trees that some versions of Python know alone, or that say nothing more."""

_Key = tuple[str, int]


def holds(code: types.CodeType) -> bool:
    """Whether the file that the code names holds this code."""
    return any(same_code(one, code) for one in _found(code)[0])


def text(code: types.CodeType) -> str | None:
    """The syntax tree of a function as text, without its docstring; ``None`` where no file holds this code."""
    nodes = _found(code)[1] if holds(code) else []
    return _written(nodes[0]) if len(nodes) == 1 else None


def _found(code: types.CodeType) -> tuple[list[types.CodeType], list[ast.AST]]:
    """What the file that the code names has where the code says it stands, compiled and as syntax trees."""
    path = code.co_filename
    linecache.checkcache(path)
    lines = linecache.getlines(path)  # the same list while the file is the same
    if path not in _READ or _READ[path][0] is not lines:
        codes: dict[_Key, list[types.CodeType]] = {}
        nodes: dict[_Key, list[ast.AST]] = {}
        _READ[path] = lines, codes, nodes
        with contextlib.suppress(SyntaxError, ValueError):
            tree, waiting = ast.parse("".join(lines)), [compile("".join(lines), path, "exec", dont_inherit=True)]
            while waiting:
                inner = [one for one in waiting.pop(0).co_consts if isinstance(one, types.CodeType)]
                waiting += inner
                for one in inner:
                    codes.setdefault((one.co_name, one.co_firstlineno), []).append(one)
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                    nodes.setdefault((node.name, first), []).append(node)
                elif isinstance(node, ast.Lambda):
                    nodes.setdefault(("<lambda>", node.lineno), []).append(node)
    _, codes, nodes = _READ[path]
    key = code.co_name, code.co_firstlineno
    return codes.get(key, []), nodes.get(key, [])


_READ: Final[dict[str, tuple[list[str], dict[_Key, list[types.CodeType]], dict[_Key, list[ast.AST]]]]] = {}
"""Files that were read and compiled, with the lines that they had."""


def same_code(one: types.CodeType, two: types.CodeType, *, first: int = 0) -> bool:
    """Whether two pieces of code do the same, wherever they stand; constants are compared from number ``first`` on."""
    alike = all(
        getattr(one, name) == getattr(two, name)
        for name in (
            "co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_argcount", "co_posonlyargcount",
            "co_kwonlyargcount", "co_flags", "co_exceptiontable",
        )
    ) and len(one.co_consts) == len(two.co_consts)  # fmt: skip
    return alike and all(map(_same_constant, one.co_consts[first:], two.co_consts[first:]))


def _same_constant(one: Any, two: Any) -> bool:
    """Whether two constants are the same, part by part: an instance of a subclass may say that it is equal."""
    if type(one) is not type(two):
        return False
    if isinstance(one, types.CodeType):
        return same_code(one, two)
    if type(one) in (tuple, frozenset):
        first, second = (list(held) if type(one) is tuple else sorted(held, key=repr) for held in (one, two))
        return len(first) == len(second) and all(map(_same_constant, first, second))
    return repr(one) == repr(two)


def _written(value: Any) -> str:
    """A part of a syntax tree as text; functions and classes without their docstrings."""
    if isinstance(value, ast.AST):
        fields = dict(ast.iter_fields(value))
        if isinstance(value, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(value):
            fields["body"] = fields["body"][1:]
        kept = {name: held for name, held in fields.items() if name not in _LEFT_OUT and held not in (None, [])}
        parts = [f"{name}={_written(held)}" for name, held in kept.items()]
        return f"{type(value).__name__}({', '.join(parts)})"
    if isinstance(value, list):
        return f"[{', '.join(map(_written, cast('list[Any]', value)))}]"
    return f"{type(value).__name__} {value!r}"


# ---- what belongs to an installed package, and what was put in its place ------------------------------------------

CACHE: Any = functools._lru_cache_wrapper  # pyright: ignore[reportPrivateUsage]
"""The class of functions with a cache."""

_OURS = str(Path(__file__).parents[1])


def of_library(file: str) -> bool:
    """Whether a file of code belongs to Python, an installed package, or this one."""
    return in_library(file) or file.startswith(_OURS)


def is_own(kind: type) -> bool:
    """Whether a class is the user's, by where it is found and not by what it says of itself."""
    if not kind.__flags__ & _HEAP_TYPE:
        return False
    found: Any = sys.modules.get(kind.__module__)
    library = installed(kind.__module__, found) or kind.__module__.partition(".")[0] == "wheeltap"
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return not library or found is not kind


def is_patch(name: str, held: Any) -> bool:
    """Whether something under a name was put into an installed module: it is of no installed file."""
    if type(held) is types.FunctionType:
        return not (of_library(held.__code__.co_filename) and holds(held.__code__) and at_home(held))
    if type(held) is types.BuiltinFunctionType:
        return held.__name__ != name
    if isinstance(held, functools.partial | types.MethodType | torch.jit.ScriptFunction | CACHE):
        return True
    return is_own(held if isinstance(held, type) else cast("type[Any]", type(held)))


def in_installed_module(value: object, name: str) -> bool:
    """Whether an object stands under a name in an installed module."""
    held = (one for one in list(sys.modules.values()) if type(one) is types.ModuleType and name in vars(one))
    return any(vars(one)[name] is value and installed(one.__name__, one) for one in held)


CALLED = ("forward", "__call__", "_call_impl", "_wrapped_call_impl")
"""Methods of a module by which torch calls it."""

_GENERATED = ("__init__", "__eq__", "__repr__", "__hash__", "__replace__", "__setstate__")
"""Methods that Python or torch.compile may write itself, and that no pass calls."""


def may_be_added(name: str, value: Any, code: Any, file: str) -> bool:
    """Whether an attribute of an installed class may be there or not: what another package adds, unless torch calls it.

    Args:
        name: Of the attribute.
        value: What it is.
        code: What it says, by ``Describer``.
        file: Of the class.
    """
    inner = getattr(value, "__func__", value)
    foreign = type(inner) is types.FunctionType and inner.__code__.co_filename != file
    return (
        name in _GENERATED
        or code is None
        or (foreign and name not in CALLED and name[:2] != "__" and _all_installed(code))
    )


def _all_installed(code: Any) -> bool:
    """Whether all of a function, and of what it closes over and calls, is from installed files."""
    if not isinstance(code, list):
        return False
    return all(_all_installed(one) for several in cast("list[list[Any]]", code[1:]) for one in several)
