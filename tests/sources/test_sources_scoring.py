"""Choice scores against a slow scorer: one whole forward per option, log-probabilities summed one by one."""

import pytest
import torch
from tiny import tiny_llama
from torch import nn

from wheeltap.core.choices import ChoiceTask


def slow_scores(model: nn.Module, task: ChoiceTask, items: range) -> torch.Tensor:
    rows: list[list[float]] = []
    for item in items:
        row: list[float] = []
        for option in task.choices[item]:
            ids = torch.tensor([[*task.contexts[item], *option]])
            with torch.no_grad():
                logprobs = model(ids).logits[0].double().log_softmax(-1)
            start = len(task.contexts[item])
            row.append(sum(float(logprobs[start + k - 1, token]) for k, token in enumerate(option)))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float32)


def test_a_random_llama_scores_as_slowly_computed() -> None:
    generator = torch.Generator().manual_seed(1)
    sizes = torch.randint(1, 5, (40, 4), generator=generator).tolist()

    def draw(count: int) -> list[int]:
        return torch.randint(0, 16, (count,), generator=generator).tolist()

    contexts = [draw(2 * a) for a, *_ in sizes]
    choices = [[draw(n) for n in lengths] for _, *lengths in sizes]
    # Shared prefixes and repeated items are what the fast path merges.
    contexts[7], choices[7] = contexts[3], [[*choices[3][0], 5], choices[3][1], choices[3][1][:1]]
    task = ChoiceTask(contexts, choices, [0] * 40, tokens_per_batch=24)
    model = tiny_llama()
    torch.testing.assert_close(task.scores(model), slow_scores(model, task, range(40)), atol=2e-4, rtol=1e-5)


def test_a_start_token_is_kept_and_an_end_token_is_not() -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra llm")
    import tokenizers

    from wheeltap.sources.hf import HfTokenizer

    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "</s>": 1, "a": 2, "b": 3}, unk_token="a"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    raw.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    assert HfTokenizer(fast).start("a b") == [0, 2, 3]
    assert HfTokenizer(fast).more("b") == [3]
