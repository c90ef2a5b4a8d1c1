"""Files of recorded answers and votes, small ones, in every shape."""

import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.published import published
from wheeltap.suites.lens.recorded import AnswerFile, read


def lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def choice(number: int, scores: list[float], right: int, **more: Any) -> dict[str, Any]:
    """A sample of a multiple-choice task as lm-eval writes it to a file: numbers are texts."""
    pairs = [[str(score), "False"] for score in scores]
    return {
        "doc_id": number, "doc": {"question": "?", "label": right}, "target": str(right),
        "arguments": {f"gen_args_{at}": {"arg_0": "?", "arg_1": f" {at}"} for at in range(len(scores))},
        "resps": [[pair] for pair in pairs], "filtered_resps": pairs, "filter": "none", "metrics": ["acc", "acc_norm"],
        "doc_hash": f"{number:064x}", "acc": float(scores.index(max(scores)) == right), "acc_norm": 0.0, **more,
    }  # fmt: skip


def generated(doc: int, texts: list[str], score: float, name: str = "strict-match", **more: Any) -> dict[str, Any]:
    """A sample of a generation task."""
    return {
        "doc_id": doc, "doc": {"question": "?"}, "target": "4", "arguments": [["?", {"until": ["\n"]}]],
        "resps": [texts], "filtered_resps": [texts] if len(texts) > 1 else texts, "filter": name,
        "metrics": ["exact_match"], "doc_hash": f"{doc:064x}", "exact_match": score, **more,
    }  # fmt: skip


def sample(item: int | str, epoch: int, value: Any, **more: Any) -> dict[str, Any]:
    """A sample of a log of inspect."""
    score = {"match": {"value": value, "answer": f"answer {value}"}}
    return {"id": item, "epoch": epoch, "input": "?", "target": "4", "scores": score, **more}


HEADER = {"version": 2, "status": "success", "eval": {"model": "maker/model", "task": "sums"}, "plan": {}}


def archive(path: Path, samples: Iterable[Mapping[str, Any]], *, header: Mapping[str, Any] = HEADER) -> Path:
    """A log of inspect as a zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for one in samples:
            file.writestr(f"samples/{one['id']}_epoch_{one['epoch']}.json", json.dumps(one))
        file.writestr("header.json", json.dumps(header))
    return path


def in_frames(data: bytes) -> bytes:
    """Two frames of Zstandard, as inspect writes several of large members."""
    packer: Any = pytest.importorskip("zstandard", reason="needs the package zstandard").ZstdCompressor()
    return packer.compress(data[:9]) + packer.compress(data[9:])


def by_zstandard(path: Path, *, pack: Callable[[bytes], bytes] = in_frames, size: int | None = None) -> Path:
    """An archive with the same members, packed as newer versions of inspect pack them.

    Args:
        path: Of the archive.
        pack: Makes the bytes of a member.
        size: What the list of contents says of each; by default the truth.
    """
    with zipfile.ZipFile(path) as file:
        held = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in held.items():
            file.writestr(name, pack(data))
            made = file.filelist[-1]  # written into the list of contents when the file is closed
            made.compress_type, made.CRC = 93, zlib.crc32(data)
            made.file_size = len(data) if size is None else size
    return path


def written(path: Path, content: Any) -> Path:
    """Rows as lines or as an archive, an object as a document, bytes and text as they are."""
    if isinstance(content, list):
        return archive(path, content) if path.suffix == ".eval" else lines(path, content)
    text = json.dumps(content, indent=2) if isinstance(content, dict) else content
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def loaded(path: Path, content: Any) -> AnswerFile:
    """What is read of a file with this content."""
    return read(written(path, content))


def released(path: Path) -> Path:
    """The released solutions of GSM8K as our own rows: four systems, 1,319 questions."""
    rows = map(json.loads, published("gsm8k/example_model_solutions.jsonl").read_text().splitlines())
    return lines(
        path,
        [
            {"id": at, "system": name, "correct": solution["is_correct"]}
            for at, row in enumerate(rows)
            for name, solution in row.items()
            if isinstance(solution, dict)
        ],
    )
