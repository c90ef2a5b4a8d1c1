"""Every error message we raise on purpose is pinned, word for word, in tests/snapshots/errors.txt.

A changed message is a changed contract: run ``python tests/test_errors.py`` to renew the file, and read the diff.
"""

import ast
from functools import cache
from pathlib import Path

import wheeltap

SOURCE = Path(wheeltap.__file__).parent
SNAPSHOT = Path(__file__).parent / "snapshots" / "errors.txt"
ROOT = "WheeltapError"


def _error_names(nodes: dict[str, list[ast.AST]]) -> set[str]:
    """Names of WheeltapError and all its subclasses, found by following the bases in the source."""
    bases = {
        node.name: {b.id for b in node.bases if isinstance(b, ast.Name)}
        for some in nodes.values()
        for node in some
        if isinstance(node, ast.ClassDef)
    }
    names = {ROOT}
    while True:
        grown = names | {name for name, parents in bases.items() if parents & names}
        if grown == names:
            return names
        names = grown


@cache
def _messages() -> list[str]:
    nodes = {
        str(path.relative_to(SOURCE)): [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call | ast.ClassDef)
        ]
        for path in sorted(SOURCE.rglob("*.py"))
    }
    names, said = _error_names(nodes), list[str]()
    for path, some in nodes.items():
        if path == "core/errors.py":
            continue
        found = [
            node
            for node in some
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
        ]
        for call in sorted(found, key=lambda node: (node.lineno, node.col_offset)):
            rows = [f"{path}: {ast.unparse(call.func)}", *(f"  {ast.unparse(value)}" for value in call.args)]
            rows += [f"  {word.arg} = {ast.unparse(word.value)}" for word in call.keywords]
            said.append("\n".join(rows))
    return said


def test_every_message_is_pinned() -> None:
    assert "\n\n".join(_messages()) + "\n" == SNAPSHOT.read_text()


def test_every_message_says_more_than_what_went_wrong() -> None:
    bare = [m.splitlines()[0] + m.splitlines()[1] for m in _messages() if m.count("\n") < 2]
    assert bare == []


if __name__ == "__main__":
    SNAPSHOT.parent.mkdir(exist_ok=True)
    SNAPSHOT.write_text("\n\n".join(_messages()) + "\n")
