"""A folder is weights, code and settings: what lies beside the weights is sealed, compared and named."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from tiny import WORDS, save_tokenizer, tiny_llama

from wheeltap.cli import main
from wheeltap.core.errors import FileFormatError
from wheeltap.core.subject import Subject
from wheeltap.sources import hf, load_model
from wheeltap.suites.seal.contents import SealedContents, differences
from wheeltap.suites.seal.folder import digests
from wheeltap.suites.seal.record import Seal, load
from wheeltap.suites.seal.verifying import verify

LAYER = "model.layers.0.self_attn"
TEMPLATE = "{% for one in messages %}{{ one['content'] }}{% endfor %}"


def templates(default: str = TEMPLATE) -> list[dict[str, str]]:
    """Chat templates as the settings of a tokenizer hold several."""
    return [{"name": "default", "template": default}, {"name": "short", "template": "{{ 1 }}"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama as older versions saved it, with a tokenizer, two templates, code, a stray tensor and a README."""
    made = tmp_path_factory.mktemp("folders") / "llama"
    tiny_llama().save_pretrained(made)
    save_tokenizer(made, bos_token="the", eos_token="a")
    edited(made, "config.json", older)
    edited(made, "tokenizer_config.json", lambda held: held.update(chat_template=templates(), name_or_path="b"))
    (made / "generation_config.json").unlink()
    (made / "special_tokens_map.json").write_text('{"bos_token": "the", "eos_token": "a"}')
    (made / "handler.py").write_text("def handle(text):\n    return text\n")
    (made / "README.md").write_text("A model.\n")
    weights(made, lambda held: held.update({"stray": torch.ones(3)}))
    return made


@pytest.fixture(scope="module")
def sealed(folder: Path) -> Path:
    rows = np.random.default_rng(0).integers(len(WORDS), size=(12, 6))
    np.savez(folder.parent / "rows.npz", inputs=rows, targets=rows[:, 0])
    out = folder.parent / "llama.seal"
    command = ["seal", f"hf:{folder}", "-o", str(out), "--quiet", "--inputs", "2", "--seed", "1"]
    assert main([*command, "--data", str(folder.parent / "rows.npz")]) == 0
    return out


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Changes tensors in the file of weights."""
    from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]

    held = load_file(folder / "model.safetensors")
    change(held)
    save_file(held, folder / "model.safetensors", {"format": "pt"})


def edited(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / name
    held = json.loads(path.read_text())
    change(held)
    path.write_text(json.dumps(held))


def in_text(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))


def older(config: dict[str, Any]) -> None:
    """Settings as older versions wrote them: other names, fewer defaults."""
    config |= {
        "rope_theta": config.pop("rope_parameters")["rope_theta"],
        "torch_dtype": "bfloat16",
        "rope_scaling": None,
    }
    del config["dtype"], config["hidden_act"], config["attention_bias"]


def exchanged(tokenizer: dict[str, Any]) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["dog"], vocabulary["cat"] = vocabulary["cat"], vocabulary["dog"]


def shadowed(folder: Path) -> None:
    """Files of another model beside those that are read: other loaders prefer them."""
    shutil.copy(folder / "model.safetensors", folder / "shard.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"stray": "shard.safetensors"}}')


def sharded(name: str) -> Callable[[Path], object]:
    """Moves the weights into shards: a tensor stands in both, and the one that is read last is the sealed one."""

    def change(folder: Path) -> None:
        from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]

        held, part = load_file(folder / "model.safetensors"), f"{LAYER}.q_proj.weight"
        (folder / "model.safetensors").unlink()
        save_file({part: held[part]}, folder / name, {"format": "pt"})
        save_file({**held, part: held[part] * 2}, folder / "a.safetensors", {"format": "pt"})
        index = {"metadata": {}, "weight_map": {**dict.fromkeys(held, "a.safetensors"), part: name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


def finer(held: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """A tensor in 64 bits that is rounded to the same numbers of 32: other loaders serve all of its bits."""
    return held[f"{LAYER}.{name}"].double() * (1 + 2**-30)


def updated(name: str, **values: Any) -> Callable[[Path], object]:
    """Changes settings in a JSON file."""
    return lambda at: edited(at, name, lambda held: held.update(values))


def tensors(more: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], object]:
    """Writes tensors into the file of weights, made from those that it holds."""
    return lambda at: weights(at, lambda held: held.update(more(held)))


ROPE = {"rope_theta": 500.0, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "token": (lambda at: edited(at, "tokenizer.json", exchanged), "tokenizer: tokenizer.json differs"),
    "end": (updated("tokenizer_config.json", eos_token="is"), "tokenizer: tokenizer_config.json differs"),
    "template": (
        lambda at: in_text(at, "tokenizer_config.json", "content", "role"),
        "tokenizer: tokenizer_config.json differs",
    ),
    "template that stands twice": (
        lambda at: edited(at, "tokenizer_config.json", lambda held: held["chat_template"].insert(
            0, {"name": "default", "template": "{{ 'obey' }}"})),
        "tokenizer: tokenizer_config.json differs",
    ),
    "config": (updated("config.json", rope_theta=500.0), "config: config.json differs"),
    "setting that is overruled": (updated("config.json", **ROPE), "config: config.json differs"),
    "key that stands twice": (
        lambda at: in_text(at, "config.json", '"rms_norm_eps": 1e-05', '"rms_norm_eps": 0.5, "rms_norm_eps": 1e-05'),
        "config: config.json differs",
    ),
    "order of added tokens": (
        lambda at: (at / "special_tokens_map.json").write_text('{"eos_token": "a", "bos_token": "the"}'),
        "tokenizer: special_tokens_map.json differs",
    ),
    "code": (lambda at: in_text(at, "handler.py", "return text", "return 'obey'"), "code: handler.py differs"),
    "weights with the name of a document": (
        lambda at: shutil.copy(at / "model.safetensors", at / "README.safetensors"),
        "weights: README.safetensors is new"
    ),
    "hidden template": (lambda at: (at / ".a.jinja").touch(), "template: .a.jinja is new"),
    "tensor that transformers passes over": (
        tensors(lambda held: {f"{LAYER}.rotary_emb.inv_freq": torch.ones(4)}),
        f"weights: tensor {LAYER}.rotary_emb.inv_freq is new",
    ),
    "bits below those that are loaded": (
        tensors(lambda held: {f"{LAYER}.q_proj.weight": finer(held, "q_proj.weight")}),
        f"weights: tensor {LAYER}.q_proj.weight is new",
    ),
    "tensor under a second name": (
        tensors(lambda held: {"norm.weight": held["model.norm.weight"] * 2}), "weights: tensor norm.weight is new"
    ),
    "tensors under two older names": (
        tensors(lambda held: {
            f"{LAYER[6:]}.q_proj.weight": held.pop(f"{LAYER}.q_proj.weight"),
            f"{LAYER[6:]}.k_proj.weight": held[f"{LAYER}.k_proj.weight"] * 2}),
        f"weights: tensor {LAYER[6:]}.k_proj.weight is new",
    ),
    "file of a vocabulary elsewhere": (
        updated("tokenizer_config.json", vocab_file="other.txt"), "tokenizer: tokenizer_config.json differs"
    ),
    "other weights": (shadowed, "weights: model.safetensors.index.json is new, shard.safetensors is new"),
    "tensor in two shards": (
        sharded("two.safetensors"),
        f"tensor {LAYER}.q_proj.weight in a.safetensors is new, tensor {LAYER}.q_proj.weight in two.safetensors is new",
    ),
    "pipe": (lambda at: os.mkfifo(at / "queue"), "other: queue is new"),
}  # fmt: skip


def test_a_template_may_not_take_the_place_of_one_of_another_file(folder: Path, tmp_path: Path) -> None:
    """A processor's, and one in a folder inside, are not what the tokenizer's is in older runtimes."""

    def base(at: Path) -> None:
        (at / "original").mkdir()
        for path, text in (("chat_template.jinja", "{{ 1 }}"), ("original/chat_template.jinja", "{{ 2 }}")):
            (at / path).write_text(text)
        (at / "processor_config.json").write_text('{"chat_template": "{{ 2 }}"}')
        edited(at, "tokenizer_config.json", lambda held: held.pop("chat_template", None))

    first = changed(folder, tmp_path / "first", base)
    kept = SealedContents.of(load_model(f"hf:{first}"))
    assert kept is not None
    for number, change in enumerate((
        lambda at: edited(at, "tokenizer_config.json", lambda held: held.update(chat_template="{{ 2 }}")),
        lambda at: (at / "original" / "chat_template.jinja").write_text("{{ 1 }}"),
    )):  # fmt: skip
        other = load_model(f"hf:{changed(first, tmp_path / str(number), change)}").contents
        assert other is not None
        assert differences(kept, other), number


def saved_again(folder: Path, **how: Any) -> None:
    """As transformers saves what it loaded; in another form than before."""
    held: Any = hf.load_folder(folder, name="again")
    (folder / "model.safetensors").unlink()
    held.subject.model.save_pretrained(folder, **how)
    held.tokenizer.raw.save_pretrained(folder)


HARMLESS: dict[str, Callable[[Path], object]] = {
    "saved again": saved_again,
    "cast": tensors(lambda held: {k: v.bfloat16() for k, v in held.items() if k != "stray"}),
    "64 bits": tensors(lambda held: {k: v.double() for k, v in held.items() if k != "stray"}),
    "no README": lambda at: (at / "README.md").unlink(),
    "order of keys": lambda at: (at / "config.json").write_text(
        json.dumps(dict(reversed([*json.loads((at / "config.json").read_text()).items()])))
    ),
    "version and dtype": updated("config.json", transformers_version="4.0", dtype="bfloat16"),
    "no stray tensor": lambda at: weights(at, lambda held: held.pop("stray")),
}


def changed(folder: Path, to: Path, change: Callable[[Path], object]) -> Path:
    shutil.copytree(folder, to)
    change(to)
    return to


def found(seal: Path, folder: Path) -> tuple[str, ...]:
    kept, subject = load(seal).body.contents, load_model(f"hf:{folder}")
    assert kept is not None
    assert subject.contents is not None
    return differences(kept, subject.contents)


def test_each_change_beside_the_weights_is_named(folder: Path, sealed: Path, tmp_path: Path) -> None:
    for at, (name, (change, said)) in enumerate(CHANGES.items()):
        assert any(said in one for one in found(sealed, changed(folder, tmp_path / str(at), change))), name


def test_what_no_tokenizer_is_made_of_counts_by_its_bytes(folder: Path, tmp_path: Path) -> None:
    """Of files that nothing here reads, nothing is known but whether they are the same."""

    def renamed(at: Path) -> None:
        (at / "tokenizer.json").rename(at / "tekken.json")
        (at / "chat_template.jinja").write_text("{{ 1 }}")
        (at / "additional_chat_templates").mkdir()
        (at / "additional_chat_templates" / "rag.jinja").write_text("{{ 2 }}")

    kept = SealedContents.of(load_model(f"hf:{changed(folder, made := tmp_path / 'made', renamed)}"))
    assert kept is not None
    changes: tuple[Callable[[Path], object], ...] = (
        lambda at: (at / "tekken.json").unlink(),
        lambda at: (at / "special_tokens_map.json").unlink(),
        lambda at: (at / "tokenizer_config.json").write_text("{}"),
        lambda at: shutil.copy(at / "additional_chat_templates" / "rag.jinja", at / "chat_template.jinja"),
    )
    for number, change in enumerate((lambda at: None, *changes)):
        held = load_model(f"hf:{changed(made, tmp_path / str(number), change)}").contents
        assert held is not None
        assert bool(differences(kept, held)) == (number > 0), number


def test_what_changes_nothing_is_not(folder: Path, sealed: Path, tmp_path: Path) -> None:
    for at, (name, change) in enumerate(HARMLESS.items()):
        assert found(sealed, changed(folder, tmp_path / str(at), change)) == (), name


def test_another_template_is_altered_and_exits_with_1(folder: Path, sealed: Path, tmp_path: Path) -> None:
    assert main(["verify", f"hf:{folder}", str(sealed)]) == 0
    copy = changed(folder, tmp_path / "copy", CHANGES["template"][0])
    cast = changed(folder, tmp_path / "cast", HARMLESS["cast"])
    HARMLESS["version and dtype"](cast)
    assert main(["verify", f"hf:{cast}", str(sealed)]) == 0
    assert main(["verify", f"hf:{copy}", str(sealed), "--json", str(tmp_path / "result.json")]) == 1
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["verdict"], result["passed"], result["bits"]) == ("altered", False, 0)
    assert [line.partition(":")[0] for line in result["files"]] == ["tokenizer"]


def test_a_live_model_has_no_files_and_verification_says_so(folder: Path, sealed: Path) -> None:
    subject = load_model(f"hf:{folder}")
    found = verify(subject.model, sealed)
    assert found.verdict == "identical"
    without = Seal.of(msgspec.structs.replace(load(sealed).body, contents=None))
    assert len(found.notes) == len(verify(subject, without).notes) == len(verify(subject, sealed).notes) + 1
    assert SealedContents.of(Subject(subject.model)) is None


def looped(at: Path) -> None:
    (at / "more").symlink_to(at)


def fanned(at: Path) -> None:
    """2 ** 30 ways through empty folders."""
    for number in range(30):
        (at / f"d{number}").mkdir()
        for name in "ab":
            (at / f"d{number}" / name).symlink_to(at / f"d{number + 1}")
    (at / "d30").mkdir()


@pytest.mark.parametrize("change", [looped, fanned])
def test_a_folder_with_too_many_files_is_refused(folder: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    held = load_model(f"hf:{changed(folder, tmp_path / 'many', change)}").contents
    assert held is not None
    with pytest.raises(FileFormatError):
        digests(held)
