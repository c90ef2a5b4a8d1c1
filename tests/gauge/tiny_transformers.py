"""Tiny random transformers in which nothing is one or zero by chance: gains, offsets and biases are drawn too."""

import importlib.util
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from wheeltap import gauge
from wheeltap.sources import hf

VOCABULARY = 101
TOKENS = torch.randint(0, VOCABULARY, (20, 30), generator=torch.Generator().manual_seed(1))

_SHAPES: dict[str, dict[str, Any]] = {
    "Llama": {"num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True},
    "Mistral": {"num_key_value_heads": 2, "sliding_window": 8, "head_dim": 12},
    "Qwen2": {"num_key_value_heads": 1},
    "Qwen3": {"num_key_value_heads": 2, "head_dim": 12},
    "Mixtral": {
        "num_key_value_heads": 2,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "experts_implementation": "eager",
    },
}


def causal(name: str, **settings: Any) -> Any:
    """A causal language model of three layers: Llama, Mistral, Mixtral, Qwen2, Qwen3 (grouped queries) or GPT2."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs the extra llm")
    library = hf.library(needed_for="tests")
    with hf.quiet(library):
        if name == "GPT2":
            sizes: dict[str, Any] = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 40}
        else:
            sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
            sizes |= {"rms_norm_eps": 1e-5, "tie_word_embeddings": False, **_SHAPES[name]}
        config = getattr(library, f"{name}Config")(vocab_size=VOCABULARY, **{**sizes, **settings})
        kind = getattr(library, "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")
        return drawn(kind(config).eval())


def drawn(model: nn.Module) -> Any:
    """The model with every parameter drawn anew: gains of either sign about one, the rest Gaussian."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            normal = torch.randn(parameter.shape, generator=random)
            if parameter.ndim == 2:
                parameter.copy_(normal * 0.2)
            elif name.endswith("weight"):
                parameter.copy_(normal.sign() * (0.5 + normal.abs()))
            else:
                parameter.copy_(normal * 0.2)
    return model


def logits(model: Any) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return model(TOKENS).logits.flatten(0, 1).double().numpy()


def assert_same_function(model: Any, twin: Any, *, bound: float) -> None:
    likeness = gauge.check(logits(model), logits(twin))
    assert likeness.difference <= bound, likeness
    assert likeness.agreement == 1


def moved(model: nn.Module, twin: nn.Module, path: str) -> float:
    """Relative change of a weight, in the Frobenius norm."""
    old, new = model.get_parameter(path).detach().double(), twin.get_parameter(path).detach().double()
    return float((new - old).norm() / old.norm())


def own_norms(model: nn.Module, forward: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
    """Puts in the place of each RMS norm one of a subclass of its class, with this forward and the same gain.

    Gauges know norms by the name of their class and by the module that defines it: the subclass keeps both.
    """
    for path, norm in list(model.named_modules()):
        kind = type(norm)
        if kind.__name__.endswith("RMSNorm"):
            own = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
            put = own(len(norm.weight), eps=norm.variance_epsilon).train(norm.training)
            put.weight = norm.weight
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, put)


def with_part(path: str, make: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Puts what ``make`` gives, of the model, at a path in it."""
    parents, _, name = path.rpartition(".")
    return lambda model: setattr(reduce(getattr, filter(None, parents.split(".")), model), name, make(model))


def hooked(path: str) -> Callable[[Any], None]:
    """Adds a forward hook to the module at a path."""
    return lambda model: model.get_submodule(path).register_forward_hook(lambda module, args, output: output)


def in_float64(model: nn.Module) -> nn.Module:
    """The model in float64; its RMS norms, which transformers always computes in float32, too."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * (x.square().mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()

    own_norms(model, forward)
    return model.double()
