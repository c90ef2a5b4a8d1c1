"""Specs: the short names by which models and data are asked for."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from wheeltap.core.bounded import Archive, opened
from wheeltap.core.code import CALLABLE, DRAWN
from wheeltap.core.errors import FileFormatError, UnknownName, UsageError, WheeltapError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.sources.classifiers import Classifier, suited
from wheeltap.sources.lm_eval_asked import is_asked
from wheeltap.sources.naming import names_of
from wheeltap.sources.text import HfTokenizer, LanguageModel, Tokenizer

KNOWN = ("digits", "smollm2", "hf:DIR", "gguf:FILE", "artifact:FILE", "module:callable")
GENERATED = "ambiguous"
"""What ``--data`` names the generated set of ambiguous sentences by."""

PAIRS = "pairs:"
"""How ``--data`` begins where it names a generated task of pairs, for circuits."""

_PICKLE_NAMES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib")
_PICKLE_MARKS = tuple(bytes([0x80, version]) for version in range(2, 6))


@dataclass(frozen=True)
class Loaded:
    """What a spec gives.

    Attributes:
        tokenizer: Where the examples are made of text: they are the same for another model only if it reads the same
            tokens. ``None`` otherwise.
        labels: Names of a classifier's labels, where it has any.
    """

    subject: Subject
    task: BaseTask
    tokenizer: Tokenizer | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Model:
    """A model, with the task it brings (made only when asked for) and the tokenizer it reads, or as a classifier."""

    subject: Subject
    own: Callable[[], BaseTask] | None = None
    tokenizer: Tokenizer | None = None
    classifier: Classifier | None = None


def load(spec: str, *, data: Path | None = None, name: str = "") -> Loaded:
    """The subject and task that ``spec`` names.

    Args:
        spec: One of ``KNOWN``; ``artifact:FILE`` is a net of ``circuits train``, ``module:callable`` a function without
            arguments that gives a module, or a module and a task; found from the current folder too.
        data: An ``.npz`` or ``.jsonl`` file to task with, instead of the model's own task (test digits; subject-verb
            agreement for language models); ``ambiguous`` for the generated ambiguous sentences; ``lm_eval:NAME``;
            ``pairs:NAME`` for a generated task of pairs.
        name: Of the subject; by default see ``names_of``.

    Raises:
        UnknownName: If nothing has this name.
        UsageError: If the model brings no task and there is no ``data``.
        FileFormatError: If a file is a pickle or is damaged.
        MissingFile: If a file is not there.
    """
    model = _model(spec, name)
    if data is not None and str(data).startswith(PAIRS):
        from wheeltap.suites.circuits import sources as pairs

        return Loaded(model.subject, pairs.named(str(data).removeprefix(PAIRS), model.tokenizer), model.tokenizer)
    labels = () if model.classifier is None else model.classifier.names
    if data is not None and is_asked(data):
        from wheeltap.sources import lm_eval

        return Loaded(model.subject, lm_eval.load_task(data, model.subject.model, model.tokenizer), model.tokenizer)
    if data is not None:
        if data.name == GENERATED and not data.exists():
            return Loaded(model.subject, _generated(model, spec), model.tokenizer)
        task = load_task(data, tokenizer=model.tokenizer, classifier=model.classifier)
        tokenizer = model.tokenizer if data.suffix == ".jsonl" or model.classifier is None else None
        return Loaded(model.subject, task, tokenizer, labels)
    if model.own is None and model.classifier is not None:
        raise UsageError(
            "There are no examples to test this classifier with.",
            where=spec,
            expected="data",
            got=f"a classifier of {model.classifier.reads}s alone",
            do=model.classifier.wanted,
        )
    if model.own is None:
        raise UsageError(
            "There are no examples to test this model with.",
            where=spec,
            expected="data, or a callable that gives a model and a task",
            got="a model alone",
            do="Give --data FILE.npz (arrays inputs, targets) or FILE.jsonl (context, choices, answer).",
        )
    return Loaded(model.subject, model.own(), model.tokenizer)


def load_model(spec: str, *, name: str = "") -> Subject:
    """The subject alone; see ``load``."""
    return _model(spec, name).subject


def load_named(spec: str) -> BaseTask:
    """The examples that a study is measured on.

    Args:
        spec: ``digits``, ``picture:NAME`` or ``genome:FILE`` (with ``,SIZE`` behind it for a square of that side), a
            data file, or ``module:callable`` that gives a task (or a model and a task).

    Raises:
        UnknownName: If nothing has this name.
        UsageError: If what is named gives no task.
    """
    kind, _, rest = spec.partition(":")
    if spec == "digits":
        from wheeltap.sources import digits

        return digits.task()
    if kind in DRAWN and rest:
        from wheeltap.suites.pictures.sources.drawn import task_named

        return task_named(kind, rest)
    if Path(spec).suffix in (".npz", ".jsonl"):
        return load_task(Path(spec))
    if not CALLABLE.fullmatch(spec):
        raise UnknownName("set of examples", spec, ("digits", "picture:NAME", "FILE.npz", "module:callable"))
    from wheeltap.sources.callables import load_examples

    return load_examples(spec)


def load_task(path: Path, *, tokenizer: Tokenizer | None = None, classifier: Classifier | None = None) -> BaseTask:
    """A task from an ``.npz`` file or, for a model that reads text, a ``.jsonl`` file.

    Args:
        path: The file.
        tokenizer: Whose tokens a language model reads.
        classifier: Which one it is for, if it is one from a Hugging Face folder.

    Raises:
        UsageError: If the file's name ends otherwise, or a ``.jsonl`` file is given without a tokenizer.
        MissingFile: If it is not there.
        FileFormatError: If it is a pickle, or not what its name says.
    """
    _refuse_pickle(path)
    if path.suffix == ".npz":
        from wheeltap.sources.arrays import load_arrays

        task = load_arrays(path)
        return task if classifier is None else suited(task, classifier)
    if path.suffix != ".jsonl":
        raise UsageError(
            "This kind of data file is not known.",
            where=str(path),
            expected="FILE.npz (arrays inputs, targets) or FILE.jsonl (context, choices, answer)",
            got=path.suffix or "a name without an ending",
        )
    from wheeltap.suites.circuits import sources as pairs

    if path.is_file() and pairs.fits(path):
        return pairs.load(path, tokenizer)
    if classifier is not None and classifier.reads == "text":
        from wheeltap.sources.texts import load_texts

        return suited(load_texts(path, classifier), classifier)
    if tokenizer is None:
        raise UsageError(
            "Text cannot be read by this model.",
            where=str(path),
            expected="an .npz file with arrays inputs and targets",
            got="a .jsonl file for a model without a tokenizer",
            do="Use hf:DIR, gguf:FILE or smollm2 for language models; hf:DIR for classifiers of texts.",
        )
    from wheeltap.sources.jsonl import load_items
    from wheeltap.suites.lens.sources import passages
    from wheeltap.suites.lens.sources.ambient import is_ambient, load_ambient

    if passages.fits(path):
        return passages.load_passages(path, tokenizer)
    return load_ambient(path, tokenizer) if is_ambient(path) else load_items(path, tokenizer)


def _generated(model: _Model, spec: str) -> BaseTask:
    """The generated set of ambiguous sentences, for a language model."""
    if model.tokenizer is None or model.classifier is not None:
        raise UsageError(
            "Ambiguous sentences are for language models.",
            where=spec,
            expected="smollm2, hf:DIR or gguf:FILE of a causal language model",
            got="a model that reads no text, or a classifier",
        )
    from wheeltap.suites.lens.sources import templates as ambiguous

    return ambiguous.task(model.tokenizer)


def _model(spec: str, name: str = "") -> _Model:
    kind, _, rest = spec.partition(":")
    name = name or names_of([spec])[0]
    if kind in ("hf", "gguf") and rest:
        return _from_files(kind, Path(rest).expanduser(), name)
    if spec == "smollm2":
        from wheeltap.sources.smollm2 import load_smollm2

        return _speaking(load_smollm2(name=name))
    if spec == "digits":
        from wheeltap.sources import digits

        return _Model(digits.subject(name=name), digits.task)
    if kind in (*DRAWN, "npz") and rest:
        from wheeltap.suites.pictures.sources.drawn import subject_named, task_named

        own = None if kind == "npz" else partial(task_named, kind, rest)
        return _Model(subject_named(kind, rest, name=name), own)
    if kind == "artifact" and rest:
        from wheeltap.sources.artifact import load_artifact

        return _made(load_artifact(Path(rest).expanduser(), name=name))
    _refuse_pickle(Path(spec))
    if kind.endswith(".py") or not CALLABLE.fullmatch(spec):
        _refuse_path(spec)
        raise UnknownName("model", spec, KNOWN)
    from wheeltap.sources.callables import load_callable

    subject, task = load_callable(spec, name=name)
    return _Model(subject, None if task is None else lambda: task)


def _made(subject: Subject) -> _Model:
    """A net of a recipe: the decoder of the recipe ``sparse`` reads lines that look like Python."""
    from wheeltap.suites.circuits.nets.python import PythonTokenizer
    from wheeltap.suites.circuits.nets.sparse_transformer import SparseTransformer

    return _Model(subject, tokenizer=PythonTokenizer() if isinstance(subject.model, SparseTransformer) else None)


def _from_files(kind: str, path: Path, name: str) -> _Model:
    _refuse_pickle(path)
    if kind == "gguf":
        from wheeltap.sources.gguf import load_gguf

        return _speaking(load_gguf(path, name=name))
    from wheeltap.sources.hf import load_folder

    found = load_folder(path, name=name)
    if isinstance(found, LanguageModel):
        return _speaking(found)
    tokenizer = None if found.tokenizer is None else HfTokenizer(found.tokenizer)
    return _Model(found.subject, tokenizer=tokenizer, classifier=found)


def _speaking(model: LanguageModel) -> _Model:
    from wheeltap.sources import agreement

    return _Model(model.subject, lambda: agreement.task(model.tokenizer), model.tokenizer)


def _refuse_path(spec: str) -> None:
    """A path, or a Python module without a callable: say what is asked for instead."""
    path = Path(spec).expanduser()
    name, _, function = spec.partition(":")
    if name.endswith(".py") or (name and os.path.isfile(f"{name}.py")):
        module = name.removesuffix(".py").replace("/", ".")
        raise UsageError(
            "A model of your own is named by its module and a function in it.",
            where=spec,
            expected="module:callable, without .py",
            got="a file" if name.endswith(".py") else "a module alone",
            do=f"wheeltap audit {module}:{function or 'FUNCTION'}",
        )
    if path.suffix in (".npz", ".jsonl") and os.path.isfile(path):
        raise UsageError(
            "A file of examples is no model.",
            where=spec,
            expected=", ".join(KNOWN),
            got="a data file",
            do=f"wheeltap audit MODEL --data {spec}",
        )
    if path.suffix == ".gguf" or (spec and os.path.exists(path)):
        prefix = "gguf" if path.suffix == ".gguf" else "hf"
        raise UsageError(
            "A model in a file or folder needs its kind before its path.",
            where=spec,
            expected=", ".join(KNOWN),
            got="a path",
            do=f"wheeltap audit {prefix}:{spec}",
        )


def _refuse_pickle(path: Path) -> None:
    """A pickle can run any code when it is loaded, so none is: not even to look what is in it."""
    named = path.suffix.lower() in _PICKLE_NAMES
    if os.path.isdir(path) or not (named or _holds_pickle(path)):
        return
    raise FileFormatError(
        "The file is a pickle, which can run any code when it is loaded.",
        where=str(path),
        expected="safetensors, GGUF, .npz or .jsonl; or your own code as module:callable",
        got=f"a {path.suffix} file" if named else "the bytes of a pickle",
        do="Convert it where you trust it: safetensors.torch.save_file(model.state_dict(), 'model.safetensors').",
    )


def _holds_pickle(path: Path) -> bool:
    """Whether the bytes are a pickle, or a zip archive with one in it (what ``torch.save`` writes)."""
    try:
        with opened(path, "file") as file:
            start = file.read(2)
        if start != b"PK":
            return start in _PICKLE_MARKS
        with Archive(path) as archive:
            return any(name.endswith(".pkl") for name in archive.members)
    except WheeltapError:
        return False
