"""Tasks of lm-eval: grades and answers are those of its own model class, also of a disturbed model; what is refused.

The model is random, with a byte-pair tokenizer. Right answers are what the model itself says to seven documents in
eight, so that noise in the weights has something to lose.
"""

import copy
import importlib.util
import json
import pickle
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wheeltap.cli import main
from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.task import BaseTask
from wheeltap.sources import hf, lm_eval_tasks
from wheeltap.sources.hf import HfTokenizer
from wheeltap.sources.lm_eval import LmEvalSpec

pytestmark = pytest.mark.filterwarnings("ignore")  # what lm-eval and its libraries warn of is theirs

WORDS: tuple[str, ...] = (
    "the", "old", "dog", "cat", "runs", "near", "a", "tall", "tree", "and", "sleeps", "under", "it", "while", "birds",
    "sing", "of", "rain", "in", "quiet", "gardens",
)  # fmt: skip
DOCUMENTS = 48

_HEAD = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
fewshot_split: test
output_type: {kind}
metadata: {{version: 1.0}}
"""
_CHOICE = r"""doc_to_text: "{{question}}\nAnswer:"
doc_to_choice: choices
doc_to_target: label
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
_GENERATED = r"""doc_to_text: "{{question}}\nAnswer:"
doc_to_target: said
generation_kwargs: {until: ["\n", "og"], do_sample: false, max_gen_toks: 5}
filter_list:
  - name: stripped
    filter:
      - {function: regex, regex_pattern: "(\\S+)"}
      - {function: take_first}
  - name: whole
    filter: [{function: take_first}]
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
TASKS: Mapping[str, tuple[str, str]] = {
    "local_choice": ("multiple_choice", _CHOICE),
    "local_uneven": ("multiple_choice", _CHOICE.replace("doc_to_choice: choices", "doc_to_choice: uneven")),
    "local_generated": ("generate_until", _GENERATED),
    "local_sampled": (
        "generate_until",
        _GENERATED.replace("do_sample: false", "do_sample: true, temperature: 1.0") + "repeats: 4\n",
    ),
    "local_rolling": (
        "loglikelihood_rolling",
        'doc_to_text: ""\ndoc_to_target: question\n'
        "metric_list: [{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}]\n",
    ),
}
"""Name to kind and the rest of its YAML file."""


def model_in(folder: Path) -> tuple[Any, Any]:
    """Saves the model and its tokenizer in a folder, and gives both."""
    import tokenizers
    import transformers

    raw = tokenizers.Tokenizer(tokenizers.models.BPE())
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    rng = random.Random(0)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<eos>"], initial_alphabet=raw.pre_tokenizer.alphabet(), show_progress=False
    )
    raw.train_from_iterator((" ".join(rng.choices(WORDS, k=12)) for _ in range(200)), trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>")
    config = transformers.LlamaConfig(
        vocab_size=raw.get_vocab_size(), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=96, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with hf.quiet(transformers):
            model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6.0) if parameter.ndim == 2 else None
        # Words alone: the model was never trained, and its bytes would be no text.
        words = {token for word in WORDS for token in tokenizer(f" {word}").input_ids}
        model.lm_head.weight[[token for token in range(config.vocab_size) if token not in words]] *= 0.2
    with hf.quiet(transformers):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return model, tokenizer


def documents(model: Any, tokenizer: Any) -> list[dict[str, Any]]:
    """What is asked; the model is right on seven in eight."""
    rng, found = random.Random(1), list[dict[str, Any]]()
    for number in range(DOCUMENTS):
        question = " ".join(rng.choices(WORDS, k=rng.randint(3, 12)))
        choices = rng.sample(WORDS, 3)
        text, uneven = f"{question}\nAnswer:", choices[: 2 + number % 2]
        right = number % 8 > 0
        found.append({
            "question": question, "choices": choices, "uneven": uneven,
            "label": _likeliest(model, tokenizer, text, uneven) if right else 1,
            "said": (_said(model, tokenizer, text).split() or ["nothing"])[0] if right else "nothing",
        })  # fmt: skip
    return found


@torch.no_grad()
def _said(model: Any, tokenizer: Any, text: str) -> str:
    """Greedy decoding, the slow way: one token after another, the whole text again for each."""
    ids: list[int] = tokenizer(text).input_ids
    begin = len(ids)
    for _ in range(5):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return tokenizer.decode(ids[begin:], skip_special_tokens=True).split("\n")[0].split("og")[0]


@torch.no_grad()
def _likeliest(model: Any, tokenizer: Any, text: str, choices: list[str]) -> int:
    """The option of the largest log-likelihood, one option after another."""
    totals = list[float]()
    for choice in choices:
        context, whole = tokenizer(text).input_ids, tokenizer(f"{text} {choice}").input_ids
        logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        totals.append(sum(float(logits[at - 1, whole[at]]) for at in range(len(context), len(whole))))
    return totals.index(max(totals))


@dataclass
class Local:
    """The model, its tokenizer, and the folder of tasks."""

    model: Any
    tokenizer: Any
    folder: Path
    tasks: Path

    def task(self, name: str) -> BaseTask:
        """A task of ours, as the command line asks for it."""
        asked = LmEvalSpec.parse(f"lm_eval:{name}", include=self.tasks)
        return lm_eval_tasks.load_task(asked, self.model, HfTokenizer(self.tokenizer))

    @cached_property
    def noisy(self) -> Any:
        """A copy with noise on its weights, written by hand: it changes some answers and leaves others."""
        noisy = copy.deepcopy(self.model)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for weight in noisy.parameters():
                weight.add_(0.15 * weight.std(unbiased=False) * torch.randn(weight.shape, generator=generator))
        return noisy


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    for package, extra in (("transformers", "llm"), ("lm_eval", "eval")):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'needs lm-eval: pip install "wheeltap[{extra}]"')
    folder = tmp_path_factory.mktemp("harness")
    model, tokenizer = model_in(folder / "model")
    tasks, file = folder / "tasks", folder / "tasks" / "documents.jsonl"
    tasks.mkdir()
    file.write_text("".join(json.dumps(one) + "\n" for one in documents(model, tokenizer)))
    for name, (kind, rest) in TASKS.items():
        (tasks / f"{name}.yaml").write_text(_HEAD.format(name=name, file=file, kind=kind) + rest)
    return Local(model, tokenizer, folder / "model", tasks)


SAME = ("local_choice,metric=acc_norm", "local_choice,fewshot=2,limit=20", "local_uneven",
        "local_generated,filter=whole")  # fmt: skip


def oracle(local: Local, model: Any, name: str) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """What lm-eval's own model class gives for a model on a task: its samples, and its results."""
    pytest.importorskip("accelerate", reason="lm-eval's own model class needs accelerate")
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    asked = LmEvalSpec.parse(f"lm_eval:{name}")
    found = lm_eval.simple_evaluate(
        HFLM(pretrained=model, tokenizer=local.tokenizer, device="cpu", batch_size=4), tasks=[asked.name],
        task_manager=TaskManager(include_path=str(local.tasks), include_defaults=False), bootstrap_iters=0,
        num_fewshot=asked.fewshot, limit=asked.limit or None,
    )  # fmt: skip
    samples: list[dict[str, Any]] = found["samples"][asked.name]
    wanted = asked.filter or samples[0]["filter"]
    return [sample for sample in samples if sample["filter"] == wanted], found["results"][asked.name]


@pytest.mark.parametrize("name", SAME)
def test_grades_are_lm_evals_own_also_of_a_disturbed_model(local: Local, name: str) -> None:
    """Document by document, and their mean to 1e-6."""
    task = local.task(name)
    metric = LmEvalSpec.parse(f"lm_eval:{name}").metric or ("exact_match" if "generated" in name else "acc")
    for model in (local.model, local.noisy):
        scores = task.scores(model)
        ours = task.measure(scores, task.targets, scores)
        theirs, results = oracle(local, model, name)
        assert [float(one) for one in ours] == [float(sample[metric]) for sample in theirs]
        assert abs(float(ours.mean()) - float(results[f"{metric},{theirs[0]['filter']}"])) <= 1e-6
        assert [sample["doc_id"] for sample in theirs] == list(range(len(ours)))


def test_a_part_and_another_process_give_the_same(local: Local) -> None:
    for name in ("local_uneven", "local_generated"):
        task, some = local.task(name), torch.tensor([5, 2, 40])
        whole, sent = task.scores(local.model), pickle.loads(pickle.dumps(task))
        assert torch.equal(task.part(some).scores(local.model), whole[some])
        assert torch.equal(sent.scores(local.model), whole) and sent.digest == task.digest
        assert task.part(some).digest != task.digest
        while task.halve_batch():
            assert torch.equal(task.scores(local.model), whole)


def test_what_is_refused_is_named(local: Local) -> None:
    for name, error, named in (
        ("local_rolling", UsageError, "loglikelihood_rolling"), ("local_sampled", UsageError, "do_sample"),
        ("local_choice,metric=f1", UnknownName, "f1"),
    ):  # fmt: skip
        with pytest.raises(error, match=named):
            local.task(name)


@pytest.mark.parametrize("name", ["local_choice", "local_generated"])
def test_the_report_has_the_score_that_the_samples_have(local: Local, name: str, tmp_path: Path) -> None:
    flags = {"task": f"lm_eval:{name},limit=24", "include-path": local.tasks, "for": "noise5", "draws": 4,
             "fail-on": "never", "store": tmp_path / "a.wheeltap", "json": tmp_path / "report.json",
             "samples": tmp_path / "samples.jsonl"}  # fmt: skip
    named = [text for flag, value in flags.items() for text in (f"--{flag}", str(value))]
    assert main(["audit", f"hf:{local.folder}", "--quiet", *named]) == 0
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()[:24]]
    right = np.mean([row["acc" if name == "local_choice" else "exact_match"] for row in rows])
    findings = json.loads((tmp_path / "report.json").read_text())["findings"]
    score = next(finding for finding in findings if finding["code"] == "WT001")["estimates"][0]
    assert score["value"] == pytest.approx(right, abs=1e-6) and 0.7 < right < 1.0
