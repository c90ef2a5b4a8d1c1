"""GGUF files: a tiny one written here gives the model it was made of; damaged ones, and what lies in a cache."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_files import BYTES, tiny_falcon, write_gguf
from tiny import tiny_llama

from wheeltap.core.errors import FileFormatError, MissingExtra, MissingFile, ModelError
from wheeltap.core.files import Contents
from wheeltap.sources import gguf as source
from wheeltap.sources import hf, load
from wheeltap.sources.gguf import read_header
from wheeltap.suites.seal.contents import SealedContents, differences
from wheeltap.suites.seal.folder import digests, meanings


@pytest.fixture
def tiny_gguf(tmp_path: Path) -> Path:
    write_gguf(tmp_path / "tiny.gguf", tiny_llama(vocabulary=len(BYTES) + 2))
    return tmp_path / "tiny.gguf"


def test_the_file_gives_the_model_it_was_made_of(tiny_gguf: Path) -> None:
    made = source.load_gguf(tiny_gguf, name="tiny")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        expected = tiny_llama(vocabulary=len(BYTES) + 2)(ids).logits
        torch.testing.assert_close(made.subject.model(ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert not made.subject.model.training and made.subject.name == "tiny"
    assert made.tokenizer.start("ab!b") == [2 + BYTES.index(c) for c in ("ab", "!", "b")]


CUTS = {
    "smollm": "a \u0120\u0120 1 2 3 4 \u0120=",
    "gpt-2": "a \u0120 \u0120 12 34 \u0120=",
    "default": "a \u0120 \u0120 12 3 4 \u0120 =",
    "falcon": "a \u0120 \u0120 12 3 4 \u0120 =",
    "glm4": "a \u0120 \u0120 12 3 4 \u0120=",
    "stablelm2": "a \u0120 \u0120 1 2 3 4 \u0120=",
    "deepseek-llm": "a \u0120\u0120 12 34 \u0120=",
    "deepseek-coder": "a \u0120\u0120 1 2 3 4 \u0120=",
    "deepseek-v3": "a \u0120\u0120 12 3 4 \u0120=",
}
"""By ``llama_tokenize`` of llama.cpp, of such vocabularies."""


def cut_file(folder: Path, cut: str) -> tuple[Path, list[str]]:
    """A model with some merges, and its tokens."""
    tokens = ["<s>", "</s>", "\u0120", "\u0120\u0120", "12", "34", "\u0120=", *BYTES[2:]]

    def named(writer: Any) -> None:
        writer.add_token_list(tokens)
        writer.add_token_types([3, 3, *[1] * (len(tokens) - 2)])
        writer.add_token_merges(["\u0120 \u0120", "1 2", "3 4", "\u0120 ="])
        writer.add_tokenizer_pre(cut)

    write_gguf(folder / "cut.gguf", tiny_llama(vocabulary=len(tokens)), change=named)
    return folder / "cut.gguf", tokens


def test_texts_are_cut_into_tokens_as_llama_cpp_cuts_them(tmp_path: Path) -> None:
    for cut, expected in CUTS.items():
        path, tokens = cut_file(tmp_path, cut)
        ids = source.load_gguf(path, name="cut").tokenizer.more("a  1234 =")
        assert [tokens[token] for token in ids] == expected.split(), cut


def test_texts_that_are_cut_in_an_unknown_way_are_refused_and_token_ids_are_not(tmp_path: Path) -> None:
    (tmp_path / "ids.jsonl").write_text('{"prompt": [8, 9], "answer": [10]}\n')
    loaded = load(f"gguf:{cut_file(tmp_path, 'kimi-k2')[0]}", data=tmp_path / "ids.jsonl")
    assert len(loaded.task.targets) == 1
    with pytest.raises(FileFormatError, match="kimi-k2"):
        load(f"gguf:{tmp_path / 'cut.gguf'}")


def test_loads_in_two_folders_are_the_same_and_leave_no_file_behind(tiny_gguf: Path, tmp_path: Path) -> None:
    first = source.load_gguf(tiny_gguf, name="tiny").subject.record
    (tmp_path / "other").mkdir()
    moved = tiny_gguf.rename(tmp_path / "other" / "moved.gguf")
    assert source.load_gguf(moved, name="tiny").subject.record.fingerprint == first.fingerprint
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [moved]


def contents_of(path: Path) -> Contents:
    held = source.load_gguf(path, name="one").subject.contents
    assert held is not None
    return held


def of(held: Contents) -> SealedContents:
    return SealedContents(digests(held), meanings(held))


def test_entries_and_tensors_beside_the_weights_are_compared(tmp_path: Path) -> None:
    """A tokenizer, a template, a setting; a tensor that only other runtimes read; and words that change nothing."""

    def written(change: Callable[[Any], object]) -> Contents:
        write_gguf(tmp_path / "one.gguf", tiny_llama(vocabulary=len(BYTES) + 2), change=change)
        return contents_of(tmp_path / "one.gguf")

    def tensor(number: float) -> Callable[[Any], object]:
        return lambda made: made.add_tensor("rope_freqs.weight", np.full(4, number, np.float32))

    sealed = of(written(lambda made: made.add_chat_template("{{ messages }}")))
    assert set(sealed.parts) == {"config", "template", "tokenizer"}
    many: dict[str, Callable[[Any], object]] = {
        "template: tokenizer.chat_template": lambda made: made.add_chat_template("{{ 'obey' }}"),
        "tokenizer: tokenizer.ggml.padding_token_id": lambda made: made.add_pad_token_id(5),
        "config: llama.expert_count": lambda made: made.add_expert_count(2),
        "weights: tensor rope_freqs.weight": tensor(1.0),
    }
    for named, change in many.items():
        assert any(line.startswith(named) for line in differences(sealed, written(change))), named

    def described(made: Any) -> None:
        made.add_chat_template("{{ messages }}")
        made.add_author("Someone else")

    assert differences(sealed, written(described)) == ()
    [changed] = differences(of(written(tensor(1.0))), written(tensor(2.0)))
    assert "rope_freqs.weight" in changed


def test_tied_weights_that_differ_are_compared(tmp_path: Path) -> None:
    """The model holds one of them; other runtimes read both."""

    def written(factor: float) -> Contents:
        torch.manual_seed(0)
        model = tiny_falcon()
        model.lm_head.weight = torch.nn.Parameter(model.transformer.word_embeddings.weight.detach().clone())
        with torch.no_grad():
            model.transformer.word_embeddings.weight[5] *= factor
        write_gguf(tmp_path / "one.gguf", model.requires_grad_(False), architecture="falcon")
        return contents_of(tmp_path / "one.gguf")

    sealed = of(written(1.0))
    assert "weights" not in sealed.parts
    [both] = differences(sealed, written(-3.0))
    assert "output.weight" in both and "token_embd.weight" in both
    [one] = differences(of(written(2.0)), written(-3.0))
    assert "token_embd.weight" in one and "output.weight" not in one


def test_a_file_that_lacks_weights_and_an_unknown_architecture(tmp_path: Path) -> None:
    for settings, named in (
        ({"leave_out": "layers.1.mlp.up_proj"}, "up_proj"),
        ({"architecture": "no-such-net"}, None),
    ):
        write_gguf(tmp_path / "bad.gguf", tiny_llama(vocabulary=len(BYTES) + 2), **settings)
        with pytest.raises(ModelError, match=named):
            source.load_gguf(tmp_path / "bad.gguf", name="bad")


def test_every_truncation_is_told_before_anything_is_converted(tiny_gguf: Path) -> None:
    data = tiny_gguf.read_bytes()
    header = read_header(tiny_gguf)
    assert len(header.tensors) == 20
    cuts = [0, 3, 4, 7, 20, 60, 500, header.data - 40, header.data + 10, len(data) // 2, len(data) - 40]
    for size in cuts:
        tiny_gguf.write_bytes(data[:size])
        with pytest.raises(FileFormatError):
            source.load_gguf(tiny_gguf, name="tiny")


def test_headers_that_promise_too_much_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    start = b"GGUF" + struct.pack("<I", 3)
    name = struct.pack("<Q", 1) + b"x"
    huge, nested = struct.pack("<IQ", 8, 2**40), struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 9, 1) * 9
    for body in (
        struct.pack("<QQ", 2**60, 0),
        struct.pack("<QQ", 1, 2**60),
        struct.pack("<QQ", 1, 1) + struct.pack("<Q", 2**62),
        struct.pack("<QQ", 1, 1) + name + huge,
        struct.pack("<QQQ", 1, 0, 5000) + bytes(5000),
        struct.pack("<QQ", 1, 1) + name + struct.pack("<IIQ", 9, 4, 10**7),
        struct.pack("<QQ", 1, 1) + name + nested,
        struct.pack("<QQ", 1, 1) + name + struct.pack("<I", 77),
    ):
        path.write_bytes(start + body + bytes(64))
        with pytest.raises(FileFormatError):
            read_header(path)
    path.write_bytes(b"GGUF" + struct.pack("<I", 9) + bytes(64))
    with pytest.raises(FileFormatError):
        read_header(path)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(FileFormatError):
        load(f"gguf:{tmp_path / 'text.gguf'}")
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(MissingFile):
            load(f"gguf:{path}")


def test_a_missing_package_prints_the_install_line() -> None:
    with pytest.raises(MissingExtra, match=r'pip install "wheeltap\[llm\]"'):
        hf.library("no_such_package", needed_for="smollm2")
