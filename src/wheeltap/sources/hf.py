"""Models from a local Hugging Face folder: safetensors only, no code from the folder, no network."""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import io
import json
import math
import sys
import types
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

from torch import nn

from wheeltap.core.bounded import contents, parsing, tensors
from wheeltap.core.choices import Tokenizer
from wheeltap.core.errors import FileFormatError, MissingExtra, MissingFile, ModelError, WheeltapError
from wheeltap.core.subject import Subject
from wheeltap.sources import agreement
from wheeltap.sources.architectures import DOORS, Architecture, architecture_of, require_language, without_head
from wheeltap.sources.base import LoadedModel, ModelSource, refuse_pickle
from wheeltap.sources.classifiers import Classifier
from wheeltap.sources.contents import FolderContents, shards
from wheeltap.sources.model_size import Size, require_modest

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_CONFIG_BYTES = 4_000_000
_LOCAL = {"local_files_only": True, "trust_remote_code": False}
_AGAIN = "Download or save the model again; it may have been cut short."


@final
@dataclass(frozen=True)
class HfTokenizer:
    """A Hugging Face tokenizer.

    Attributes:
        raw: The transformers tokenizer.
    """

    raw: Any

    def start(self, text: str) -> list[int]:
        """Ids of text that opens a sequence; an end token that the tokenizer appends is left out."""
        ids: Sequence[int] = self.raw(text).input_ids
        if ids and ids[-1] == self.raw.eos_token_id and self.more(text)[-1:] != [ids[-1]]:
            ids = ids[:-1]
        return [int(i) for i in ids]

    def more(self, text: str) -> list[int]:
        """Ids of text that goes on from other text."""
        ids: Sequence[int] = self.raw(text, add_special_tokens=False).input_ids
        return [int(i) for i in ids]


@final
@dataclass(frozen=True)
class NoTokenizer:
    """Where a model came without its tokenizer: token ids can be read, and text cannot.

    Attributes:
        folder: Of the model.
        files: What a tokenizer's file may be called.
    """

    folder: str
    files: tuple[str, ...]

    def start(self, text: str) -> list[int]:
        """Raises ``MissingFile``."""
        return self.more(text)

    def more(self, text: str) -> list[int]:
        """Raises ``MissingFile``."""
        raise MissingFile(
            "The model has no tokenizer.",
            where=self.folder,
            expected=f"{' or '.join(self.files)}, for the data are text",
            got="none of them",
            do="Save it beside the model (tokenizer.save_pretrained(folder)), or write the data as token ids.",
        )


@final
@dataclass(frozen=True)
class LanguageModel:
    """A subject that reads tokens, and the tokenizer that makes them."""

    subject: Subject
    tokenizer: Tokenizer

    @property
    def loaded(self) -> LoadedModel:
        """The same with the task that it brings: subject-verb agreement."""
        return LoadedModel(self.subject, lambda: agreement.task(self.tokenizer), self.tokenizer)


@final
class Folders(ModelSource):
    """See ``load_folder``."""

    form = "hf:FOLDER"
    title = "A Hugging Face language model or classifier in a local folder, as safetensors (extra: llm)."
    place = "folder"

    def load(self, rest: str, *, name: str) -> LoadedModel:
        """See ``ModelSource.load``."""
        path = Path(rest).expanduser()
        refuse_pickle(path)
        found = load_folder(path, name=name)
        if isinstance(found, LanguageModel):
            return found.loaded
        tokenizer = None if found.tokenizer is None else HfTokenizer(found.tokenizer)
        return LoadedModel(found.subject, tokenizer=tokenizer, classifier=found)


def library(name: str = "transformers", *, needed_for: str) -> Any:
    """The optional package ``name``, untyped.

    Raises:
        MissingExtra: If it is not installed.
    """
    if importlib.util.find_spec(name) is None:
        raise MissingExtra(name, "llm", needed_for=needed_for)
    with _without_broken_torchaudio():
        return importlib.import_module(name)


@contextlib.contextmanager
def _without_broken_torchaudio() -> Generator[None]:
    """A block in which an empty module stands in for a torchaudio that cannot be imported.

    transformers imports it for audio models on the way to any model, so that a build of it made for another torch
    (a CUDA build beside a CPU torch, say) would keep us from every text model. Empty rather than absent, because
    transformers may have noted before that it is installed.
    """
    if not _torchaudio_is_broken():
        yield
        return
    empty = types.ModuleType("torchaudio")
    empty.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = empty
    try:
        yield
    finally:
        sys.modules.pop("torchaudio", None)


def _torchaudio_is_broken() -> bool:
    try:
        importlib.import_module("torchaudio")
    except ModuleNotFoundError:
        return False
    except (ImportError, OSError, RuntimeError):
        return True
    return False


@contextlib.contextmanager
def quiet(transformers: Any) -> Generator[None]:
    """A block in which transformers prints no progress bar, log line or warning; all as before afterwards."""
    log = transformers.utils.logging
    before = log.get_verbosity()
    log.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings(), _without_broken_torchaudio():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(before)


def load_folder(folder: Path, *, name: str) -> LanguageModel | Classifier:
    """The model in ``folder``, in float32 and eval mode, on the CPU: ``architectures`` in its config says of what kind.

    It comes with its tokenizer, where there is one; without one a language model reads token ids alone.

    Raises:
        MissingFile: If the folder, its config or weights are not there.
        FileFormatError: If a file is damaged, or the weights are only there as a pickle.
        ModelError: If it is of another kind, or transformers cannot load it.
        MissingExtra: If transformers is not installed.
    """
    config = _config(folder)
    found, size = architecture_of(config, where=str(folder)), weights_of(folder)
    transformers = library(needed_for=name)
    if "quantization_config" in config:  # packed: eight numbers of 4 bits in one
        size = Size(size.tensors, 16 * size.numbers)
    model, unexpected = read_model(transformers, folder, found, size=size)
    known, subject = _has_tokenizer(folder), Subject(model, name=name)
    again = (lambda: read_tokenizer(transformers, folder).raw) if known else None
    subject.contents = FolderContents(folder, model, unexpected, again)
    if found.kind == "language":
        tokenizer = read_tokenizer(transformers, folder) if known else NoTokenizer(str(folder), _TOKENIZER_FILES[:3])
        return LanguageModel(subject, tokenizer)
    own: Any = model.config
    labels = tuple(str(own.id2label.get(at, f"LABEL_{at}")) for at in range(own.num_labels))
    return Classifier(subject, found.kind, labels, again() if again is not None and found.kind == "text" else None)


LANGUAGE = Architecture("", "language")


def read_model(
    transformers: Any, folder: Path, found: Architecture = LANGUAGE, *, size: Size
) -> tuple[nn.Module, tuple[str, ...]]:  # fmt: skip
    """The model in a folder that has passed the checks, and names of tensors in its files that it has no place for.

    Raises:
        FileFormatError: If its config describes a far larger model.
        ModelError: If transformers refuses it, or weights are missing or of another shape than the config says.
    """
    families = getattr(transformers.models.auto.modeling_auto, "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", {})
    require_language(found, families, where=str(folder))
    door: Any = getattr(transformers, DOORS[found.kind])
    with translated(transformers, folder, "model"):
        config: Any = transformers.AutoConfig.from_pretrained(str(folder), **_LOCAL)
        with size.bounding(folder):
            door.from_config(config)
        model, info = door.from_pretrained(
            str(folder),
            dtype="float32",
            use_safetensors=True,
            output_loading_info=True,
            **_LOCAL,
        )
    # Weights that the files lack would be drawn at random: an audit of noise.
    absent = [*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])]
    if absent and found.headless:
        raise without_head(found.name, where=str(folder))
    if absent:
        raise ModelError(
            "The model's weights are not all there.",
            where=f"{folder}: {absent[0]}",
            expected="every parameter that config.json describes",
            got=f"{len(absent)} missing or of another shape",
            do="Download the model again, or check that config.json belongs to these weights.",
        )
    return cast("nn.Module", model).eval(), tuple(sorted(info["unexpected_keys"]))


def read_tokenizer(transformers: Any, folder: Path) -> HfTokenizer:
    """The tokenizer in a folder that has passed the checks.

    Raises:
        ModelError: If transformers refuses it.
    """
    with translated(transformers, folder, "tokenizer"):
        raw = transformers.AutoTokenizer.from_pretrained(str(folder), **_LOCAL)
        raw("a b")  # settings of other types than they should have fail where they are used
    return HfTokenizer(raw)


@contextlib.contextmanager
def translated(transformers: Any, where: Path, what: str) -> Generator[None]:
    """A quiet block whose failures, of whatever kind transformers raises, become a ``ModelError``."""
    try:
        with quiet(transformers):
            yield
    except WheeltapError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"transformers cannot load this {what}.",
            where=str(where),
            expected="a causal language model or a classifier that transformers knows without code from the folder",
            got=f"{type(error).__name__}: {lines[0][:300]}",
            do="Check the files; models that need trust_remote_code are refused.",
        ) from error


def _config(folder: Path) -> dict[str, Any]:
    """The contents of the folder's config."""
    if not folder.is_dir():
        raise MissingFile(
            "The model's folder is not there.",
            where=str(folder),
            expected="a folder with config.json, *.safetensors and a tokenizer",
            got="a file" if folder.exists() else "nothing",
            do="Give the path of a downloaded model; wheeltap does not download.",
        )
    config = folder / "config.json"
    if not config.is_file() and (folder / "adapter_config.json").is_file():
        raise MissingFile(
            "The folder holds an adapter, not a model.",
            where=str(folder),
            expected="config.json and the weights of a whole model",
            got="adapter_config.json",
            do="Merge it into its base model and save that: peft_model.merge_and_unload().save_pretrained(folder).",
        )
    if not config.is_file():
        raise MissingFile(
            "The folder is not a Hugging Face model.",
            where=str(folder),
            expected="config.json",
            got=", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "an empty folder",
            do="Save the model with model.save_pretrained(folder).",
        )
    data = contents(config, "config", limit=_CONFIG_BYTES)
    with parsing(config, "The model's config cannot be read.", expected="a JSON object", do=_AGAIN):
        held: Any = json.loads(data)
        if not isinstance(held, dict):
            raise TypeError(f"a {type(held).__name__}")
        require_modest(cast("dict[str, Any]", held))
    return cast("dict[str, Any]", held)


def weights_of(folder: Path) -> Size:
    """How much the folder's files of weights hold; from their headers.

    Raises:
        MissingFile: If one is not there.
        FileFormatError: If one is damaged or something else, or they are pickles.
    """
    index = folder / "model.safetensors.index.json"
    files = sorted(folder.glob("*.safetensors"))
    if index.is_file():
        files = [folder / name for name in shards(index, do=_AGAIN)]
    if not files:
        pickled = [p.name for pattern in _PICKLED for p in sorted(folder.glob(pattern))]
        kind = FileFormatError if pickled else MissingFile
        raise kind(
            "The model has no safetensors weights.",
            where=str(folder),
            expected="model.safetensors",
            got=f"{pickled[0]}, a pickle, which can run code when loaded" if pickled else "no weights",
            do="Convert it where you trust it: model.save_pretrained(folder), then use that folder.",
        )
    held = [one for file in files for one in tensors(file, "file of weights", do=_AGAIN)[0].values()]
    return Size(len(held), sum(math.prod(one.shape) for one in held))


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)
