"""Two registries that other packages add to: where models come from, and where examples do.

Entry points of the group ``wheeltap.models`` are ``ModelSource``, those of ``wheeltap.data`` are ``DataSource``. An
entry's name is how what users write begins: ``hf`` of ``hf:FOLDER``. This module imports no torch.
"""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Literal, final

from wheeltap.core.bounded import Archive, opened
from wheeltap.core.errors import FileFormatError, UsageError, WheeltapError
from wheeltap.core.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from wheeltap.core.choices import Tokenizer
    from wheeltap.core.subject import Subject
    from wheeltap.core.task import BaseTask
    from wheeltap.sources.hf import HfClassifier
    from wheeltap.sources.shipped import ShippedModel

CALLABLE: Final = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*(\.\w+)*")
"""A name of the form ``module:callable``."""

AND: Final = " + "
"""What stands between the names of several test sets."""

GROUPED_BY: Final = ",groups="
"""What stands between a file of examples and the name of the column that tells which of them come together."""

CODE: Final = "module:callable"
"""The entry of both registries that what the user's own code gives is listed by."""


@final
@dataclass(frozen=True)
class ExampleReader:
    """What examples are made for; nothing is known of it where they are loaded by themselves.

    Attributes:
        tokenizer: Its tokenizer, where it reads text.
        classifier: The classifier that it is, where it is one from a Hugging Face folder.
        groups: Column that tells which examples come together; by default the one of that name, or ids.
    """

    tokenizer: "Tokenizer | None" = None
    classifier: "HfClassifier | None" = None
    model: "nn.Module | None" = None
    groups: str = "groups"


@final
@dataclass(frozen=True)
class LoadedModel:
    """A model, and what it brings.

    Attributes:
        own: Makes the task that comes with it.
    """

    subject: "Subject"
    own: "Callable[[], BaseTask] | None" = None
    tokenizer: "Tokenizer | None" = None
    classifier: "HfClassifier | None" = None


class ModelSource(ABC):
    """One kind of models.

    Attributes:
        form: How one is asked for: the source's name alone, or ``NAME:`` and what ``load`` is given.
        title: What it gives, in a sentence.
        place: What follows the name is a file or a folder, which the model is called after.
    """

    form: ClassVar[str]
    title: ClassVar[str]
    place: ClassVar[Literal["", "file", "folder"]] = ""

    @abstractmethod
    def load(self, rest: str, *, name: str) -> LoadedModel:
        """The model.

        Args:
            rest: What follows the source's name and a colon.
            name: Of the subject.

        Raises:
            WheeltapError: If there is none.
        """

    def shipped(self, rest: str, *, reference: "Subject") -> "ShippedModel | None":
        """The model as it is shipped, beside the one that it was made from, where tensors are read from its file.

        Args:
            rest: As of ``load``.
            reference: The original.

        Raises:
            WheeltapError: If there is none.
        """
        return None

    def put_logs(
        self, rests: Sequence[str], *, names: Sequence[str], store: Path, margin: float, alpha: float
    ) -> tuple[str, ...] | None:
        """Puts logs into a store as a plan that compares each with the first, where this gives recorded answers.

        Args:
            rests: As of ``load``, one a log.
            names: What to call them.
            store: Where the plan and what was recorded go.
            margin: Smallest loss of score of interest.
            alpha: Probability of any false alarm, over all findings together; of any false reassurance, likewise.

        Returns:
            What the logs are and what was assumed, in sentences; ``None`` where this gives models.

        Raises:
            WheeltapError: If a log cannot be read, or they are not of the same items, prompts and settings.
        """
        return None


class DataSource(ABC):
    """One kind of examples.

    Attributes:
        form: How they are asked for: the source's name alone, ``NAME:`` and what ``load`` is given, or ``FILE...``.
        title: What they are, in a sentence.
        takes_groups: Whether a column of the file can be named as groups.
    """

    form: ClassVar[str]
    title: ClassVar[str]
    takes_groups: ClassVar[bool] = False

    def fits(self, path: Path, reader: ExampleReader) -> bool:
        """Whether a file holds examples of this kind: by its name, where the form is ``FILE.ending``.

        Sources of other packages are asked before those of this one.
        """
        return self.form == f"FILE{path.suffix}"

    def runs_code(self, rest: str) -> bool:
        """Whether loading runs code of the user's own."""
        return False

    @abstractmethod
    def load(self, rest: str, reader: ExampleReader) -> "BaseTask":
        """The examples.

        Args:
            rest: What follows the source's name and a colon, or the path of a file.
            reader: What they are made for.

        Raises:
            WheeltapError: If there are none, or the reader cannot read them.
        """


_MODELS: Final = {
    "artifact": "wheeltap.sources.artifact:ArtifactFiles",
    "awq": "wheeltap.sources.packed:AwqFolders",
    "bnb": "wheeltap.sources.packed:BitsAndBytesFolders",
    "ct": "wheeltap.sources.packed:CompressedFolders",
    "digits": "wheeltap.sources.digits:DigitModels",
    "gguf": "wheeltap.sources.gguf:GgufFiles",
    "gptq": "wheeltap.sources.packed:GptqFolders",
    "hf": "wheeltap.sources.hf:Folders",
    CODE: "wheeltap.sources.callables:CallableModels",
    "onnx": "wheeltap.sources.onnx_graph:OnnxFiles",
    "smollm2": "wheeltap.sources.smollm2:SmolLM2",
    "stored": "wheeltap.sources.hf:StoredFolders",
    "tflite": "wheeltap.sources.tflite_graph:TfliteFiles",
    "torchao": "wheeltap.sources.packed:TorchaoFolders",
}

_DATA: Final = {
    "digits": "wheeltap.sources.digits:DigitData",
    "generate": "wheeltap.sources.generated:GeneratedAnswers",
    "jsonl": "wheeltap.sources.jsonl:JsonLines",
    "lm_eval": "wheeltap.sources.lm_eval:LmEvalTasks",
    CODE: "wheeltap.sources.callables:CallableData",
    "npz": "wheeltap.sources.arrays:ArrayFiles",
    "txt": "wheeltap.sources.texts:TextFiles",
}

models: Registry[ModelSource] = Registry("model", "wheeltap.models", _MODELS, ModelSource)  # pyright: ignore[reportAbstractUsage]
data: Registry[DataSource] = Registry("set of examples", "wheeltap.data", _DATA, DataSource)  # pyright: ignore[reportAbstractUsage]


def model_forms() -> list[str]:
    """How models are asked for."""
    return [models.get(name).form for name in models]


def addressed(text: str) -> tuple[DataSource, str] | None:
    """The source that examples are asked for by its name, and what follows that; ``None`` for the path of a file."""
    kind, _, rest = text.partition(":")
    if kind in data:
        source = data.get(kind)()
        if (source.form == text and not os.path.exists(text)) or (source.form.startswith(f"{kind}:") and rest):
            return source, rest
    if CALLABLE.fullmatch(text) and not os.path.isfile(text) and Path(text).suffix.removeprefix(".") not in data:
        return data.get(CODE)(), text
    return None


def source_of_file(path: Path, reader: ExampleReader) -> DataSource:
    """The source that reads a file of examples.

    Raises:
        UsageError: If there is none.
        FileFormatError: If it is a pickle.
    """
    refuse_pickle(path)
    # What a package adds is more special than what is here.
    for name in sorted(data, key=lambda name: name in _DATA):
        source = data.get(name)()
        if (name in _DATA or path.is_file()) and source.fits(path, reader):
            return source
    raise UsageError(
        "This kind of data file is not known.",
        where=str(path),
        expected="FILE.npz (arrays inputs, targets) or FILE.jsonl (context, choices, answer), FILE.txt (text)",
        got=path.suffix or "a name without an ending",
        do="Give a file of such a name, or the examples by their name: --task (see: wheeltap list data).",
    )


def is_model(spec: str) -> bool:
    """Whether this asks for a model in a file or folder, or from code."""
    kind, _, rest = spec.partition(":")
    return bool(rest) and (bool(models.get(kind).place) if kind in models else bool(CALLABLE.fullmatch(spec)))


def place_of(path: str) -> str:
    """How a model is asked for of which only its place is named: a folder, or a file by its ending; else as it is."""
    if os.path.isdir(path):
        return f"hf:{path}"
    ending = Path(path).suffix.removeprefix(".")
    known = ending in models and models.get(ending).place == "file" and os.path.isfile(path)
    return f"{ending}:{path}" if known else path


def is_code(spec: str) -> bool:
    """Whether a model that is asked for by this spec is made by code of the user's: ``module:callable``."""
    return bool(CALLABLE.fullmatch(spec)) and spec.partition(":")[0] not in models


def is_code_of_examples(text: str) -> bool:
    """Whether examples of this name are: a callable, or a folder of lm-eval's tasks, which may name functions."""
    every = (addressed(one) for one in text.split(AND))
    return any(found is not None and found[0].runs_code(found[1]) for found in every)


def require_no_code(specs: Iterable[str], *, examples: Iterable[str], where: str) -> None:
    """Raises ``UsageError`` if a file that is about to be carried out names code of the user's own."""
    named = dict.fromkeys([*filter(is_code, specs), *filter(is_code_of_examples, examples)])
    if named:
        raise UsageError(
            "The file names code that would be run.",
            where=where,
            expected="models and examples in files; code only where it is asked for",
            got=", ".join(named),
            do="Look at the code that it names. If you trust it, give the command again with --allow-code (in Python, "
            "allow_code=True).",
        )


_PICKLE_NAMES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib")
_PICKLE_MARKS = tuple(bytes([0x80, version]) for version in range(2, 6))


def refuse_pickle(path: Path) -> None:
    """Raises ``FileFormatError`` for a pickle, or a zip archive with one (what ``torch.save`` writes).

    It can run any code when it is loaded, so none is: not even to look what is in it.
    """
    named = path.suffix.lower() in _PICKLE_NAMES
    held = named
    if not named and not os.path.isdir(path):
        try:
            with opened(path, "file") as file:
                start = file.read(2)
            held = start in _PICKLE_MARKS
            if start == b"PK":
                with Archive(path) as archive:
                    held = any(name.endswith(".pkl") for name in archive.members)
        except WheeltapError:
            held = False
    if held and not os.path.isdir(path):
        raise FileFormatError(
            "The file is a pickle, which can run any code when it is loaded.",
            where=str(path),
            expected="safetensors, GGUF, .npz or .jsonl; or your own code as module:callable",
            got=f"a {path.suffix} file" if named else "the bytes of a pickle",
            do="Convert it where you trust it: safetensors.torch.save_file(model.state_dict(), 'model.safetensors').",
        )
