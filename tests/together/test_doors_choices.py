"""Every choice that a public door takes is held against its words: a misspelled one is an error, never a default.

The walk finds the doors by itself: what ``wt`` exports, what these return, the verbs, and the settings of everything
that is registered. A parameter is a choice where it is a ``Literal``.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, get_args, get_type_hints

import pytest
import torch
from study_files import two_cohorts
from torch import nn

import wheeltap as wt
from wheeltap import gauge, perturb, sources
from wheeltap import recipes as recipe_package
from wheeltap.audits import Audit
from wheeltap.audits.base import audits, studies
from wheeltap.cli import application, main
from wheeltap.cli.options import ExecutionFlags, Output, RequestFlags
from wheeltap.core.errors import UnknownName, UsageError, WheeltapError
from wheeltap.core.settings import is_choice, words_of
from wheeltap.core.site import Site
from wheeltap.core.study import Cohort, CohortSpec, MemberSpec, Metric, Rule
from wheeltap.engine.readings import readings
from wheeltap.perturb import Perturbation, perturbations
from wheeltap.recipes.base import recipes
from wheeltap.report import gate, junit
from wheeltap.report.report import Report
from wheeltap.stats.members import base as members
from wheeltap.studies.base import Study

MISSPELLED = "cannot_tel"

RESULTS = {
    "Plan", "Progress", "Report", "Verification", "Artifact", "SealReport", "MemberOrigin", "LoadedPair", "Seal",
    "Family", "CircuitSearchResult", "Refusal", "Likeness", "SparseNet", "LoadedModel",
}  # fmt: skip
"""Classes that the package makes, not the caller: their methods are doors, their constructors are not."""


def _own(value: object) -> bool:
    return getattr(value, "__module__", "").startswith("wheeltap")


def _exports() -> Iterator[tuple[str, Any]]:
    modules = (gauge, perturb, recipe_package, sources)
    kinds = (MemberSpec, Audit, CohortSpec, Cohort, Metric, Perturbation, Rule, Site, Study)
    for name, found in (
        *((name, getattr(wt, name)) for name in wt.__all__),
        *((m.__name__.removeprefix("wheeltap."), m) for m in modules),
    ):
        if not isinstance(found, ModuleType):
            yield f"wt.{name}", found
            continue
        own = [key for key, one in vars(found).items() if getattr(one, "__module__", None) == found.__name__]
        for key in getattr(found, "__all__", [key for key in own if not key.startswith("_")]):
            yield f"wt.{name}.{key}", getattr(found, key)
    yield from ((f"stats.members.{name}", getattr(members, name)) for name in vars(members) if not name.startswith("_"))
    yield from ((f"gate.{name}", getattr(gate, name)) for name in ("exit_code", "failing", "require_passed"))
    yield "junit", junit.junit
    yield from ((kind.__name__, kind) for kind in kinds)


def _returned(door: Callable[..., Any]) -> list[type]:
    """Classes of ours among what a door returns."""
    found = inspect.signature(door).return_annotation
    return [one for one in (found, *get_args(found)) if inspect.isclass(one) and _own(one)]


def _doors() -> dict[str, Callable[..., Any]]:
    """Functions, constructors and methods that a caller can reach, by name."""
    found, classes, seen = dict[str, Callable[..., Any]](), list[tuple[str, type]](), set[type]()
    for name, one in _exports():
        if inspect.isclass(one) and _own(one):
            classes.append((name, one))
        elif isinstance(one, FunctionType) and _own(one):
            found[name] = one
            classes += [(kind.__name__, kind) for kind in _returned(one)]
    while classes:
        name, kind = classes.pop()
        if kind in seen:
            continue
        seen.add(kind)
        if kind.__name__ not in RESULTS and not inspect.isabstract(kind) and not issubclass(kind, WheeltapError):
            found[name] = kind
        for key, bound in inspect.getmembers(kind):
            one = bound.__func__ if inspect.ismethod(bound) else bound
            if isinstance(one, FunctionType) and _own(one) and (not key.startswith("_") or key == "__getitem__"):
                found[f"{name}.{key}"] = one
                classes += [(each.__name__, each) for each in _returned(one)]
    return found


def _parameters() -> Iterator[tuple[str, Callable[..., Any], inspect.Parameter]]:
    for name, door in _doors().items():
        for one in inspect.signature(door).parameters.values():
            if one.name not in ("self", "cls"):
                yield name, door, one


CHOICES = [
    (name, door, one)
    for name, door, one in _parameters()
    if is_choice(one.annotation) and not name.startswith(("wt.measure.", "wt.gauge.twin"))  # others are looked at first
]


def _misspelled(door: Callable[..., Any], one: inspect.Parameter) -> None:
    """Calls a door with one choice misspelled; everything else that it needs is not looked at before."""
    needed = [each for each in inspect.signature(door).parameters.values() if each.default is each.empty]
    rest = {
        each.name: next(iter(words_of(each.annotation)), None)
        for each in needed
        if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    }
    door(**{**rest, one.name: MISSPELLED})


def test_a_door_refuses_a_misspelled_choice() -> None:
    for name, door, parameter in CHOICES:
        with pytest.raises(UsageError) as caught:
            _misspelled(door, parameter)
        words = words_of(parameter.annotation)
        assert MISSPELLED in str(caught.value) and all(word in str(caught.value) for word in words), name
        assert isinstance(caught.value, UnknownName) or not words, name
    found = {(name, parameter.name) for name, _, parameter in CHOICES}
    assert found >= {("Report.check", "fail_on"), ("Report.junit", "fail_on"), ("wt.audit", "partial"),
                     ("Control", "status"), ("Study.sized", "size"), ("Rule", "statistic")}  # fmt: skip


@pytest.mark.parametrize("word", ["cannot_tell", "Costs", "", None, True])
def test_a_gate_never_opens_for_a_word_that_it_does_not_know(word: Any, small: Report, tmp_path: Path) -> None:
    """Of each door that takes the verdict."""
    for door in (
        lambda: small.check(fail_on=word),
        lambda: small.check({"int8": 1.0}, fail_on=word),
        lambda: small.junit(tmp_path / "g.xml", fail_on=word),
        lambda: gate.exit_code(small.record, word),
        lambda: gate.require_passed(small.record, word),
        lambda: junit.junit(small.record, word),
    ):
        with pytest.raises(UnknownName, match="cannot-tell, costs, may-cost, never"):
            door()
    assert not (tmp_path / "g.xml").exists()


# ---- names of what is registered ------------------------------------------------------------------------------------


def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 3)).eval()


INPUTS = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    TARGETS = net()(INPUTS).argmax(1)


@pytest.fixture(scope="module")
def small() -> Report:
    return wt.audit(net(), (INPUTS, TARGETS), schemes="int8")


def asks(door: Callable[..., object] = wt.plan, **settings: Any) -> Callable[[Report], object]:
    models = (net(), net()) if door is wt.compare else (net(),)
    return lambda _: door(*models, (INPUTS, TARGETS), **settings)


CHECKED: dict[str, Callable[[Report], object]] = {
    "audits": asks(audits=MISSPELLED),
    "slices": asks(wt.compare, slices=MISSPELLED),
    "schemes": asks(wt.audit, schemes=MISSPELLED),
    "one of several schemes": asks(schemes=["int8", None]),
    "budget": asks(wt.audit, budget=MISSPELLED),
    "measure": asks(wt.compare, measure=MISSPELLED),
    "shard": asks(wt.audit, audits="score", shard=MISSPELLED, store="part.wheeltap"),
    "a setting of an audit": asks(audits=wt.AuditSpec("pruning", {"margn": 0.1})),
    "the word of a setting": asks(audits=wt.AuditSpec("redundancy", {"to": "mena"})),
    "schemes among settings": asks(audits=wt.AuditSpec("deployment", {"schemes": "int5x"})),
    "measure of a task": lambda _: wt.Task(INPUTS, TARGETS, measure=MISSPELLED),
    "decoding": lambda _: wt.GenerationTask([[1]], [[2]], decoding={"chainz": 2}),
    "study": lambda _: wt.study(MISSPELLED),
    "a setting of a study": lambda _: wt.study("pictures", settings={"picture": "fase"}),
    "operations": lambda _: gauge.describe(next(iter(gauge.FAMILIES)), MISSPELLED, seed=0),
    "a setting of a perturbation": lambda _: perturb.create("flip", {"formt": "int8"}),
    "a setting of a search": lambda _: wt.circuits.find(net(), wt.Task(INPUTS, TARGETS), methd="eap"),
    "model": lambda _: wt.load("digitz"),
    "code": lambda report: report["WT999"],
    "a scheme that is limited": lambda report: report.check({"int4": 0.02}),
    "a limit": lambda report: report.check({"int8": "low"}),  # type: ignore[dict-item]
}
"""Doors that take names of what is registered, each called with one that is not."""


@pytest.mark.parametrize("name", CHECKED)
def test_a_misspelled_name_is_refused(name: str, small: Report) -> None:
    with pytest.raises(WheeltapError):
        CHECKED[name](small)


def test_a_misspelled_choice_among_settings_is_refused() -> None:
    """Of whatever is registered."""
    count = 0
    for registry in (audits, studies, perturbations, recipes, readings):
        for kind in map(registry.get, registry):
            made: Any = kind if hasattr(kind, "settings_type") else kind.spec
            hints = get_type_hints(made.settings_type)
            for name in (name for name in hints if words_of(hints[name])):
                count += 1
                with pytest.raises(WheeltapError) as caught:
                    made({name: MISSPELLED})
                assert all(str(word) in str(caught.value) for word in words_of(hints[name])), (made, name)
    assert count > 20


# ---- files ----------------------------------------------------------------------------------------------------------

STUDY = two_cohorts(("wide", 'hidden = "64"'), ("narrow", 'hidden = "16"'), scheme="nf4", seeds=12)


def test_every_name_in_the_file_of_a_study_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each word that is a choice or the name of something, one after another with a letter more."""
    place, out = tmp_path / "own.toml", ["-o", str(tmp_path / "own.plan.json")]
    place.write_text(STUDY)
    assert main(["plan", "study", str(place), *out]) == 0, capsys.readouterr()
    free = {"question", "hidden"}
    lines = STUDY.splitlines()
    words = [(at, found[1]) for at, line in enumerate(lines) for found in re.finditer(r'"([\w-]+)"', line)
             if line.partition(" =")[0] not in free and found[1] not in ("64", "16")]  # fmt: skip
    assert len(words) == 14
    for at, word in words:
        place.write_text("\n".join([*lines[:at], lines[at].replace(f'"{word}"', f'"{word}x"', 1), *lines[at + 1 :]]))
        assert main(["plan", "study", str(place), *out]) == 2, lines[at]
        assert f"{word}x" in (said := capsys.readouterr().err), said
        assert "Traceback" not in said


def test_every_choice_in_a_settings_file_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hints = {name: one for kind in (RequestFlags, ExecutionFlags, Output) for name, one in get_type_hints(kind).items()}
    choices = {name: words_of(one) for name, one in hints.items() if is_choice(one)}
    assert "fail_on" in choices and "partial" in choices
    for name, words in choices.items():
        (tmp_path / "own.toml").write_text(f'{name} = "{MISSPELLED}"\n')
        assert main(["audit", "digits", "--config", str(tmp_path / "own.toml")]) == 2
        said = capsys.readouterr().err
        assert all(word in said for word in words) and name.replace("_", "-") in said and "own.toml" in said, said


# ---- the command line -----------------------------------------------------------------------------------------------


WITHIN = {
    "circuits": ("find", "check", "train"),
    "claims": ("list", "show", "check", "why", "retest"),
    "dictionary": ("train", "check"),
    "init": ("ci",),
    "study": ("pictures", "detection"),
}
BEFORE: dict[tuple[str, ...], list[str]] = {
    ("audit",): ["digits"],
    ("compare",): ["digits", "digits"],
    ("plan",): ["digits"],
    ("study",): ["mine.toml"],
    ("doctor", "--plant"): ["digits"],
    ("seal",): ["digits"],
    ("run",): ["own.plan.json"],
    ("circuits", "find"): ["digits", "--task", "agreement"],
    ("circuits", "check"): ["digits", "own.json", "--task", "agreement"],
    ("init", "ci"): ["digits"],
    ("dictionary", "train"): ["digits", "--site", "0"],
    ("dictionary", "check"): ["digits", "own.safetensors", "--site", "0"],
}
"""What each verb is given before a flag is misspelled."""

FLAGS = [
    ("audit", "--for", "int5x"), ("audit", "--audits", "scor"), ("audit", "--budget", "10x"),
    ("audit", "--slice", "clas"),
    ("audit", "--task", "lm_eval:arc,limt=2"), ("compare", "--data", "nowhere.npz"), ("run", "--memory", "lots"),
    ("run", "--shard", "three/8"), ("doctor --plant", "--defects", "cancl"),
    ("seal", "--expires", "tomorrow"), ("circuits find", "--task", "quot"), ("circuits check", "--task", "quot"),
    ("dictionary train", "--site", "nowhere"),
]  # fmt: skip
"""Flags that take names, or have a grammar, each with a word that is none."""

NAMED = {"audit": ["digitz"], "compare": ["digits", "digitz"], "study": ["pictres"], "list": ["audits", "scor"]}
"""Verbs whose first words are names, misspelled."""


def _commands() -> list[tuple[tuple[str, ...], Any]]:
    app = application(overview=False)
    groups = ("circuits", "claims", "dictionary", "init")
    own = {(verb,): app[verb] for verb in app if verb not in groups and not verb.startswith("-")}
    own |= {(verb, name): app[verb][name] for verb, names in WITHIN.items() for name in names}
    own[("doctor", "--plant")] = app["doctor"]["--plant"]
    return [(words, one) for words, command in own.items() for one in command.assemble_argument_collection()]


COMMANDS = [(words, one) for words, one in _commands() if one.name != "*" and one.parse]


def test_a_verb_refuses_a_misspelled_choice(capsys: pytest.CaptureFixture[str]) -> None:
    choices = [(words, one) for words, one in COMMANDS if words_of(one.hint)]
    assert len(choices) > 20
    for words, one in choices:
        needed = ["x" for each, other in COMMANDS if each == words and other.required and other.index is not None]
        flag = [*BEFORE.get(words, needed), one.name] if one.index is None else []
        assert main([*words, *flag, MISSPELLED]) == 2
        said = capsys.readouterr().err
        assert all(str(word) in said for word in words_of(one.hint)) and MISSPELLED in said, said


def test_none_is_no_choice_and_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    for flag, word in (("--fail-on", "none"), ("--margin", "None"), ("--alpha", "null")):
        assert main(["audit", "digits", flag, word]) == 2
        said = capsys.readouterr().err
        assert flag in said and word in said


@pytest.mark.parametrize(("verb", "flag", "word"), FLAGS)
def test_a_flag_of_names_refuses_one_that_there_is_not(
    verb: str, flag: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    words = tuple(verb.split())
    before = BEFORE.get(words, [])
    assert main([*words, *(before[: before.index(flag)] if flag in before else before), flag, word]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and "bug" not in said, said
    assert any(part in said for part in re.split(r"[=,:]", word)), said


@pytest.mark.parametrize("verb", NAMED)
def test_a_verb_refuses_a_name_that_there_is_not(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([verb, *NAMED[verb]]) == 2
    said = capsys.readouterr().err
    assert NAMED[verb][-1] in said and "Traceback" not in said, said
