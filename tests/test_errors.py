"""Every error raised on purpose names the problem, its place or the value found, and what is expected or to be done."""

import ast
from functools import cache
from pathlib import Path

import wheeltap
from wheeltap.core.errors import MissingExtra, UnknownName

SOURCE = Path(wheeltap.__file__).parent

COMPLETE_BY_ITSELF = {
    "UnknownName": "its constructor lists the known names, quotes the unknown one and suggests the nearest",
    "MissingExtra": "its constructor gives the feature that needs the package and the command that installs it",
}
"""Classes whose constructor writes the message, and why a call needs no keyword."""

NO_FIX = {
    "A layer's inputs are not finite on the task.": "a status of one trial: the cause lies in the model",
    "An array of the seal cannot be read.": "a caller adds the file and the fix",
    "No reparametrized copy can be made.": "`got` says which property of the model prevents it",
    "Nothing can be planted in this model.": "`got` says which property of the model prevents it",
    "Nothing can be rewritten in this net.": "`got` says which property of the model prevents it",
    "A number of a net is not finite.": "an internal check: studies drop such members before",
    "The plan is not that of a study.": "an internal check: doors choose by the plan's command",
    "What a member is made from is no member of the study.": "an internal check of a damaged store",
    "A member of the study was not made.": "`got` is the status that the recipe ended with",
    "No checkpoint fits the pattern.": "`got` is the pattern",
    "A text has no other answers than its own tokens.": "an internal check: no flag leads there",
    "Examples of several test sets stay in their order.": "an internal check: no flag leads there",
}
"""First lines of messages without a fix, and why there is none."""

NEEDS = "perturb/"
"""Perturbations refuse a layer whose statistics were not gathered: an internal check, with only the layer to name."""


@cache
def _trees() -> dict[str, ast.Module]:
    return {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}


@cache
def _definitions() -> list[ast.ClassDef]:
    return [node for tree in _trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def _classes() -> set[str]:
    """Names of WheeltapError and its subclasses, found by following the bases in the source."""
    names = {"WheeltapError"}
    while True:
        derived = {
            definition.name
            for definition in _definitions()
            if any(isinstance(base, ast.Name) and base.id in names for base in definition.bases)
        }
        if derived <= names:
            return names
        names |= derived


@cache
def _calls() -> list[tuple[str, str, ast.Call]]:
    """Path, class name and call of every error made in the source."""
    names = _classes()
    return [
        (path, node.func.id, node)
        for path, tree in _trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
    ]


def _missing(path: str, call: ast.Call) -> list[str]:
    """Parts of the message that a call of an error class leaves out."""
    given = {
        keyword.arg
        for keyword in call.keywords
        if not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
    }
    first = ast.literal_eval(call.args[0]) if call.args and isinstance(call.args[0], ast.Constant) else ""
    rules = {
        "what": len(call.args) == 1 and not (isinstance(call.args[0], ast.Constant) and not first),
        "where or got": bool(given & {"where", "got"}),
        "expected or do": bool(given & {"expected", "do"}) or first in NO_FIX or path.startswith(NEEDS),
    }
    return [part for part, met in rules.items() if not met]


def test_every_error_says_what_where_and_what_to_do() -> None:
    calls = _calls()
    incomplete = [
        f"{path}:{call.lineno}: {name} lacks {', '.join(missing)}"
        for path, name, call in calls
        if name not in COMPLETE_BY_ITSELF and (missing := _missing(path, call))
    ]
    assert len(calls) > 300
    assert incomplete == []


def test_exceptions_of_the_rule_are_still_in_use() -> None:
    first_lines = {ast.unparse(call.args[0]) for _, _, call in _calls() if call.args}
    assert [line for line in NO_FIX if repr(line) not in first_lines] == []


def test_classes_that_write_their_message_write_all_of_it() -> None:
    errors = (UnknownName("task", "digts", ["digits"]), MissingExtra("gguf", "llm", needed_for="model.gguf"))
    assert {type(error).__name__ for error in errors} == set(COMPLETE_BY_ITSELF)
    for error in errors:
        assert error.what and (error.where or error.got) and error.do


def test_no_other_class_has_a_constructor_of_its_own() -> None:
    names = _classes()
    own = {
        definition.name
        for definition in _definitions()
        if definition.name in names
        and any(isinstance(member, ast.FunctionDef) and member.name == "__init__" for member in definition.body)
    }
    assert own == {"WheeltapError", *COMPLETE_BY_ITSELF}
