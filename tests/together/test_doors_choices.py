"""Every choice that a public door takes is held against its words: a misspelled one is an error, never a default.

The walk finds the doors by itself: what ``wt`` exports, what these return, the verbs, the settings of everything that
is registered, and the records of a study. A parameter of text is a choice (``Literal``), the name of something that is
registered (it is misspelled below), or stands in ``FREE``: text that may say anything.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
import torch
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
from wheeltap.suites.dictionaries.dictionary import DictionarySettings

MISSPELLED = "cannot_tel"

FREE = {
    "a name that the caller chooses": {"name", "names", "title", "label", "labels", "command", "again", "what"},
    "a path": {"path", "store", "made", "folder", "key", "seal", "circuit", "data", "out", "model", "files", "base"},
    "words for the reader": {"where", "expected", "got", "do", "no_controls", "cuts", "about", "package", "extra",
                             "needed_for", "because", "text", "audit", "conversion"},
    "content of what is given": {"inputs", "targets", "more", "votes", "groups", "factors", "task", "kind", "known",
                                 "first", "given", "values", "prompts"},
    "names of parts of one model or plan": {"subject", "fingerprint", "tied", "models", "right", "fixed", "sources",
                                            "versions", "scheme", "layer", "parameter", "specs"},
}  # fmt: skip
"""Reviewed: text that is no choice, by what it is."""

LATER = {
    "MemberSpec": {"of", "recipe", "settings", "source"}, "Cohort": {"members", "training"}, "StudySpec": {"settings"},
    "Rule": {"code", "metric", "cohorts", "with_metric", "beyond", "supports", "refutes", "otherwise"},
    "AuditMetric": {"settings", "estimate"}, "Metric": {"code", "unit", "reads"}, "MetricRow": {"verdict"},
    "Plan.trial": {"perturbation", "settings"}, "Plan.reading": {"reading", "settings"},
    "Trial": {"measures", "perturbation", "settings"}, "Finding": {"code", "verdict", "brief", "trials"},
    "Instrument": {"code", "axis", "reads", "otherwise", "asks"},
    "Hypothesis": {"found", "otherwise", "undecided", "brief"},
    "Verdict": {"answered"}, "StudyAnswer": {"headline", "notes", "caveats"},
    "MemberTable": {"numbers", "lost"},
    "Section": {"says", "brief"}, "Estimate": {"method", "unit"}, "Estimate.exact": {"unit"},
    "Single": {"method"}, "stats.members.MemberTest": {"method", "unit"}, "wt.seal.make": {"watch"},
}  # fmt: skip
"""Records that authors of audits and studies write: words for the reader; and names that are held against the plan, the
study or the registry where it is planned or run, for a record does not know them."""

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


DOORS = list(_parameters())
CHOICES = [(name, door, one) for name, door, one in DOORS if is_choice(one.annotation)]


def _is_text(annotation: object) -> bool:
    return bool(re.search(r"\bstr\b", inspect.formatannotation(annotation)))


TEXTS = {(name, one.name) for name, _, one in DOORS if not is_choice(one.annotation) and _is_text(one.annotation)}


def _misspelled(door: Callable[..., Any], one: inspect.Parameter) -> None:
    """Calls a door with one choice misspelled; everything else that it needs is not looked at before."""
    needed = [each for each in inspect.signature(door).parameters.values() if each.default is each.empty]
    rest = {
        each.name: next(iter(words_of(each.annotation)), None)
        for each in needed
        if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    }
    door(**{**rest, one.name: MISSPELLED})


def told_apart(one: object) -> str:
    """A name that is the same in every test process."""
    return str(getattr(one, "name", None) or getattr(one, "__name__", None) or str(one)[:40])


@pytest.mark.parametrize(("name", "door", "one"), CHOICES, ids=told_apart)
def test_a_door_refuses_a_misspelled_choice(name: str, door: Callable[..., Any], one: inspect.Parameter) -> None:
    with pytest.raises(UsageError) as caught:
        _misspelled(door, one)
    words = words_of(one.annotation)
    assert MISSPELLED in str(caught.value), name
    assert all(word in str(caught.value) for word in words), name
    assert isinstance(caught.value, UnknownName) or not words, name


def test_the_walk_finds_the_choices_there_are() -> None:
    found = {(name, one.name) for name, _, one in CHOICES}
    known = {("Report.check", "fail_on"), ("Report.junit", "fail_on"), ("wt.audit", "partial"), ("Control", "status"),
             ("Study.sized", "size"), ("Rule", "statistic"), ("CohortSpec", "role")}  # fmt: skip
    assert known <= found


@pytest.mark.parametrize("word", ["cannot_tell", "may_cost", "Costs", "strict", "", None, True, 3])
def test_a_gate_never_opens_for_a_word_that_it_does_not_know(word: Any, small: Report, tmp_path: Path) -> None:
    """Of each door that takes the verdict; the nearest word is named where there is one."""
    near = {"cannot_tell": "cannot-tell", "may_cost": "may-cost", "Costs": "costs"}.get(word, "Choose one of")
    for door in (
        lambda: small.check(fail_on=word),
        lambda: small.check({"int8": 1.0}, fail_on=word),
        lambda: small.junit(tmp_path / "g.xml", fail_on=word),
        lambda: gate.exit_code(small.record, word),
        lambda: gate.require_passed(small.record, word),
        lambda: junit.junit(small.record, word),
    ):
        with pytest.raises(UnknownName, match="cannot-tell, costs, may-cost, never") as caught:
            door()
        assert near in str(caught.value)
    assert not (tmp_path / "g.xml").exists()


# ---- names of what is registered, and text that may say anything ----------------------------------------------------


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x)


class Parts(Half):
    def forward(self, x: torch.Tensor) -> Any:
        return {"logits": self.one(x), "hidden": x}


def named_output(**given: Any) -> wt.Subject:
    return wt.Subject(Parts().eval(), **given)


def _chosen(output: str) -> wt.Subject:
    subject = named_output()
    subject.choose(output)
    return subject


def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Half().eval()


INPUTS = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    TARGETS = net()(INPUTS).argmax(1)


@pytest.fixture(scope="module")
def small() -> Report:
    return wt.audit(net(), (INPUTS, TARGETS), schemes="int8")


def asks(**given: Any) -> Callable[[Report], object]:
    return lambda _: wt.plan(net(), (INPUTS, TARGETS), **given)


def judged(**given: Any) -> Callable[[Report], object]:
    return lambda _: wt.audit(net(), (INPUTS, TARGETS), **given)


def compared(**given: Any) -> Callable[[Report], object]:
    return lambda _: wt.compare(net(), net(), (INPUTS, TARGETS), **given)


def _table(report: Report) -> Any:
    from wheeltap.studies.table import MemberTable

    cohort = Cohort(name="one", members=("a",))
    return MemberTable((cohort,), (Metric(key="loss", title="Loss", unit=""),), {}, {})


def _family() -> Any:
    found = gauge.find(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval())
    assert isinstance(found, gauge.Family)
    return found


CHAIN = next(name for name in gauge.FAMILIES if "relu" in name)
ONE = (
    {"audits": MISSPELLED}, {"slices": MISSPELLED}, {"schemes": MISSPELLED}, {"schemes": ["int8", None]},
    {"budget": MISSPELLED},
)  # fmt: skip
CHECKED: dict[tuple[str, str], list[Callable[[Report], object]]] = {
    **{(f"wt.{verb}", key): [of(**one) for one in ONE if key in one]
       for verb, of in (("audit", judged), ("compare", compared), ("plan", asks))
       for key in ("audits", "schemes", "slices", "budget", "measure")},
    ("wt.AuditSpec", "settings"): [asks(audits=wt.AuditSpec("pruning", {"margn": 0.1})),
                                   asks(audits=wt.AuditSpec("redundancy", {"to": "mena"}))],
    ("Subject", "output"): [lambda _: wt.audit(named_output(output=MISSPELLED), (INPUTS, TARGETS), schemes="int8")],
    ("Subject.choose", "output"): [lambda _: wt.audit(_chosen(MISSPELLED), (INPUTS, TARGETS), schemes="int8")],
    ("wt.callbacks.TrainingAudit", "schemes"): [
        lambda _: wt.callbacks.TrainingAudit((INPUTS, TARGETS), every=1, schemes=MISSPELLED)
    ],
    ("wt.Task", "measure"): [lambda _: wt.Task(INPUTS, TARGETS, measure=MISSPELLED)],
    **{(f"{kind}.scored_by", "measure"): [lambda _: wt.Task(INPUTS, TARGETS).scored_by(MISSPELLED)]
       for kind in ("BaseTask", "wt.Task", "ChoiceTask")},
    ("wt.audit", "shard"): [judged(audits="score", shard=MISSPELLED, store="part.wheeltap")],
    ("wt.compare", "shard"): [compared(audits="score", shard=MISSPELLED, store="part.wheeltap")],
    ("wt.study", "shard"): [lambda _: wt.study("pictures", shard=MISSPELLED, store="part.wheeltap")],
    ("wt.run", "shard"): [lambda _: wt.run(asks(audits="score")(_), net(), (INPUTS, TARGETS), shard=MISSPELLED)],  # type: ignore[arg-type]
    ("wt.GenerationTask.scored_by", "measure"): [lambda _: wt.GenerationTask([[1]], [[2]]).scored_by(MISSPELLED)],
    ("wt.GenerationTask", "decoding"): [lambda _: wt.GenerationTask([[1]], [[2]], decoding={"chainz": 2})],
    ("wt.study", "which"): [lambda _: wt.study(MISSPELLED)],
    ("wt.study", "settings"): [lambda _: wt.study("pictures", settings={"pictur": "face"}),
                               lambda _: wt.study("pictures", settings={"picture": "fase"}),
                               lambda _: wt.study("declared", settings={"declaration": "{"})],
    ("wt.gauge.describe", "family"): [lambda _: gauge.describe(MISSPELLED, "permute", seed=0)],
    ("wt.gauge.describe", "operations"): [lambda _: gauge.describe(CHAIN, MISSPELLED, seed=0)],
    ("wt.gauge.describe", "settings"): [lambda _: gauge.describe(CHAIN, "rescale", seed=0, spred=1.0)],
    ("Family.why_not", "gauge"): [lambda _: _family().why_not(MISSPELLED)],
    ("wt.perturb.create", "settings"): [lambda _: perturb.create("flip", {"formt": "int8"}),
                                        lambda _: perturb.create("flip", {"bit": "sing"})],
    ("wt.circuits.find", "settings"): [lambda _: wt.circuits.find(net(), wt.Task(INPUTS, TARGETS), methd="eap"),
                                       lambda _: wt.circuits.find(net(), wt.Task(INPUTS, TARGETS), method="epa")],
    ("wt.seal.SealOptions", "expires"): [lambda _: wt.seal.SealOptions(expires="tomorrow")],
    ("wt.load", "spec"): [lambda _: wt.load("digitz")],
    ("wt.sources.load", "spec"): [lambda _: sources.load("digitz")],
    ("wt.sources.load_model", "spec"): [lambda _: sources.load_model("digitz")],
    ("Report.__getitem__", "code"): [lambda r: r["WT999"], lambda r: r[100]],  # type: ignore[index]
    ("Report.check", "max_loss"): [lambda r: r.check({"int4": 0.02}), lambda r: r.check({"int8": "low"}),  # type: ignore
                                   lambda r: r.check("costs"), lambda r: r.check({})],  # type: ignore[arg-type]
    ("MemberTable.having", "cohort"): [lambda r: _table(r).having("two", [])],
    ("MemberTable.having", "keys"): [lambda r: _table(r).having("one", ["lss"])],
    ("MemberTable.singles", "cohort"): [lambda r: _table(r).singles("two", "loss")],
    ("MemberTable.values", "cohort"): [lambda r: _table(r).values("two", "loss")],
}  # fmt: skip
"""Doors that take names of what is registered, each called with one that is not."""


def test_every_parameter_of_text_is_a_choice_a_name_that_is_checked_or_free() -> None:
    """A new one must be ``Literal``, be misspelled in ``CHECKED``, or be reviewed and stand in ``FREE``."""
    free = set[str]().union(*FREE.values())
    later = {(name, one) for name, several in LATER.items() for one in several}
    assert {(name, one) for name, one in TEXTS if one not in free} - later == CHECKED.keys()
    assert later <= TEXTS


def test_free_text_is_nowhere_compared_with_words() -> None:
    """What is compared with words of ours in the body of a door is a choice, whatever its name."""
    found = set[tuple[str, str]]()
    for name, door in _doors().items():
        body = inspect.unwrap(door)
        if not isinstance(body, FunctionType):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(body)))
        for node in ast.walk(tree):
            sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
            named = {side.id for side in sides if isinstance(side, ast.Name)}
            listed = [one for side in sides for one in getattr(side, "elts", [side])]
            if any(isinstance(one, ast.Constant) and isinstance(one.value, str) and one.value for one in listed):
                found |= {(name, one) for one in named if (name, one) in TEXTS}
    assert found == set()


@pytest.mark.parametrize(("door", "of"), [(door, of) for of, several in CHECKED.items() for door in several])
def test_a_misspelled_name_is_refused(door: Callable[[Report], object], of: tuple[str, str], small: Report) -> None:
    with pytest.raises(WheeltapError, match=r"expected: |what to do: "):
        door(small)


# ---- settings of everything that is registered ----------------------------------------------------------------------

OPEN = {
    "a path": {"corpus", "genome", "nets", "data", "model", "models"},
    "a name in the task or the model, checked where that is known": {
        "factors",
        "layers",
        "label",
        "other",
        "also",
        "site",
        "attributes",
    },
    "a circuit as it is packed": {"circuit"},
    "what the explorer or a recipe of pictures reads": {"named", "source", "units", "layout", "picture"},
    "an image's size": {"image"},
    "words for the reader": {"notes"},
}
SETTINGS = [
    (made, kind.settings_type if hasattr(kind, "settings_type") else kind.spec.settings_type)
    for registry in (audits, studies, perturbations, recipes, readings)
    for kind in map(registry.get, registry)
    for made in (kind if hasattr(kind, "settings_type") else kind.spec,)
]


@pytest.mark.parametrize(("made", "kind"), SETTINGS, ids=lambda one: getattr(one, "name", None) or one.__name__)
def test_a_misspelled_setting_is_refused(made: Any, kind: type[msgspec.Struct]) -> None:
    """Words and names in settings, of whatever is registered; what is free text was reviewed."""
    free = set[str]().union(*OPEN.values())
    hints = get_type_hints(kind)
    for name in (field.name for field in msgspec.structs.fields(kind)):
        if words_of(hints[name]) or (_is_text(hints[name]) and name not in free):
            with pytest.raises(WheeltapError) as caught:
                made({name: MISSPELLED})
            assert all(str(word) in str(caught.value) for word in words_of(hints[name])), name


# ---- files ----------------------------------------------------------------------------------------------------------

STUDY = """
question = "Do wide nets lose less at 4 bits?"
examples = "digits"
[cohorts.wide]
recipe = "digits"
settings = {hidden = "64"}
seeds = 12
role = "studied"
[cohorts.narrow]
recipe = "digits"
settings = {hidden = "16"}
seeds = 12
role = "compared"
[metrics.loss4]
audit = "deployment"
settings = {schemes = "nf4"}
scheme = "nf4"
toward = "low"
[[rules]]
metric = "loss4"
cohorts = ["wide", "narrow"]
statistic = "difference"
direction = "less"
margin = 0.01
"""


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
        assert not words or 'Did you mean "cannot-tell"?' in said


# ---- the command line -----------------------------------------------------------------------------------------------


WITHIN = {
    "circuits": ("find", "check", "train"),
    "claims": ("list", "show", "check", "why", "retest"),
    "dictionary": ("train", "check"),
    "init": ("ci",),
    "study": ("pictures", "detection"),
}
FREE_FLAGS = {"--name", "--expect-name", "--conversion", "--penalties"}
"""Text that the caller chooses; and numbers that are checked as a setting, see above."""

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

FLAGS = {
    "--slice": "clas",
    "--for": "int5x", "--audits": "scor", "--task": "lm_eval:arc,limt=2", "--budget": "10x", "--memory": "lots",
    "--ray": "cluster",
    "--genome": "nowhere.xml", "--defects": "cancl", "--controls": "abs", "--picture": "fase", "--expires": "tomorrow",
    "--plant": "digitz", "--model": "no_module:net", "--data": "nowhere.npz", "--nets": "nowhere.npz",
    "--strengths": "x", "--site": "nowhere", "--nulls": "frozn", "--shard": "three/8",
}  # fmt: skip
"""Flags that take names, or have a grammar, each with a word that is none."""

NAMED = {
    "audit": ["digitz"], "compare": ["digits", "digitz"], "plan": ["digitz"], "study": ["pictres"], "seal": ["digitz"],
    "doctor": ["digitz"], "list": ["audits", "scor"], "report": ["own.json", "WT999"],
}  # fmt: skip
"""Verbs whose first words are names, misspelled."""


def _commands() -> list[tuple[tuple[str, ...], Any]]:
    app = application(overview=False)
    groups = ("circuits", "claims", "dictionary", "init")
    own = {(verb,): app[verb] for verb in app if verb not in groups and not verb.startswith("-")}
    own |= {(verb, name): app[verb][name] for verb, names in WITHIN.items() for name in names}
    own[("doctor", "--plant")] = app["doctor"]["--plant"]
    return [(words, one) for words, command in own.items() for one in command.assemble_argument_collection()]


COMMANDS = [(words, one) for words, one in _commands() if one.name != "*" and one.parse]
WORDED = [(words, one) for words, one in COMMANDS if words_of(one.hint)]
TEXT_FLAGS = sorted(
    {(words, one.name) for words, one in COMMANDS if one.index is None and _is_text(one.hint)}
    - {(words, one.name) for words, one in WORDED}
    - {(words, name) for words, _ in COMMANDS for name in FREE_FLAGS}
)


@pytest.mark.parametrize(("words", "one"), WORDED, ids=lambda one: getattr(one, "name", None) or one[0])
def test_a_verb_refuses_a_misspelled_choice(
    words: tuple[str, ...], one: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = ["x" for each, other in COMMANDS if each == words and other.required and other.index is not None]
    if one.index is None:
        assert main([*words, *BEFORE.get(words, needed), one.name, MISSPELLED]) == 2
    else:
        assert main([*words, MISSPELLED]) == 2
    said = capsys.readouterr().err
    assert all(str(word) in said for word in words_of(one.hint)) and MISSPELLED in said, said
    assert "cannot-tell" not in words_of(one.hint) or 'Did you mean "cannot-tell"?' in said


def test_none_is_no_choice_and_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    for flag, word in (("--fail-on", "none"), ("--margin", "None"), ("--alpha", "null")):
        assert main(["audit", "digits", flag, word]) == 2
        said = capsys.readouterr().err
        assert flag in said and word in said


@pytest.mark.parametrize(("words", "flag"), TEXT_FLAGS)
def test_a_flag_of_names_refuses_one_that_there_is_not(
    words: tuple[str, ...], flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """A new flag of text needs a word in ``FLAGS``, or a place in ``FREE_FLAGS``."""
    monkeypatch.chdir(tmp_path)
    bad = "quot" if flag == "--task" and words[0] == "circuits" else FLAGS[flag]
    before = BEFORE.get(words, [])
    if "own.safetensors" in before:
        settings = DictionarySettings(architecture="linear", width=64, features=4)
        wt.dictionaries.save(wt.dictionaries.Dictionary(settings), tmp_path / "own.safetensors")
    kept = before[: before.index(flag)] if flag in before else before
    assert main([*words, *kept, flag, bad]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and "bug" not in said, said
    assert re.search(r"There is no|cannot be|expected|no date|needs", said), said
    assert any(part in said for part in re.split(r"[=,:]", bad)), said


@pytest.mark.parametrize("verb", NAMED)
def test_a_verb_refuses_a_name_that_there_is_not(
    verb: str, small: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    small.json("own.json")
    assert main([verb, *NAMED[verb]]) == 2
    said = capsys.readouterr().err
    assert NAMED[verb][0 if verb not in ("compare", "list", "report") else 1] in said and "Traceback" not in said, said
