"""Classifiers from Hugging Face folders: texts and images, their labels, and audits of them."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import WORDS, save_tokenizer, tiny_bert, tiny_vit

from wheeltap.cli.execution import load as load_all
from wheeltap.core.errors import DataError, FileFormatError, ModelError, UsageError
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
    with pytest.raises(DataError, match=r"line 2(.|\n)*without text_pair"):
        load(bert, data=write(tmp_path / "own.jsonl", pairs[0], {"text": "a cat", "label": 0}))


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ({"text": "the dog", "label": 3}, DataError, "from 0 to 2, or one of 'bad', 'fine', 'good'"),
        ({"text": "the dog", "label": -1}, DataError, "got: -1"),
        ({"text": "the dog", "label": "Good"}, DataError, "to the letter"),
        ({"text": "the dog", "label": 1.0}, DataError, "got: 1.0"),
        ({"text": "the dog", "label": True}, FileFormatError, "line 2"),
        ({"text": "the dog"}, FileFormatError, "label"),
        ({"context": "the dog", "choices": [" is", " are"], "answer": 0}, FileFormatError, "language models"),
        ({"text": "", "label": 0}, DataError, "no tokens"),
        ({"text": "the " * 13, "label": 0}, DataError, r"text 1\n  expected: at most 12 tokens(.|\n)*13 tokens"),
        ({"text": "the dog", "label": 0, "group": 1}, DataError, "Some items have a group"),
    ],
)
def test_lines_that_cannot_be_used(bert: str, tmp_path: Path, line: Any, error: type[Exception], words: str) -> None:
    data = write(tmp_path / "bad.jsonl", {"text": "it is", "label": 0}, line)
    with pytest.raises(error, match=words):
        load(bert, data=data)


def test_files_that_cannot_be_used(bert: str, vit: str, tmp_path: Path) -> None:
    one, unfilled = write(tmp_path / "own.jsonl", {"text": "it", "label": 0}), saved(tmp_path / "unfilled", tiny_bert())
    for spec, data, error, words in (
        (bert, write(tmp_path / "none.jsonl"), DataError, "data file is empty"),
        (vit, one, UsageError, "Text cannot be read by this model"),
        (bert, None, UsageError, r'no examples to test(.|\n)*"label": "bad"'),
        (vit, None, UsageError, r"no examples to test(.|\n)*pixel_values"),
        (unfilled, one, UsageError, r"tokenizer\.save_pretrained"),
    ):
        with pytest.raises(error, match=words):
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
    with pytest.raises(DataError, match="expected: a number"):
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
    large = saved(tmp_path / "vit", tiny_vit(image_size=224, patch_size=112))
    np.savez(tmp_path / "own.npz", pixel_values=np.zeros((2, 3, 224, 224), "float32"), targets=np.arange(2))
    task = load(large, data=tmp_path / "own.npz").task
    assert isinstance(task, Task) and task.batch == 27


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("inputs", "attention_mask"), "got: inputs, attention_mask"),
        (("attention_mask",), "got: attention_mask"),
        (("input_id",), "Call it input_ids"),
    ],
)
def test_arrays_whose_names_say_nothing(bert: str, tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    arrays = {name: np.ones((4, 3), dtype=int) for name in names}
    np.savez(tmp_path / "own.npz", **arrays, targets=np.arange(4) % 3)
    with pytest.raises(DataError, match=words):
        load(bert, data=tmp_path / "own.npz")


def test_other_labels_cannot_be_compared(bert: str, tmp_path: Path) -> None:
    turned = {0: "good", 1: "fine", 2: "bad"}
    model = tiny_bert(id2label=turned, label2id={name: at for at, name in turned.items()})
    other = saved(tmp_path / "other", model, **PAD)
    data = write(tmp_path / "own.jsonl", {"text": "the dog", "label": 0}, {"text": "it", "label": 1})
    with pytest.raises(UsageError, match=r"labels of bert: bad, fine, good\n  got: good, fine, bad"):
        load_all((bert, other), data)
    subjects, _ = load_all((bert, bert), data)
    assert [subject.name for subject in subjects] == ["bert", "bert-2"]


def test_lost_weights_are_told(bert: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "lost"
    tiny_bert().save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"not all there(.|\n)*classifier\.weight"):
        load(f"hf:{folder}")
