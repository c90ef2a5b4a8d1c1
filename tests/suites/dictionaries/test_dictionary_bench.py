"""Answers with exchanged vectors are those of single passes, whatever contexts begin with each other; twins follow."""

import copy
import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.subject import Subject
from wheeltap.sources import hf
from wheeltap.suites.dictionaries.dictionary import Dictionary, DictionaryModel, DictionarySettings
from wheeltap.suites.dictionaries.engine import SiteBench
from wheeltap.suites.dictionaries.readings import DictionaryDisturbance
from wheeltap.suites.dictionaries.specs import DISTURBANCES, GAUGES

CONTEXTS = ((1, 2, 3), (1, 2, 3, 4, 5), (6, 7), (1, 2, 3), (8, 9, 4, 2, 1), (5, 6, 7), (5, 6))
SITE, WIDTH = "model.layers.1", 16


@pytest.fixture(scope="module")
def llama() -> nn.Module:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs the extra llm")
    transformers: Any = hf.library(needed_for="tests")
    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=32, bos_token_id=1, eos_token_id=2,
        initializer_range=0.5,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.LlamaForCausalLM(config).eval()


def task(*, long: bool = False) -> ChoiceTask:
    options = [(10,), (11, 12) if long else (11,), (13,)]
    made = ChoiceTask(CONTEXTS, [options] * len(CONTEXTS), [0, 1, 0, 1, 2, 2, 1])
    return made.with_factors({"first": [context[0] for context in CONTEXTS], "even": [0, 1, 0, 1, 0, 1, 0]})


@torch.no_grad()
def alone(model: nn.Module, context: tuple[int, ...], vector: Tensor) -> Tensor:
    """Log-likelihood of each option after a context, whose last vector in the site is this one; one pass by itself."""

    def put(module: nn.Module, args: Any, output: Any) -> Any:
        values = (output[0] if isinstance(output, tuple) else output).clone()
        values[0, len(context) - 1] = vector
        return (values, *output[1:]) if isinstance(output, tuple) else values

    handle = model.get_submodule(SITE).register_forward_hook(put)
    try:
        one: Any = model(torch.tensor([context])).logits[0, -1].log_softmax(-1)
        two: Any = model(torch.tensor([[*context, 11]])).logits[0, -1].log_softmax(-1)
    finally:
        handle.remove()
    return torch.stack([one[10], one[11], one[11] + two[12], one[13]])


def test_each_example_has_its_own_vector(llama: nn.Module) -> None:
    for long in (False, True):
        bench = SiteBench.of(llama, SITE, task(long=long), name="llama")
        assert (bench.last is None) == long
        assert torch.allclose(bench.exchanged(bench.vectors), bench.clean, atol=1e-4)
        vectors = torch.randn(len(CONTEXTS), WIDTH, generator=torch.Generator().manual_seed(1))
        kept = [0, 2, 3] if long else [0, 1, 3]
        for rows in (torch.arange(len(CONTEXTS)), torch.tensor([3, 5, 0, 6, 5])):
            own = vectors[: len(rows)]  # an example that stands twice has two
            found = bench.exchanged(own, rows)
            for row, at in enumerate(rows):
                right = alone(llama, CONTEXTS[int(at)], own[row])[kept]
                assert torch.allclose(found[row], right, atol=1e-4), (long, int(at))


def test_blocks_before_a_site_run_again_where_a_later_one_reads_them(llama: nn.Module) -> None:
    assert SiteBench.of(llama, SITE, task(), name="llama").last.skipped == ("model.layers.0", SITE)
    other = copy.deepcopy(llama)
    heard = list[Tensor]()
    other.get_submodule("model.layers.0").register_forward_hook(lambda module, args, output: heard.append(output))
    other.get_submodule("model.layers.2").register_forward_hook(lambda module, args, output: output + heard[-1])
    bench = SiteBench.of(other, SITE, task(), name="llama")
    assert bench.last is not None and bench.last.skipped == ()
    vectors = torch.randn(len(CONTEXTS), WIDTH, generator=torch.Generator().manual_seed(1))
    found = bench.exchanged(vectors)
    for at, context in enumerate(CONTEXTS):
        assert torch.allclose(found[at], alone(other, context, vectors[at])[[0, 1, 3]], atol=1e-4), at


def test_of_a_rotated_stream_a_rewritten_dictionary_says_the_same(llama: nn.Module) -> None:
    random = torch.Generator().manual_seed(2)
    how = DictionarySettings(architecture="topk", width=WIDTH, features=40, k=4)
    one = Dictionary(how, {name: torch.randn(shape, generator=random) for name, shape in how.shapes.items()})
    given = Subject(DictionaryModel(llama, SITE, [one]).eval(), name="llama")
    found = DictionaryDisturbance({"steps": 1, "noise": 0.01}).read(given, task(), root=0, seed=0).values
    assert GAUGES[int(found["gauge"])] == "rotation"
    twin, back = (DISTURBANCES.index(name) for name in ("gauge twin", "gauge twin, rewritten"))
    (correlation,) = found["correlation"]
    assert correlation[back] == pytest.approx(1.0, abs=1e-3) and correlation[twin] < 0.6
