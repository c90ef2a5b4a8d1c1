"""Perplexity on a text: windows, likelihoods and paired ratios, against loops in double precision."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import WORDS, save_tokenizer, tiny_bert, tiny_llama

import wheeltap as wt
from tests.audits.by_hand import hall_interval
from wheeltap.core.errors import DataError, FileFormatError, ModelError, UsageError
from wheeltap.core.texts import TextTask
from wheeltap.sources import load_task
from wheeltap.sources.base import ExampleReader
from wheeltap.sources.texts import TextFiles


def said_by(model: Any, *, texts: int, length: int) -> list[list[int]]:
    """Token ids that the model itself drew, without the unknown word."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, len(WORDS), (texts, 1), generator=generator)
    with torch.no_grad():
        for _ in range(length - 1):
            shares = model(ids).logits[:, -1].softmax(-1)
            shares[:, 0] = 0.0
            ids = torch.cat([ids, torch.multinomial(shares, 1, generator=generator)], 1)
    return ids.tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 64 positions with its tokenizer, and a text of 1,290 of its words."""
    model, path = tiny_llama(), tmp_path_factory.mktemp("texts")
    model.save_pretrained(path / "model")
    save_tokenizer(path / "model")
    words = [word for row in said_by(model, texts=21, length=64) for word in row][:1290]
    (path / "said.txt").write_text(" ".join(WORDS[word] for word in words))
    return path


def by_loop(model: Any, windows: list[list[int]]) -> list[float]:
    """Mean negative log-likelihood of each window's tokens but the first."""
    found = list[float]()
    for window in windows:
        logits = model.double()(torch.tensor([window])).logits[0].detach().numpy()
        logs = [row - row.max() - math.log(np.exp(row - row.max()).sum()) for row in logits]
        found.append(-sum(float(logs[at][token]) for at, token in enumerate(window[1:])) / (len(window) - 1))
    return found


def test_perplexity_and_its_paired_ratio_are_those_of_a_loop(folder: Path) -> None:
    loaded = wt.load(f"hf:{folder / 'model'}", data=folder / "said.txt")
    task: Any = loaded.task
    windows = task.ids.tolist()
    assert (len(windows), len(windows[0])) == (20, 64)  # 10 words at the end make no window
    report = wt.audit(loaded.subject, task, schemes=["int4"])
    model = copy.deepcopy(loaded.subject.model)
    clean = by_loop(copy.deepcopy(model), windows)
    for name, parameter in model.named_parameters():
        if name.endswith("proj.weight"):
            step = parameter.data.abs().amax(1, keepdim=True) / 7
            parameter.data = (parameter.data / step).round() * step
    lost = np.array(by_loop(model, windows)) - clean
    score = next(row for row in report.findings if row.code == "WT001").estimates[0]
    assert (score.name, score.value) == ("perplexity", pytest.approx(math.exp(np.mean(clean)), rel=1e-6))
    row = next(row for row in report.findings if row.code == "WT100")
    known = {one.unit: one for one in row.estimates}
    low, high = hall_interval(lost)
    for one, shown in ((known["log_perplexity"], float), (known["ratio of perplexities"], math.exp)):
        expected = [shown(float(end)) for end in (lost.mean(), low, high)]
        assert [one.value, one.low, one.high] == pytest.approx(expected, abs=2e-6)
    assert known["perplexity"].value == pytest.approx(math.exp(np.mean(clean) + lost.mean()), rel=1e-6)
    assert row.margin == pytest.approx(math.log(1.02))
    assert any(one.name == "mean KL divergence per token" and one.n == 20 * 63 for one in row.estimates)


def test_chance_is_what_knowing_how_often_each_token_comes_gets() -> None:
    task = TextTask([[1, 2, 2, 3], [1, 2, 3, 2]])
    shares = np.array([4, 2]) / 6
    scores = torch.zeros(2, 3)
    entropy = -(shares * np.log(shares)).sum()
    assert task.measure.chance(scores, task.targets) == pytest.approx(entropy, rel=1e-12)
    assert task.measure.constant(scores, task.targets).tolist() == pytest.approx([entropy] * 2, rel=1e-6)


class Words:
    """A tokenizer of numbers with a start token."""

    def start(self, text: str) -> list[int]:
        return [0, *self.more(text)]

    def more(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]


def test_windows_begin_with_the_start_token_and_short_texts_have_shorter_ones(tmp_path: Path) -> None:
    path = tmp_path / "numbers.txt"
    path.write_text(" ".join(map(str, range(1, 5201))))
    task: Any = load_task(path, tokenizer=Words())
    assert task.ids.shape == (10, 512)
    assert task.ids[1, :3].tolist() == [0, 512, 513] and task.ids[-1, -1] == 5110
    path.write_text(" ".join(map(str, range(1, 100))))
    task = load_task(path, tokenizer=Words())
    assert task.ids.shape == (8, 13) and task.ids[7].tolist() == [0, *range(85, 97)]
    part = task.part(torch.tensor([7, 0]))
    assert part.ids[:, 1].tolist() == [85, 1] and part.digest != task.digest and part.measure is task.measure


def test_what_is_no_text_for_the_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "few.txt"
    path.write_text("1 2 3")
    with pytest.raises(DataError):
        load_task(path, tokenizer=Words())
    with pytest.raises(UsageError):
        TextFiles().load(str(path), ExampleReader())
    path.write_bytes(b"1 \xff")
    with pytest.raises(FileFormatError, match="byte 2"):
        load_task(path, tokenizer=Words())
    with pytest.raises(DataError):
        TextTask([[1, 2], [1, 2, 3]])
    long = TextTask([[1] * 70, [2] * 70])
    with pytest.raises(DataError):
        long.require_readable(tiny_llama())
    ahead = tiny_bert("BertForMaskedLM")
    with pytest.raises(ModelError):
        TextTask([[1, 2, 3, 4]]).require_readable(ahead)


def test_batches_and_gradients_change_nothing_of_the_likelihood() -> None:
    model = tiny_llama()
    task = TextTask(said_by(model, texts=6, length=20), tokens_per_batch=80)
    scores = task.scores(model)
    assert task.halve_batch() and task.halve_batch() and not task.halve_batch() and task.tokens_per_batch == 20
    assert torch.allclose(task.scores(model), scores, atol=1e-5)
    loss = task.loss(model, torch.tensor([1, 4]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-float(scores[[1, 4]].mean()), abs=1e-5)
    assert model.lm_head.weight.grad.abs().sum() > 0
    assert sum(len(moments.inputs) for moments in task.moments()) == 6
