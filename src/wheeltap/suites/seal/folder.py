"""Digests of all in a model's folder that changes what users get, beside the weights that were loaded."""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, cast

import torch
from torch import Tensor, nn

from wheeltap.core.bounded import SETTINGS, document, opened, parsing, tensors
from wheeltap.core.errors import FileFormatError, MissingFile, WheeltapError
from wheeltap.core.files import Contents, Digests
from wheeltap.sources.contents import FolderContents, digest_of, loaded_files, plain

_MOST: Final = 128
"""Files of a folder, at most."""

_JSON: Final = 2**26
"""Bytes of a JSON file that is compared by what it says."""

_DOCUMENTS: Final = re.compile(
    r"(.*/)?(readme|license|licence|notice|copying|changelog|citation|use_policy)[\w-]*(\.(md|rst|txt|cff|pdf))?"
    r"|.*\.seal|(.*/)?\.[^/]*",
    re.IGNORECASE,
)
"""Names of files that change nothing that users get, where they are of no other part; hidden ones among them."""

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

_WIDE: Final = ("F64", "I64", "U64", "I32", "U32", "C64")
"""Kinds of stored numbers that 32 bits do not always hold."""


def digests(held: Contents) -> Digests:
    """Return a digest of each thing.

    Raises:
        FileFormatError: If there are too many files.
        MissingFile: If one cannot be read.
    """
    if not isinstance(held, FolderContents):
        return held.digests()
    loaded, found = loaded_files(held.folder, held.model), dict[str, dict[str, str]]()
    try:
        for name, path in _files(held.folder):
            kinds = (part for part, pattern in _PARTS if re.fullmatch(pattern, name, re.IGNORECASE))
            part = next(kinds, "other")
            if not ((path in loaded and part == "weights") or (part == "other" and _DOCUMENTS.fullmatch(name))):
                found.setdefault(part, {})[name] = _of_file(path)
    except OSError as error:
        raise MissingFile("A file beside the weights cannot be read.", where=str(held.folder),
                          expected="files that this user can read", got=str(error)) from error  # fmt: skip
    if strays := dict(_strays(loaded, held.model)):
        found.setdefault("weights", {}).update(strays)
    return found


def meanings(held: Contents) -> dict[str, str]:
    """Return digests of what transformers makes of a folder's settings, and of what a file says beside that.

    Another version of transformers may write them in another way; another runtime may read the rest.
    """
    if not isinstance(held, FolderContents):
        return {}
    config, generation = held.model.config, getattr(held.model, "generation_config", None)
    made = {"config": _meant(cast("Any", config).to_dict())}
    if generation is not None:
        made["generation_config"] = _meant(generation.to_dict())
    if held.tokenizer is not None:
        raw: Any = held.tokenizer()
        backend: Any = getattr(raw, "backend_tokenizer", None)
        settings = {key: one for key, one in _meant(raw.init_kwargs).items() if key not in _LOADED}
        rules = digest_of(raw.get_vocab()) if backend is None else backend.to_str()
        about = {"tokenizer_class": type(raw).__name__, "chat_template": raw.chat_template, "rules": rules}
        made["tokenizer_config"] = {**settings, **about}
    found = {"tokenizer": _rules(held.folder / "tokenizer.json")}
    for stem, settings in made.items():
        said = cast("dict[str, Any]", json.loads(json.dumps(settings, default=plain)))
        path = held.folder / f"{stem}.json"
        file = _object(path)
        known = {key: one for key, one in (file or {}).items() if [stem, key, one] not in _NOTHING}
        more = digest_of(several) if (several := sorted(_more(known, said))) else ""
        found |= {stem: digest_of(said), f"{stem} more": _of_file(path) if file is None and path.exists() else more}
    return found


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


def _of_file(path: Path) -> str:
    """SHA-256 of a file's bytes; of a JSON object, of what it says, without what changes nothing."""
    if not path.is_file():
        return "raw:no file"  # a pipe or a broken link is not opened
    if path.suffix == ".json" and (held := _object(path)) is not None:
        return digest_of(_uncast(held) if path.name == "config.json" else held, ordered=True)
    with opened(path, "file") as file:
        return f"raw:{path.stat().st_size}:{hashlib.file_digest(file, 'sha256').hexdigest()}"


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
    for key, held in _leaves(_meant(raw)):
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


def _strays(files: Sequence[Path], model: nn.Module) -> Iterator[tuple[str, str]]:
    """Tensors in files of weights that the model does not hold under their names, with a digest of each.

    One that stands in two files is not held, nor one whose numbers loading rounded: another loader may keep all bits.
    """
    held = cast("dict[str, Tensor]", model.state_dict())
    named = [
        (name, shard, one.dtype in _WIDE)
        for shard in files
        if shard.suffix != ".json"  # the index
        for name, one in tensors(shard, "file of weights")[0].items()
    ]
    counts = Counter(name for name, *_ in named)
    for name, shard, wide in named:
        if name in held and counts[name] == 1 and held[name].dtype == torch.float32 and not wide:
            continue
        part = _read(shard, name)
        flat, state = part.contiguous().reshape(-1), hashlib.sha256(f"{part.dtype} {list(part.shape)}".encode())
        bits = flat.view(torch.uint8)
        rounded = name not in held or not torch.equal(flat.to(held[name].dtype).to(flat.dtype).view(torch.uint8), bits)
        if rounded or counts[name] > 1:
            state.update(bits.numpy().data)
            yield f"tensor {name}" + (f" in {shard.name}" if counts[name] > 1 else ""), state.hexdigest()


def _read(shard: Path, name: str) -> Tensor:
    from safetensors import safe_open

    with (
        parsing(shard, "A tensor that the model does not hold cannot be read.", expected="numbers that torch knows",
                do="Leave it out of the file."),
        safe_open(shard, "pt") as file,  # pyright: ignore[reportUnknownVariableType]
    ):  # fmt: skip
        return cast("Tensor", file.get_tensor(name))  # pyright: ignore[reportUnknownMemberType]
