"""Models from a local Hugging Face folder: safetensors only, no code from the folder, no network.

The config says of what kind a model is before anything is loaded: a causal language model, or a classifier.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import logging
import math
import re
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, cast, final

import torch
from torch import Tensor, nn

from wheeltap.core import inputs
from wheeltap.core.bounded import SETTINGS, contents, document, parsing, tensors
from wheeltap.core.choices import Tokenizer
from wheeltap.core.errors import DataError, FileFormatError, MissingExtra, MissingFile, ModelError, WheeltapError
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.sources import agreement
from wheeltap.sources.base import LoadedModel, ModelSource, refuse_pickle
from wheeltap.sources.contents import FolderContents, shards
from wheeltap.sources.model_size import LARGEST_ID, LONGEST, Size, require_modest, require_modest_tokenizer
from wheeltap.sources.shipped import ShippedModel

Kind = Literal["language", "text", "image"]
"""A causal language model; a classifier of texts; one of images."""

DOORS: dict[Kind, str] = {
    "language": "AutoModelForCausalLM",
    "text": "AutoModelForSequenceClassification",
    "image": "AutoModelForImageClassification",
}
"""The class of transformers that loads each kind."""

_WRAP = (
    "Write a function that returns a module in eval mode whose forward gives one row of scores per example, and audit "
    "that: wheeltap audit my_module:function --data FILE.npz."
)
_HEADS = {
    "MaskedLM": "a masked language model, which gives scores of words in a gap, not of options",
    "PreTraining": "a model as it was pretrained, with the heads of that",
    "NextSentencePrediction": "a model that tells whether a sentence follows another",
    "TokenClassification": "a classifier of tokens, which gives scores per token, not per example",
    "QuestionAnswering": "a model that finds answers in a text, with scores per token, not per example",
    "MultipleChoice": "a model that reads every choice as a text of its own",
    "CTC": "an audio model",
    "SpeechSeq2Seq": "an audio model",
    "ObjectDetection": "a detector, which gives boxes, not scores per example",
}
_PARTS = {
    "Audio": "an audio model",
    "Speech": "an audio model",
    "Segmentation": "a model of images that gives scores per pixel, not per example",
    "Depth": "a model of images that gives a number per pixel, not scores per example",
    "Video": "a model of videos",
    "MaskedImage": "a model of images as it was pretrained",
    "ZeroShot": "a model that compares images or sounds with texts",
}

_USABLE = (
    "a causal language model (...ForCausalLM), or a classifier (...ForSequenceClassification, "
    "...ForImageClassification)"
)

_TOKENS, _NUMBERS = 8192, 2**22
"""Tokens, and numbers of images, that one forward call takes at most: more and larger ones cost memory, not time."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_CONFIG_BYTES = 4_000_000
_LOCAL = {"local_files_only": True, "trust_remote_code": False}
_AGAIN = "Download or save the model again; it may have been cut short."


@dataclass(frozen=True)
class Architecture:
    """What is known of a model before it is loaded.

    Attributes:
        name: Its class, as in ``BertForSequenceClassification``; empty where the config does not say.
        kind: What loads it.
        family: What transformers knows its config by, as in ``bert``.
        headless: Whether it was saved without the part that gives scores.
    """

    name: str
    kind: Kind
    family: str = ""
    headless: bool = False


def architecture_of(config: Mapping[str, Any], *, where: str) -> Architecture:
    """What kind of model the config of a folder describes.

    Raises:
        ModelError: If models of its kind cannot be audited as they stand; it says what can be done.
    """
    named: Any = config.get("architectures")
    name = str(cast("list[Any]", named)[0]) if isinstance(named, list) and named else ""
    kind = re.search(r"For(SequenceClassification|ImageClassification(WithTeacher)?)$", name)
    if kind and config.get("problem_type") == "multi_label_classification":
        raise ModelError(
            "The classifier gives several labels per example.",
            where=where,
            expected="one right label per example",
            got=f"architectures: {name}, problem_type: multi_label_classification",
            do="Ask one label: wrap the model so that it gives torch.stack([torch.zeros_like(z), z], dim=1) for that "
            "label's logit z, and name it module:callable.",
        )
    if kind:
        return Architecture(name, "text" if kind[1].startswith("Sequence") else "image")
    if config.get("is_encoder_decoder") is True:
        raise _refused(name, "an encoder-decoder model, which wheeltap cannot score items with", where)
    head = re.search(r"For([A-Z]\w*)$", name)
    if head and head[1] not in ("CausalLM", "ConditionalGeneration"):
        what = _HEADS.get(head[1]) or next((words for part, words in _PARTS.items() if part in head[1]), "")
        spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", head[1]).lower()
        raise _refused(name, what or f"a model for {spaced}", where)
    headless = bool(re.search(r"(Model|Encoder)$", name)) and "LMHead" not in name
    return Architecture(name, "language", family=str(config.get("model_type", "")), headless=headless)


def without_head(name: str, *, where: str) -> ModelError:
    """The error of a model that was saved without the part that gives scores."""
    return ModelError(
        "The model has no head: it gives hidden states, not scores.",
        where=where,
        expected=_USABLE,
        got=f"architectures: {name}",
        do="Save the whole model, with the head that was trained; or wrap it with a head of your own. " + _WRAP,
    )


def _refused(name: str, what: str, where: str) -> ModelError:
    return ModelError(
        "Models of this kind cannot be audited as they are.",
        where=where,
        expected=_USABLE,
        got=f"architectures: {name or 'not named'}: {what}",
        do=_WRAP,
    )


@final
@dataclass(frozen=True)
class HfClassifier:
    """A subject that gives one score per label.

    Attributes:
        reads: What it classifies.
        labels: Names of its labels, in the order of its scores.
        tokenizer: The transformers tokenizer of a classifier of texts, where there is one beside it.
    """

    subject: Subject
    reads: Literal["text", "image"]
    labels: tuple[str, ...]
    tokenizer: Any = None

    @property
    def names(self) -> tuple[str, ...]:
        """The labels, where they are names and not only numbered."""
        generic = all(re.fullmatch(r"LABEL_\d+", label) for label in self.labels)
        return () if generic else self.labels

    @property
    def wanted(self) -> str:
        """What data it needs, in words."""
        if self.reads == "image":
            return "Give --data FILE.npz with pixel_values [example, channel, height, width] and targets [example]."
        return (
            'Give --data FILE.jsonl with lines such as {"text": "Fine.", "label": "'
            f'{self.labels[0]}"}}, or FILE.npz with input_ids, attention_mask and targets.'
        )


def suited(task: Task, classifier: HfClassifier) -> Task:
    """The task in batches that the classifier's size allows.

    Raises:
        DataError: If pixels are whole numbers, or of another shape than images have.
    """
    main = next(iter(inputs.tensors(task.inputs).values()))
    if classifier.reads == "image" and not (main.is_floating_point() and main.ndim == 4):
        raise DataError(
            "The images are not as the model reads them.",
            where=task.name,
            expected="floating-point pixels [example, channel, height, width], scaled as in the model's training",
            got=f"{str(main.dtype).removeprefix('torch.')} {list(main.shape)}",
            do="Prepare them with the model's own processor: AutoImageProcessor.from_pretrained(folder)(images, "
            "return_tensors='np')['pixel_values'].",
        )
    size = main[0].numel()
    most = _NUMBERS if main.is_floating_point() else _TOKENS
    task.batch = max(min(task.batch, most // max(size, 1)), 1)
    return task


@final
@dataclass(frozen=True)
class HfTokenizer:
    """A Hugging Face tokenizer."""

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
    """Where a model has no tokenizer that can be used: token ids can be read, and text raises ``error``."""

    error: WheeltapError

    def start(self, text: str) -> NoReturn:
        """Raise the error."""
        raise self.error

    def more(self, text: str) -> NoReturn:
        """Raise the error."""
        raise self.error


def _missing_tokenizer(folder: Path) -> NoTokenizer:
    error = MissingFile(
        "The model has no tokenizer.", where=str(folder),
        expected=f"{' or '.join(_TOKENIZER_FILES[:3])}, for the data are text", got="none of them",
        do="Save it beside the model (tokenizer.save_pretrained(folder)), or write the data as token ids.",
    )  # fmt: skip
    return NoTokenizer(error)


def language_model(subject: Subject, tokenizer: Tokenizer) -> LoadedModel:
    """A subject that reads tokens, with the task that it brings: subject-verb agreement."""
    return LoadedModel(subject, lambda: agreement.task(tokenizer), tokenizer)


class Folders(ModelSource):
    """See ``load_folder``.

    Attributes:
        dtype: Of the weights in memory.
    """

    form = "hf:FOLDER"
    title = "A Hugging Face language model or classifier in a local folder, as safetensors (extra: llm)."
    place = "folder"
    dtype: ClassVar[Literal["float32", "auto"]] = "float32"

    def load(self, rest: str, *, name: str) -> LoadedModel:
        """See ``ModelSource.load``."""
        path = Path(rest).expanduser()
        refuse_pickle(path)
        return load_folder(path, name=name, dtype=self.dtype)

    def shipped(self, rest: str, *, reference: Subject) -> ShippedModel:
        """See ``ModelSource.shipped``."""
        from wheeltap.sources.folder_weights import ShippedFolder

        return ShippedFolder(Path(rest).expanduser(), reference=reference)


@final
class StoredFolders(Folders):
    """The same, without a cast to single precision: weights stored in 16 bits take half the memory."""

    form = "stored:FOLDER"
    title = "The same as hf:, in the numbers of its files (bfloat16, say), and with arithmetic in these (extra: llm)."
    dtype = "auto"


def library(name: str = "transformers", *, needed_for: str, extra: str = "llm") -> Any:
    """The optional package ``name`` of an extra, untyped.

    Raises:
        MissingExtra: If it is not installed.
    """
    if importlib.util.find_spec(name) is None:
        raise MissingExtra(name, extra, needed_for=needed_for)
    return importlib.import_module(name)


@contextlib.contextmanager
def quiet(transformers: Any = None) -> Generator[None]:
    """A block without a progress bar, log line or warning, of transformers too if it is given; all as before after."""
    with contextlib.ExitStack() as held, contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if transformers is not None:
            log = transformers.utils.logging
            held.callback(log.set_verbosity, log.get_verbosity())
            log.set_verbosity_error()
        yield


def load_folder(folder: Path, *, name: str, dtype: Literal["float32", "auto"] = "float32") -> LoadedModel:
    """The model in ``folder``, in eval mode, on the CPU: ``architectures`` in its config says of what kind.

    It is in float32, or in the numbers of its files (``auto``).

    It comes with its tokenizer, where there is one; without one a language model reads token ids alone.

    Raises:
        MissingFile: If the folder, its config or weights are not there.
        FileFormatError: If a file is damaged, or the weights are only there as a pickle.
        ModelError: If it is of another kind, or transformers cannot load it.
        MissingExtra: If transformers is not installed.
    """
    config = config_of(folder)
    for file in sorted(folder.glob("*.json")):
        if file.is_file():
            document(file, "file", parts=SETTINGS)  # transformers reads some of them whole
    found = architecture_of(config, where=str(folder))
    held = [one for file in weight_files(folder) for one in tensors(file, "file of weights", do=_AGAIN)[0].values()]
    size = Size(len(held), sum(math.prod(one.shape) for one in held))
    transformers = library(needed_for=name)
    unpack: Callable[[nn.Module], dict[str, Tensor]] | None = None
    if "quantization_config" in config:
        from wheeltap.sources.packed_weights import METHODS, PackedFolder, method_of

        size = Size(size.tensors, 16 * size.numbers)  # packed: eight numbers of 4 bits in one
        packed = PackedFolder.of(folder, config)
        if method_of(packed.how) in METHODS:
            for package in packed.packages:
                library(package, needed_for=name, extra=packed.method.extra)
                logging.getLogger(package).setLevel(logging.ERROR)  # else each map of each pass says that it rounds
            unpack = None if packed.packages else packed.dense
    model, unexpected = read_model(transformers, folder, found, size=size, unpack=unpack, dtype=dtype)
    unmap(model)
    known, subject = any((folder / file).is_file() for file in _TOKENIZER_FILES), Subject(model, name=name)
    subject.contents = FolderContents(folder, model, unexpected, partial(_raw_tokenizer, folder) if known else None)
    if found.kind == "language":
        tokenizer = read_tokenizer(transformers, folder) if known else _missing_tokenizer(folder)
        return language_model(subject, tokenizer)
    own: Any = model.config
    labels = tuple(str(own.id2label.get(at, f"LABEL_{at}")) for at in range(own.num_labels))
    reader = read_tokenizer(transformers, folder) if known and found.kind == "text" else None
    classifier = HfClassifier(subject, found.kind, labels, None if reader is None else reader.raw)
    return LoadedModel(subject, tokenizer=reader, classifier=classifier)


def read_model(
    transformers: Any, folder: Path, found: Architecture, *, size: Size,
    unpack: Callable[[nn.Module], dict[str, Tensor]] | None = None, dtype: str = "float32",
) -> tuple[nn.Module, tuple[str, ...]]:  # fmt: skip
    """The model in a folder that has passed the checks, and names of tensors in its files that it has no place for.

    ``unpack`` gives its weights, for a model without any, where they are packed in a way that is read here.

    Raises:
        FileFormatError: If its config describes a far larger model.
        ModelError: If transformers refuses it, or weights are missing or of another shape than the config says.
    """
    families = getattr(transformers.models.auto.modeling_auto, "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", {})
    if found.kind == "language" and found.family not in families:  # its class leaves open what it is
        if found.headless:
            raise without_head(found.name, where=str(folder))
        if found.name.endswith("ForConditionalGeneration"):
            raise _refused(found.name, "a model that reads more than text", str(folder))
    door: Any = getattr(transformers, DOORS[found.kind])
    with translated(transformers, folder, "model"):
        config: Any = transformers.AutoConfig.from_pretrained(str(folder), **_LOCAL)
        held: dict[str, Any] = {}
        if unpack is not None:
            del config.quantization_config
        with size.bounding(folder):
            empty: Any = door.from_config(config)
        if unpack is not None:
            held, door = {"config": config, "state_dict": unpack(empty)}, cast("Any", type(empty))
        model, info = door.from_pretrained(
            None if held else str(folder), dtype=dtype, use_safetensors=True, output_loading_info=True, **held, **_LOCAL
        )
        if getattr(config, "quantization_config", None) and found.kind == "language":
            model(torch.zeros(1, 1, dtype=torch.long, device=model.device))  # libraries unpack in the first pass
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


def unmap(model: nn.Module) -> None:
    """Reads parameters that lie in a file mapped into memory into memory of their own, one by one (on Linux).

    Mapped ones would be there twice as soon as they are written to, and change with the file.
    """
    maps = Path("/proc/self/maps")
    fields = [line.split(maxsplit=5) for line in (maps.read_text().splitlines() if maps.exists() else ())]
    for span, _, offset, _, _, path in (each for each in fields if each[-1].endswith(".safetensors")):
        start, stop = (int(end, 16) for end in span.split("-"))
        for one in model.parameters():
            if start <= one.data_ptr() < stop and one.is_contiguous():
                own = torch.empty_like(one, requires_grad=False)
                into = own.reshape(-1).view(torch.uint8).numpy().data
                with open(path, "rb") as file:
                    file.seek(int(offset, 16) + one.data_ptr() - start)
                    if file.readinto(into) == len(into):
                        one.data = own


def _raw_tokenizer(folder: Path) -> Any:
    return read_tokenizer(library(needed_for=str(folder)), folder).raw


def read_tokenizer(transformers: Any, folder: Path) -> HfTokenizer:
    """The tokenizer in a folder that has passed the checks.

    Raises:
        ModelError: If transformers refuses it.
        FileFormatError: If it makes far more of a text than there is.
    """
    if (file := folder / "tokenizer.json").is_file():
        with parsing(file, "The tokenizer makes far more of a text than there is.",
                     expected=f"ids up to {LARGEST_ID:,}, words that become up to {LONGEST:,} characters",
                     do="Do not trust this file."):  # fmt: skip
            require_modest_tokenizer(document(file, "tokenizer", parts=SETTINGS))
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


def config_of(folder: Path) -> dict[str, Any]:
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


def weight_files(folder: Path) -> list[Path]:
    """The folder's files of weights.

    Raises:
        MissingFile: If one is not there.
        FileFormatError: If one is damaged or something else, or they are pickles.
    """
    index, whole = folder / "model.safetensors.index.json", folder / "model.safetensors"
    files = sorted(folder.glob("*.safetensors"))
    if index.is_file():
        files = [folder / name for name in shards(index, do=_AGAIN)]
    if whole.is_file():  # transformers, too, takes it alone
        files = [whole]
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
    return files
