"""Digests of all in a model's folder or file that changes what users get, beside the weights that were loaded."""

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, cast, final

import torch
from torch import Tensor, nn

from wheeltap.core.bounded import SETTINGS, document, opened, parsing, tensors
from wheeltap.core.bounded import Tensor as Stored
from wheeltap.core.errors import FileFormatError, MissingFile, WheeltapError
from wheeltap.core.files import Contents, Digests

_MOST: Final = 128
"""Files of a folder, at most."""

_JSON: Final = 2**26
"""Bytes of a JSON file that is compared by what it says; and of a file that was not sealed and is read all the same."""

_DOCUMENTS: Final = re.compile(
    r"(.*/)?(readme|license|licence|notice|copying|changelog|citation|use_policy)[\w-]*(\.(md|rst|txt|cff|pdf))?"
    r"|.*\.seal|(.*/)?\.[^/]*",
    re.IGNORECASE,
)
"""Names of files that change nothing that users get, where they are of no other part; hidden ones among them."""

_SHOWN: Final = re.compile(r".*\.(md|rst|pdf|png|jpe?g|gif|svg|webp)", re.IGNORECASE)
"""Names of files that change nothing where no code lies beside them, which could read them."""

_PARTS: Final[tuple[tuple[str, str], ...]] = (
    ("adapter", r"(.*/)?adapter_[^/]*"),
    ("template", r".*\.(jinja2?|j2)|(.*/)?chat_template[^/]*"),
    ("code", r".*\.(py|pyc|pyd|so|dll|dylib|sh|js)"),
    ("weights", r".*\.(safetensors|bin|pt|pth|ckpt|gguf|ggml|h5|msgpack|onnx|ot|npz|npy|pkl|tflite|index\.json)"),
    ("tokenizer", r"(.*/)?(token|vocab|merges|special_tokens|added_tokens|spiece|sentencepiece|source\.spm|target\.spm)"
                  r"[^/]*|.*\.(model|tiktoken|spm)"),
    ("config", r".*config[^/]*|.*\.(ya?ml|toml|ini|cfg)"),
)  # fmt: skip
"""Parts by names of files, the first that fits."""

_CAST: Final = ("dtype", "torch_dtype")
_FLOATS: Final = (None, "auto", "float32", "float16", "bfloat16", "float64")
_SAID_ONLY: Final = ("transformers_version", "_name_or_path", "name_or_path", "_commit_hash", "_from_model_config")
"""Keys of settings that change nothing: ``_CAST`` where they name a kind of number to which casts are harmless."""

_LOADED: Final = ("is_local", "local_files_only", "backend", "tokenizer_file", "vocab_file", "merges_file")
"""Settings of a tokenizer that say how it was loaded."""

_NOTHING: Final = [
    ["tokenizer_config", key, value]
    for key, values in {
        "is_local": (True, False), "local_files_only": (True, False), "backend": ("tokenizers",),
        "tokenizer_class": ("TokenizersBackend", "PreTrainedTokenizerFast"),
    }.items()
    for value in values
]  # fmt: skip
"""What a file may say beside what was made of it, and it changes nothing: versions of transformers write it."""

_UNREAD: Final = (r"rotary_emb\.inv_freq", r"(^|\.)position_ids$")
"""Names of tensors that transformers passes over in silence."""

_WIDE: Final = ("F64", "I64", "U64", "I32", "U32", "C64")
"""Kinds of stored numbers that 32 bits do not always hold."""

_NUMBERS: Final = 2**20
"""Of a tensor that are looked at together."""


@final
@dataclass(frozen=True)
class FolderContents(Contents):
    """Contents of a Hugging Face folder.

    Attributes:
        model: As it was loaded.
        unexpected: Names of tensors in the files of which transformers says that the model has no place for them.
        tokenizer: Loads the folder's tokenizer, where there is one.
    """

    folder: Path
    model: nn.Module
    unexpected: Sequence[str]
    tokenizer: Callable[[], Any] | None

    def digests(self, known: Mapping[str, str] | None = None) -> Digests:
        """A digest of each thing.

        Raises:
            FileFormatError: If there are too many files.
            MissingFile: If one cannot be read.
        """
        try:
            return self._digests(known or {}, bounded=known is not None)
        except OSError as error:
            raise MissingFile("A file beside the weights cannot be read.", where=str(self.folder),
                              expected="files that this user can read", got=str(error)) from error  # fmt: skip

    def _digests(self, known: Mapping[str, str], *, bounded: bool) -> Digests:
        loaded, found = _weight_files(self.folder, self.model), dict[str, dict[str, str]]()
        files = [
            (next((one for one, pattern in _PARTS if re.fullmatch(pattern, name, re.IGNORECASE)), "other"), name, path)
            for name, path in _files(self.folder)
        ]
        coded = any(part == "code" for part, _, _ in files)
        for part, name, path in files:
            shown = _DOCUMENTS.fullmatch(name) or (not coded and _SHOWN.fullmatch(name))
            if (path in loaded and part == "weights") or (part == "other" and shown):
                continue
            found.setdefault(part, {})[name] = _of_file(path, known.get(name, "") if bounded else None)
            if name in ("tokenizer_config.json", "processor_config.json") and (texts := _templates(path)):
                found.setdefault("template", {}).update({f"{name}: {key}": one for key, one in texts.items()})
        if strays := dict(_strays(loaded, self.model, self.unexpected)):
            found.setdefault("weights", {}).update(strays)
        return found

    def meanings(self) -> dict[str, str]:
        """Digests of what transformers makes of settings, and of what a file says beside that.

        Another version of transformers may write them in another way; another runtime may read the rest.
        """
        config, generation = self.model.config, getattr(self.model, "generation_config", None)
        made = {"config": _meant(cast("Any", config).to_dict())}
        if generation is not None:
            made["generation_config"] = _meant(generation.to_dict())
        if self.tokenizer is not None:
            raw: Any = self.tokenizer()
            backend: Any = getattr(raw, "backend_tokenizer", None)
            settings = {key: one for key, one in _meant(raw.init_kwargs).items() if key not in _LOADED}
            rules = digest_of(raw.get_vocab()) if backend is None else backend.to_str()
            about = {"tokenizer_class": type(raw).__name__, "chat_template": raw.chat_template, "rules": rules}
            made["tokenizer_config"] = {**settings, **about}
        found = {"tokenizer": _rules(self.folder / "tokenizer.json")}
        for stem, held in made.items():
            said = cast("dict[str, Any]", json.loads(json.dumps(held, default=_plain)))
            path = self.folder / f"{stem}.json"
            file = _object(path)
            known = {key: one for key, one in (file or {}).items() if [stem, key, one] not in _NOTHING}
            more = digest_of(several) if (several := sorted(_more(known, said))) else ""
            found |= {stem: digest_of(said), f"{stem} more": _of_file(path) if file is None and path.exists() else more}
        return found

    def tensors(self) -> dict[str, tuple[Path, Stored]]:
        """See ``Contents.tensors``."""
        return {
            name: (shard, one)
            for shard in _weight_files(self.folder, self.model)
            if shard.suffix != ".json"  # the index
            for name, one in tensors(shard, "file of weights")[0].items()
        }


def _weight_files(folder: Path, model: nn.Module) -> list[Path]:
    """The files of weights that transformers read: the one that the config names, or one, or those in an index."""
    named = str(getattr(model.config, "transformers_weights", None) or "")
    path = folder / (named or "model.safetensors")
    if not named and not path.is_file():
        path = folder / "model.safetensors.index.json"
    if path.suffix == ".safetensors":
        return [path]
    return [path, *(folder / name for name in shards(path))]


def shards(index: Path, *, do: str = "") -> list[str]:
    """File names in an index of shards, in order; each must be a plain name of a safetensors file.

    Raises:
        FileFormatError: If one is not, or the index cannot be read.
    """
    expected = "a JSON object whose weight_map names *.safetensors files in this folder"
    with parsing(index, "The index of the weights cannot be read.", expected=expected, do=do):
        names: list[str] = sorted(set(json.loads(document(index, "index"))["weight_map"].values()))
        if not names or any(Path(name).name != name or Path(name).suffix != ".safetensors" for name in names):
            raise ValueError(f"names such as {', '.join(names[:3])}"[:120])
    return names


def _files(folder: Path) -> list[tuple[str, Path]]:
    """All files below a folder that are in no hidden folder, by their paths in it, in order."""
    found = list[tuple[str, Path]]()

    def unread(error: OSError) -> NoReturn:
        raise error

    walk = os.walk(folder, followlinks=True, onerror=unread)
    for places, (place, folders, files) in enumerate(walk, 1):  # links may lead to more places than there are
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(place) / file for file in sorted(files)]
        found += [
            (one.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode(), one) for one in paths
        ]
        if max(len(found), places) > _MOST:
            raise FileFormatError(
                "The model's folder has too many files to seal.", where=str(folder), expected=f"{_MOST} or less",
                got="more", do="Keep the model in a folder of its own, with nothing beside what it needs.",
            )  # fmt: skip
    return found


def _of_file(path: Path, sealed: str | None = None) -> str:
    """SHA-256 of a file's bytes; of a JSON object, of what it says, without what changes nothing.

    Empty for a large file of another size than the sealed one.
    """
    if not path.is_file():
        return "raw:no file"  # a pipe or a broken link is not opened
    size = path.stat().st_size
    if sealed is not None and size > _JSON and not sealed.startswith(f"raw:{size}:"):
        return ""
    if path.suffix == ".json" and (held := _object(path)) is not None:
        about = {
            "config.json": [_meant(held), _before_5(held.get("transformers_version"))],
            "generation_config.json": _meant(held),
        }
        return digest_of(about.get(path.name, held), ordered=True)
    with opened(path, "file") as file:
        return f"raw:{size}:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _before_5(version: Any) -> bool | str:
    """Whether transformers takes a folder for one of a version before 5, whose tokenizers it reads in another way."""
    from packaging.version import InvalidVersion, Version

    try:
        return not version or Version(version) < Version("5.0.0")
    except (InvalidVersion, TypeError):
        return str(version)


def _object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; nothing where it is none, is too large, or names a key twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key that stands twice")
        return dict(pairs)

    try:
        held: Any = json.loads(document(path, "file", limit=_JSON, parts=SETTINGS // 2), object_pairs_hook=once)
    except (WheeltapError, ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", held) if isinstance(held, dict) else None


def digest_of(value: object, *, ordered: bool = False) -> str:
    """SHA-256 of what JSON says; the order of keys counts in files, where ids may follow it."""
    return hashlib.sha256(json.dumps(value, sort_keys=not ordered, default=_plain).encode()).hexdigest()


def _plain(value: Any) -> object:
    """What a setting that is no JSON says."""
    state: Any = getattr(value, "__getstate__", lambda: None)()
    return cast("object", state) if isinstance(state, dict) else str(value)


def _meant(held: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that change nothing; code of the folder's own may read where it came from."""
    needless = () if "auto_map" in held else _SAID_ONLY
    return {key: value for key, value in _uncast(held).items() if key not in needless}


def _uncast(held: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without kinds of numbers to which casts are harmless, at every level."""
    return {
        key: _uncast(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else value
        for key, value in held.items()
        if key not in _CAST or not (value is None or str(value).removeprefix("torch.") in _FLOATS)
    }


def _templates(path: Path) -> dict[str, str]:
    """Digests of the chat templates in the settings of a tokenizer, by name."""
    held: Any = (_object(path) or {}).get("chat_template") if path.suffix == ".json" else None
    alone = [{"name": "chat_template", "template": held}]
    several = cast("list[Any]", held if isinstance(held, list) else alone)
    named = [cast("dict[str, Any]", one) for one in several if isinstance(one, dict)]
    names = [str(one.get("name")) for one in named]
    texts = {
        name if names.count(name) == 1 else f"{name} #{at}": one.get("template")
        for at, (name, one) in enumerate(zip(names, named, strict=True))
    }
    coded = {name: text.encode("utf-8", "surrogatepass") for name, text in texts.items() if isinstance(text, str)}
    return {name: f"raw:{len(data)}:{hashlib.sha256(data).hexdigest()}" for name, data in coded.items()}


def _rules(path: Path) -> str:
    """A digest of the rules in a tokenizer's file, however it is written; of its bytes where they cannot be read."""
    from tokenizers import Tokenizer

    if not path.is_file():
        return ""
    try:
        return digest_of(Tokenizer.from_buffer(document(path, "tokenizer")).to_str())  # pyright: ignore
    except Exception:  # what the package raises has no other type
        return _of_file(path)


def _more(raw: Mapping[str, Any], meant: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Settings in a file that what was made of it does not repeat: they have older names, or were overruled."""
    known = {(key, json.dumps(value)) for key, value in _leaves(meant)}
    for key, held in _leaves(_meant({name: one for name, one in raw.items() if name != "chat_template"})):
        if not {(key, json.dumps(held)), ((*key, "content"), json.dumps(held))} & known:
            yield ".".join(key), json.dumps(held)


def _leaves(held: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Values by their paths; of empty objects and lists, themselves."""
    items = cast("Mapping[str, Any]", held).items() if isinstance(held, Mapping) else ()
    items = enumerate(cast("list[Any]", held)) if isinstance(held, list) else items
    several = [(str(key), value) for key, value in items]
    for key, value in several:
        yield from _leaves(value, (*path, key))
    if not several and path:
        yield path, held


# ---- tensors that nothing loads ----------------------------------------------------------------------------------


def _strays(files: Sequence[Path], model: nn.Module, unexpected: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Tensors in files of weights that the model does not hold, with a digest of each.

    Names that the loader knows under others are none, if there are no more numbers under them than in the tensors of
    the model whose own names are not there, and none stands there under two names. A tensor is not held either if
    loading rounded its numbers: another loader may keep all of their bits.
    """
    held = cast("dict[str, Tensor]", model.state_dict())
    named, wide = list[tuple[str, Path, int]](), set[str]()
    for shard in (file for file in files if file.suffix != ".json"):  # the index
        for name, one in tensors(shard, "file of weights")[0].items():
            named.append((name, shard, math.prod(one.shape)))
            kind = held[name].dtype if name in held else torch.float32
            if (kind != torch.float32 or one.dtype in _WIDE) and _rounded(_read(shard, name), kind):
                wide.add(name)
    counts = Counter(name for name, *_ in named)
    stored = {part.data_ptr() for name, part in held.items() if name in counts}
    absent = {part.data_ptr(): part.numel() for part in held.values() if part.data_ptr() not in stored}
    ignored: Any = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    silent = re.compile("|".join(f"({one})" for one in (*ignored, *_UNREAD)))
    others = [one for one in named if one[0] not in held]
    renamed = [one for one in others if one[0] not in unexpected and not silent.search(one[0])]
    fits = sum(size for *_, size in renamed) <= sum(absent.values())
    prefix = str(getattr(model, "base_model_prefix", ""))
    for one in named:
        name, shard, _ = one
        twice = counts[name] > 1 or f"{prefix}.{name}" in counts
        if twice or name in wide or (one in others and not (fits and one in renamed)):
            part = _read(shard, name)
            state = hashlib.sha256(f"{part.dtype} {list(part.shape)}".encode())
            state.update(part.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            yield f"tensor {name}" + (f" in {shard.name}" if counts[name] > 1 else ""), state.hexdigest()


def _read(shard: Path, name: str) -> Tensor:
    from safetensors import safe_open

    with (
        parsing(shard, "A tensor that the model does not hold cannot be read.", expected="numbers that torch knows",
                do="Leave it out of the file."),
        safe_open(shard, "pt") as file,  # pyright: ignore[reportUnknownVariableType]
    ):  # fmt: skip
        return cast("Tensor", file.get_tensor(name))  # pyright: ignore[reportUnknownMemberType]


def _rounded(part: Tensor, kind: torch.dtype) -> bool:
    """Whether numbers of another kind do not hold all of its bits."""
    flat = part.contiguous().reshape(-1)
    pieces = (flat[at : at + _NUMBERS] for at in range(0, len(flat), _NUMBERS))
    return any(not torch.equal(one.to(kind).to(one.dtype).view(torch.uint8), one.view(torch.uint8)) for one in pieces)
