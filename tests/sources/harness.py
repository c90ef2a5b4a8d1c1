"""A random language model with a byte-pair tokenizer, and local tasks of lm-eval that it is right on for the most part.

Right answers are what the model itself says to seven documents in eight, so that noise in the weights has something to
lose.
"""

import importlib.util
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from wheeltap.sources import hf

WORDS = (
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
    "local_next": (
        "loglikelihood",
        """doc_to_text: question
doc_to_target: "{{next}}"
target_delimiter: ""
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    ),
    "local_merging": ("multiple_choice", _CHOICE.replace(r"\nAnswer:", "") + 'target_delimiter: ""\n'),
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


def require() -> None:
    """Skips where lm-eval is not installed."""
    for package, extra in (("transformers", "llm"), ("lm_eval", "eval")):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'needs lm-eval: pip install "wheeltap[{extra}]"')


def model_in(folder: Path) -> Any:
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
    for at in range(DOCUMENTS):
        question = " ".join(rng.choices(WORDS, k=rng.randint(3, 12)))
        choices = rng.sample(WORDS, 3)
        choices[1] = " ".join(rng.choices(WORDS, k=3)) if at % 3 == 0 else choices[1]
        said = _said(model, tokenizer, f"{question}\nAnswer:")
        found.append({
            "question": question,
            "choices": choices,
            "uneven": choices[: 2 + at % 2],
            "label": _likeliest(model, tokenizer, f"{question}\nAnswer:", choices[: 2 + at % 2]) if at % 8 else 1,
            "said": (said.split() or ["nothing"])[0] if at % 8 else "nothing",
            "next": following if (following := _said(model, tokenizer, question, tokens=1)).startswith(" ") else " dog",
        })  # fmt: skip
    return found


@torch.no_grad()
def _said(model: Any, tokenizer: Any, text: str, *, tokens: int = 5) -> str:
    """Greedy decoding, the slow way: one token after another, the whole text again for each."""
    ids: list[int] = tokenizer(text).input_ids
    begin = len(ids)
    for _ in range(tokens):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    said = tokenizer.decode(ids[begin:], skip_special_tokens=True)
    return said if tokens == 1 else said.split("\n")[0].split("og")[0]


@torch.no_grad()
def _likeliest(model: Any, tokenizer: Any, text: str, choices: list[str]) -> int:
    """The option of the largest log-likelihood, one option after another."""
    totals = list[float]()
    for choice in choices:
        context, whole = tokenizer(text).input_ids, tokenizer(f"{text} {choice}").input_ids
        logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        totals.append(sum(float(logits[at - 1, whole[at]]) for at in range(len(context), len(whole))))
    return totals.index(max(totals))


def tasks_in(folder: Path, asked: list[dict[str, Any]]) -> Path:
    """Writes the documents and YAML files of all tasks; gives their folder."""
    folder.mkdir(exist_ok=True)
    file = folder / "documents.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in asked))
    for name, (kind, rest) in TASKS.items():
        (folder / f"{name}.yaml").write_text(_HEAD.format(name=name, file=file, kind=kind) + rest)
    return folder
