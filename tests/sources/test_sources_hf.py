"""Hugging Face folders: what loads, what is refused, and that nothing else changes."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import WORDS, tiny_llama

from benchmarks.fuzz.__main__ import memory
from wheeltap.core.errors import FileFormatError, MissingFile, ModelError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.sources import hf, load, load_model


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def edit(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_a_folder_gives_the_model_that_was_saved(llama_folder: Path) -> None:
    model = hf.load_folder(llama_folder, name="tiny")
    saved = tiny_llama()
    ids = torch.arange(16)[None]
    with torch.no_grad():
        assert torch.equal(model.subject.model(ids).logits, saved(ids).logits)
    assert weights_digest(model.subject.model) == weights_digest(saved)
    assert model.tokenizer.start("the dogs near it") == [WORDS.index(w) for w in ("the", "dogs", "near", "it")]
    saved.to(torch.bfloat16).save_pretrained(llama_folder)
    assert {p.dtype for p in load_model(f"hf:{llama_folder}").model.parameters()} == {torch.float32}


def test_a_folder_goes_to_other_processes(llama_folder: Path) -> None:
    subject = load(f"hf:{llama_folder}").subject
    there = pickle.loads(pickle.dumps(subject))
    assert weights_digest(there.model) == weights_digest(subject.model)
    assert there.contents.digests() == subject.contents.digests()


def test_a_spec_and_own_items(llama_folder: Path, tmp_path: Path) -> None:
    item = {"context": "the old dogs", "choices": [" is", " are"], "answer": " are"}
    (tmp_path / "own.jsonl").write_text(json.dumps(item) + "\n")
    loaded = load(f"hf:{llama_folder}", data=tmp_path / "own.jsonl")
    assert loaded.subject.name == "tiny-llama"
    assert loaded.task.scores(loaded.subject.model).shape == (1, 2)
    assert load(f"hf:{llama_folder}").task.name == "agreement"


def test_token_ids_need_no_tokenizer(llama_folder: Path, tmp_path: Path) -> None:
    (llama_folder / "tokenizer.json").unlink()
    pair = {"clean": [3, 4, 5], "corrupted": [3, 6, 5], "answer": 7, "wrong": 8}
    (tmp_path / "ids.jsonl").write_text(f"{json.dumps(pair)}\n{json.dumps(pair)}\n")
    loaded = load(f"hf:{llama_folder}", data=tmp_path / "ids.jsonl")
    assert loaded.task.scores(loaded.subject.model).shape == (2, 2)
    assert load_model(f"hf:{llama_folder}").name == "tiny-llama"
    text = {"clean": "the dogs", "corrupted": "the dog", "answer": " are", "wrong": " is"}
    (tmp_path / "text.jsonl").write_text(json.dumps(text))
    with pytest.raises(MissingFile, match="tokenizer"):
        load(f"hf:{llama_folder}", data=tmp_path / "text.jsonl")


@pytest.mark.parametrize(
    "change",
    [{"vocab_size": 10**12}, {"num_hidden_layers": 10**9}],
    ids=str,
)  # fmt: skip
def test_a_config_of_a_far_larger_model_takes_no_memory(llama_folder: Path, change: dict[str, int]) -> None:
    edit(llama_folder / "config.json", **change)
    before = memory(reset=True)
    with pytest.raises(FileFormatError):
        load_model(f"hf:{llama_folder}")
    assert memory() - before < 200 * 2**20


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))


def lost_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def index(folder: Path, *names: str) -> None:
    content = {"weight_map": {f"weight{i}": name for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def lost_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index(folder, "model-00001-of-00002.safetensors")


DAMAGES: list[tuple[Callable[[Path], object], type[Exception], str | None]] = [
    (lambda f: (f / "config.json").unlink(), MissingFile, None),
    (lambda f: (f / "config.json").write_text("{"), FileFormatError, "config"),
    (lambda f: edit(f / "config.json", hidden_size=48, head_dim=12), ModelError, None),
    (only_pickle, FileFormatError, "pickle"),
    *((lambda f, size=size: cut(f / "model.safetensors", size), FileFormatError, "model.safetensors")
      for size in (20_000, 0)),
    (lost_weight, ModelError, "layers.1.mlp.up_proj"),
    (lost_shard, MissingFile, "model-00001-of-00002.safetensors"),
    (lambda f: index(f, "../elsewhere.safetensors"), FileFormatError, "index"),
    (lambda f: (f / "tokenizer.json").write_text("{}"), ModelError, "tokenizer"),
]  # fmt: skip


REPLACE = {"type": "Replace", "pattern": {"String": "b"}, "content": "b" * 10}
TEMPLATE = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 10, "pair": [],
            "special_tokens": {}}  # fmt: skip
LARGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "a table of 4 billion": lambda held: held["model"]["vocab"].update(x=4_000_000_000),
    "a billion characters of one": lambda held: held.update(
        normalizer={"type": "Sequence", "normalizers": [REPLACE] * 9}),
    "a billion tokens of one": lambda held: held.update(
        post_processor={"type": "Sequence", "processors": [TEMPLATE] * 9}),
}  # fmt: skip


def test_a_tokenizer_that_makes_far_more_of_a_text_is_refused(llama_folder: Path) -> None:
    path = llama_folder / "tokenizer.json"
    sound = path.read_text()
    for change in LARGE.values():
        fields = json.loads(sound)
        change(fields)
        path.write_text(json.dumps(fields))
        with pytest.raises(FileFormatError):
            load(f"hf:{llama_folder}")


def test_damaged_folders_are_refused(llama_folder: Path, tmp_path: Path) -> None:
    for position, (damage, error, named) in enumerate(DAMAGES):
        folder = tmp_path / f"damaged-{position}"
        shutil.copytree(llama_folder, folder)
        damage(folder)
        with pytest.raises(error, match=named):
            load(f"hf:{folder}")


def test_code_in_a_folder_never_runs(llama_folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    (llama_folder / "evil.py").write_text(f"open({str(trace)!r}, 'w')\nclass Evil: pass\n")
    own = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    edit(llama_folder / "config.json", model_type="evil", auto_map=own)
    with pytest.raises(ModelError, match="trust_remote_code"):
        load(f"hf:{llama_folder}")
    assert not trace.exists()


ISOLATED = """
import os, sys, warnings
def watch(event, args):
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        raise AssertionError(f"network: {event} {args}")
sys.addaudithook(watch)
import torch
from wheeltap.sources import hf, load
transformers = hf.library(needed_for="test")
log = transformers.utils.logging
def state():
    return (
        dict(os.environ), torch.get_rng_state().tolist(), torch.get_num_threads(), torch.get_default_dtype(),
        torch.is_grad_enabled(), log.get_verbosity(), log.is_progress_bar_enabled(), list(sys.path),
        list(warnings.filters), sys.stderr,
    )
before = state()
load(sys.argv[1])
assert state() == before, [(a, b) for a, b in zip(state(), before) if a != b]
"""


@pytest.mark.release
def test_loading_is_silent_offline_and_leaves_no_trace(llama_folder: Path) -> None:
    settings = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    command = [sys.executable, "-c", ISOLATED, f"hf:{llama_folder}"]
    done = subprocess.run(command, capture_output=True, text=True, env=settings, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
