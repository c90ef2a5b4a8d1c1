"""Classifiers from Hugging Face folders: texts and images, their labels, and audits of them."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import WORDS, save_tokenizer, tiny_bert, tiny_vit

import wheeltap as wt
from wheeltap.core.errors import DataError, FileFormatError, UsageError
from wheeltap.core.task import Task
from wheeltap.sources import load

LABELS = ("bad", "fine", "good")


def saved(folder: Path, model: Any, **special: str) -> str:
    """The spec of a folder with a model; with marks of its own, beside its tokenizer."""
    model.save_pretrained(folder)
    if special:
        save_tokenizer(folder, **special)
    return f"hf:{folder}"


PAD = {"pad_token": "[unk]"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A classifier of texts, saved with its tokenizer."""
    return saved(tmp_path_factory.mktemp("folders") / "bert", tiny_bert(), **PAD)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A classifier of images."""
    return saved(tmp_path_factory.mktemp("folders") / "vit", tiny_vit())


def sentences(count: int) -> list[str]:
    drawn = random.Random(0)
    return [" ".join(drawn.choices(WORDS[1:], k=drawn.randint(2, 9))) for _ in range(count)]


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def alone(model: Any, text: str) -> torch.Tensor:
    """Scores of one text, called without any filling."""
    ids = torch.tensor([[WORDS.index(word) for word in text.split()]])
    with torch.no_grad():
        return model(input_ids=ids).logits[0]


def test_texts_are_filled_up_and_masked(bert: str, tmp_path: Path) -> None:
    texts = sentences(12)
    lines = [{"text": text, "label": LABELS[at % 3]} for at, text in enumerate(texts)]
    loaded = load(bert, data=write(tmp_path / "own.jsonl", *lines))
    task = loaded.task
    assert isinstance(task, Task) and isinstance(task.inputs, dict)
    assert sorted(task.inputs) == ["attention_mask", "input_ids"] and task.targets.tolist() == [0, 1, 2] * 4
    assert (task.inputs["attention_mask"] == 0).any()
    assert loaded.labels == LABELS and loaded.subject.name == "bert" and task.name == "own"
    slow = torch.stack([alone(loaded.subject.model, text) for text in texts])
    torch.testing.assert_close(task.scores(loaded.subject.model), slow, atol=1e-5, rtol=1e-5)


def test_pairs_of_texts(bert: str, tmp_path: Path) -> None:
    pairs = [{"text": "the dog", "text_pair": "runs", "label": 1}, {"text": "a cat", "text_pair": "is old", "label": 0}]
    task = load(bert, data=write(tmp_path / "own.jsonl", *pairs)).task
    assert isinstance(task, Task) and isinstance(task.inputs, dict)
    words = [WORDS.index(word) for word in ("a", "cat", "is", "old")]
    assert task.inputs["input_ids"][1].tolist() == words
    with pytest.raises(DataError, match="line 2"):
        load(bert, data=write(tmp_path / "own.jsonl", pairs[0], {"text": "a cat", "label": 0}))


BAD_LINES: tuple[tuple[dict[str, Any], type[Exception]], ...] = (
    ({"text": "the dog", "label": 3}, DataError),
    ({"text": "the dog", "label": "Good"}, DataError),
    ({"text": "the dog", "label": True}, FileFormatError),
    ({"context": "the dog", "choices": [" is", " are"], "answer": 0}, FileFormatError),
    ({"text": "the " * 13, "label": 0}, DataError),
    ({"text": "the dog", "label": 0, "group": 1}, DataError),
)


def test_lines_that_cannot_be_used(bert: str, tmp_path: Path) -> None:
    for line, error in BAD_LINES:
        with pytest.raises(error):
            load(bert, data=write(tmp_path / "bad.jsonl", {"text": "it is", "label": 0}, line))


def test_files_that_cannot_be_used(bert: str, vit: str, tmp_path: Path) -> None:
    one, unfilled = write(tmp_path / "own.jsonl", {"text": "it", "label": 0}), saved(tmp_path / "unfilled", tiny_bert())
    for spec, data, error in (
        (bert, write(tmp_path / "none.jsonl"), DataError), (vit, one, UsageError), (bert, None, UsageError),
        (unfilled, one, UsageError),
    ):  # fmt: skip
        with pytest.raises(error):
            load(spec, data=data)
    save_tokenizer(tmp_path / "unfilled")  # which cannot fill up
    even = write(tmp_path / "even.jsonl", {"text": "the dog", "label": 0}, {"text": "a cat", "label": 1})
    assert len(load(unfilled, data=even).task.targets) == 2
    odd = write(tmp_path / "odd.jsonl", {"text": "the dog", "label": 0}, {"text": "it", "label": 1})
    with pytest.raises(DataError, match="pad_token"):
        load(unfilled, data=odd)


def test_a_classifier_without_a_tokenizer_reads_arrays(tmp_path: Path) -> None:
    spec = saved(tmp_path / "bert", tiny_bert())
    ids = np.random.default_rng(0).integers(1, 16, size=(6, 5))
    mask = np.ones_like(ids)
    mask[:, 4] = 0
    np.savez(tmp_path / "own.npz", input_ids=ids, attention_mask=mask, targets=np.arange(6) % 3)
    loaded = load(spec, data=tmp_path / "own.npz")
    assert loaded.tokenizer is None
    model: Any = loaded.subject.model
    with torch.no_grad():
        cut = model(input_ids=torch.tensor(ids[:, :4])).logits
    torch.testing.assert_close(loaded.task.scores(model), cut, atol=1e-5, rtol=1e-5)
    np.savez(tmp_path / "plain.npz", inputs=ids[:, :4], targets=np.arange(6) % 3)
    plain = load(spec, data=tmp_path / "plain.npz").task
    torch.testing.assert_close(plain.scores(model), cut, atol=1e-5, rtol=1e-5)


def test_one_output_makes_a_regression(tmp_path: Path) -> None:
    spec = saved(tmp_path / "rated", tiny_bert(id2label={0: "LABEL_0"}, label2id={"LABEL_0": 0}), **PAD)
    lines = [{"text": "the dog", "label": 3.5}, {"text": "it", "label": 2}]
    task = load(spec, data=write(tmp_path / "own.jsonl", *lines)).task
    assert task.measure.name == "squared_error" and task.targets.tolist() == [[3.5], [2.0]]
    with pytest.raises(DataError):
        load(spec, data=write(tmp_path / "bad.jsonl", {"text": "it", "label": "LABEL_0"}))


def test_images(vit: str, tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(5, 3, 8, 8))
    for name in ("pixel_values", "inputs"):
        np.savez(tmp_path / "own.npz", **{name: images}, targets=np.arange(5) % 4)
        loaded = load(vit, data=tmp_path / "own.npz")
        model: Any = loaded.subject.model
        with torch.no_grad():
            scores = model(pixel_values=torch.tensor(images).float()).logits
        torch.testing.assert_close(loaded.task.scores(model), scores)
        assert loaded.labels == ()
    for shape, kind in (((4, 3, 8, 8), "uint8"), ((4, 8, 8), "float32"), ((4, 192), "float32")):  # not prepared
        np.savez(tmp_path / "own.npz", inputs=np.zeros(shape, kind), targets=np.arange(4))
        with pytest.raises(DataError, match="AutoImageProcessor"):
            load(vit, data=tmp_path / "own.npz")


def test_an_audit_of_a_classifier_of_texts(bert: str, tmp_path: Path) -> None:
    texts = sentences(40)
    draft = load(bert, data=write(tmp_path / "own.jsonl", *({"text": text, "label": 0} for text in texts)))
    labels = draft.task.scores(draft.subject.model).argmax(1).tolist()
    lines = ({"text": text, "label": label} for text, label in zip(texts, labels, strict=True))
    loaded = load(bert, data=write(tmp_path / "own.jsonl", *lines))
    report = wt.audit(loaded.subject, loaded.task, schemes="int8", audits="score")
    assert report["WT001"][0].estimates[0].value == 1.0
    assert {"error", "void"}.isdisjoint(finding.status for finding in report.findings) and report["WT100"]
