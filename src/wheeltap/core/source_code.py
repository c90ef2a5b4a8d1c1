"""Source of functions: what loaded code does, by the file that it comes from, where that file holds the same code.

Bytecode differs between versions of Python; the syntax tree of a function does not. Names, files and lines of loaded
code can be set to anything, so the file is compiled and its code compared with what was loaded.
"""

import ast
import linecache
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, cast, final

_UNTOLD: Final = frozenset({"type_comment", "kind", "type_params", "ctx"})
"""Fields of syntax trees that some versions of Python know alone, or that say nothing more."""

_Key = tuple[str, int]


@final
@dataclass(frozen=True)
class _File:
    codes: dict[_Key, list[types.CodeType]] = field(default_factory=dict[_Key, list[types.CodeType]])
    nodes: dict[_Key, list[ast.AST]] = field(default_factory=dict[_Key, list[ast.AST]])


def holds(code: types.CodeType) -> bool:
    """Whether the file that the code names holds this code."""
    return any(same_code(one, code) for one in _file(code).codes.get(_key(code), []))


def text(code: types.CodeType) -> str | None:
    """The syntax tree of a function as text, without its docstring; ``None`` where no file holds this code."""
    nodes = _file(code).nodes.get(_key(code), []) if holds(code) else []
    return _told(nodes[0]) if len(nodes) == 1 else None


def _key(code: types.CodeType) -> _Key:
    return code.co_name, code.co_firstlineno


def _file(code: types.CodeType) -> _File:
    path = code.co_filename
    linecache.checkcache(path)
    lines = linecache.getlines(path)  # the same list while the file is the same
    if path not in _READ or _READ[path][0] is not lines:
        _READ[path] = (lines, _read("".join(lines), path))
    return _READ[path][1]


_READ: Final[dict[str, tuple[list[str], _File]]] = {}
"""Files that were read and compiled, with the lines that they had."""


def _read(text: str, path: str) -> _File:
    found = _File()
    try:
        tree, whole = ast.parse(text), compile(text, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return found
    for code in _codes(whole):
        found.codes.setdefault(_key(code), []).append(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            found.nodes.setdefault((node.name, first), []).append(node)
        elif isinstance(node, ast.Lambda):
            found.nodes.setdefault(("<lambda>", node.lineno), []).append(node)
    return found


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes(constant)


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


def _told(value: Any) -> str:
    """A part of a syntax tree as text; functions and classes without their docstrings."""
    if isinstance(value, ast.AST):
        parts = [
            f"{name}={_told(held)}" for name, held in _fields(value) if name not in _UNTOLD and held not in (None, [])
        ]
        return f"{type(value).__name__}({', '.join(parts)})"
    if isinstance(value, list):
        return f"[{', '.join(map(_told, cast('list[Any]', value)))}]"
    return f"{type(value).__name__} {value!r}"


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    documented = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node)
    for name, held in ast.iter_fields(node):
        yield name, held[1:] if documented and name == "body" else held
