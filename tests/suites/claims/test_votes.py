"""The study ``votes``: a tiny language model on a few items of our own, with votes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats  # type: ignore[import-untyped]
from tiny import tiny_llama

import wheeltap as wt
from wheeltap.core.errors import UsageError
from wheeltap.report.report import Report
from wheeltap.sources import smollm2
from wheeltap.suites.claims.studies.ambiguity import OUTPUTS, RELATIVE, VoteEntropy, softmax_entropy

ITEMS = [
    ("The door is open.", "The door is not closed.", 9, 0, 0),
    ("Ann may have left.", "Ann left.", 1, 7, 1),
    ("Nobody came.", "Bob came.", 0, 1, 8),
    ("He saw her duck.", "He saw an animal.", 4, 5, 0),
    ("Some cats sleep.", "All cats sleep.", 1, 6, 2),
    ("It rained all day.", "It was wet outside.", 7, 2, 0),
    ("The old men and women sat.", "The women were old.", 5, 4, 0),
    ("She stopped smoking.", "She never smoked.", 0, 0, 9),
]
LABELS = ("entailment", "neutral", "contradiction")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("votes") / "votes.jsonl"
    rows = [
        {"id": at, "premise": premise, "hypothesis": hypothesis,
         "q0_gold": [label for label, count in zip(LABELS, counts, strict=True) for _ in range(count)]}
        for at, (premise, hypothesis, *counts) in enumerate(ITEMS)
    ]  # fmt: skip
    made.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


@pytest.fixture
def tiny_smollm2(tmp_path: Path) -> Path:
    """A random two-layer Llama that reads the words of ``ITEMS``, in place of SmolLM2 in the cache of Hugging Face."""
    tokenizers: Any = pytest.importorskip("tokenizers", reason="needs the extra llm")
    transformers: Any = pytest.importorskip("transformers", reason="needs the extra llm")
    folder = tmp_path / "hub" / f"models--{smollm2.REPOSITORY.replace('/', '--')}" / "snapshots" / ("0" * 40)
    texts = [f"{premise} Question: {hypothesis} True False or Neither?: Answer:" for premise, hypothesis, *_ in ITEMS]
    words = ["[unk]", *sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text)})]
    model = tiny_llama(vocabulary=len(words), positions=64)
    answers = [words.index(word) for word in ("True", "Neither", "False")]
    with torch.no_grad():  # answers that nearly tie: a little noise changes them
        embedded = model.get_input_embeddings().weight
        embedded[answers] = embedded[answers].mean(0) + 0.05 * embedded[answers]
    model.save_pretrained(folder)
    numbered = {word: number for number, word in enumerate(words)}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbered, unk_token="[unk]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw).save_pretrained(folder)
    (folder.parents[1] / "refs").mkdir()
    (folder.parents[1] / "refs" / "main").write_text(folder.name)
    return folder


def test_entropies_are_those_of_a_plain_loop(file: Path, tmp_path: Path, tiny_smollm2: Path) -> None:
    # The cache of Hugging Face is read from the environment when its package is imported: in a process of its own.
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub")}
    command = ["study", "votes", "--size", "full", "--data", str(file), "--store", str(tmp_path / "votes.wheeltap")]
    command += ["--json", str(tmp_path / "votes.json"), "--quiet"]
    subprocess.run([sys.executable, "-m", "wheeltap", *command], env=environment, check=True, capture_output=True)
    record = Report.read(tmp_path / "votes.json").record
    assert record.study is not None
    found = {row.metric.key: row.cohorts[0].values[0] for row in record.study.rows}
    pair = wt.load(f"hf:{tiny_smollm2}", data=str(file))
    plain = softmax_entropy(pair.task.scores(pair.subject.model).double().numpy())
    votes = np.array([counts for *_, a, b, c in ITEMS for counts in [(a, b, c)]], dtype=float)
    people = stats.entropy(votes / votes.sum(1, keepdims=True), axis=1)
    assert found[OUTPUTS] == pytest.approx(float(stats.spearmanr(plain, people).statistic), abs=1e-9)
    assert -1.0 <= found[RELATIVE] <= 1.0
    [test] = [one for one in record.findings if "above 0.1" in one.title]
    assert test.status == "inconclusive", "eight items decide nothing"


def test_no_file_is_an_error() -> None:
    with pytest.raises(UsageError):
        wt.study(VoteEntropy({}))
