"""A transformer written out head by head and edge by edge, without hooks or gradients: the oracle of circuits.

It reads the weights of GPT-2, Llama and the bare transformer into float64, one matrix for each head. What every reader
is given is a sum that the caller may change. Biases of outputs are written by nobody: they have entries of their own.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Written = Mapping[str, Tensor]
Read = Callable[[str, Written], Tensor]
"""From the name of a reader and all that was written so far to the stream that it is given."""


@dataclass
class Layer:
    """Weights ``[head, out, in]`` and biases ``[head, out]`` by channel; of outputs ``[head, width, in]``."""

    maps: dict[str, tuple[Tensor, Tensor]]
    output: tuple[Tensor, Tensor]
    norm: Callable[[Tensor], Tensor]
    mlp_norm: Callable[[Tensor], Tensor]
    mlp: Callable[[Tensor], Tensor]


class SlowDecoder:
    def __init__(self, model: Any) -> None:
        self.rotary: float | None = None
        self.causal = True
        kind = type(model).__name__
        read = {"GPT2LMHeadModel": self._gpt2, "LlamaForCausalLM": self._llama, "BareTransformer": self._bare}[kind]
        self.layers: list[Layer] = []
        read(model)

    def run(
        self, tokens: Tensor, read: Read | None = None, write: Callable[[str, Tensor], Tensor] | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """What every component wrote ``[row, place, width]``, and the logits of the last place.

        Args:
            tokens: ``[row, place]``.
            read: What a reader is given; by default the sum of all that was written.
            write: What is put in the place of what a component writes.
        """
        read, write = read or (lambda _, written: sum(written.values(), torch.zeros(()))), write or (lambda _, own: own)
        written = {"input": write("input", self.embed(tokens))}
        for at, layer in enumerate(self.layers):
            own = {}
            for head in range(len(layer.output[0])):
                query, key, value = (self._channel(layer, at, head, channel, read, written) for channel in "qkv")
                scores = query @ key.mT / math.sqrt(query.shape[-1])
                if self.causal:
                    scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
                own[f"a{at}.h{head}"] = scores.softmax(-1) @ value @ layer.output[0][head].T
            written |= {name: write(name, tensor) for name, tensor in own.items()}
            written[f"bias{at}"] = layer.output[1].expand_as(written["input"])
            written[f"m{at}"] = write(f"m{at}", layer.mlp(layer.mlp_norm(read(f"m{at}", written))))
        logits = self.head(self.norm(read("logits", written)))
        return written, logits[:, -1]

    def _channel(self, layer: Layer, at: int, head: int, channel: str, read: Read, written: Written) -> Tensor:
        weight, bias = layer.maps[channel]
        share = len(layer.output[0]) // len(weight)
        own = layer.norm(read(f"a{at}.h{head // share * share}<{channel}>", written))
        values = own @ weight[head // share].T + bias[head // share]
        if self.rotary is None or channel == "v":
            return values
        half = values.shape[-1] // 2
        angle = torch.outer(torch.arange(values.shape[1]), self.rotary ** -(torch.arange(half) / half).double())
        one, two = values[..., :half], values[..., half:]
        return torch.cat([one * angle.cos() - two * angle.sin(), two * angle.cos() + one * angle.sin()], -1)

    def _gpt2(self, model: Any) -> None:
        base, heads = model.transformer, model.config.n_head
        places = base.wpe.weight.double()
        self.embed = lambda tokens: base.wte.weight.double()[tokens] + places[: tokens.shape[1]]
        for block in base.h:
            packed, biases = block.attn.c_attn.weight.double().T.chunk(3), block.attn.c_attn.bias.double().chunk(3)
            maps = {c: (w.unflatten(0, (heads, -1)), b.view(heads, -1)) for c, w, b in zip("qkv", packed, biases,
                                                                                          strict=True)}  # fmt: skip
            out = block.attn.c_proj.weight.double().T.unflatten(1, (heads, -1)).transpose(0, 1)
            rise, fall = block.mlp.c_fc, block.mlp.c_proj

            def mlp(x: Tensor, rise: Any = rise, fall: Any = fall) -> Tensor:
                held = x @ rise.weight.double() + rise.bias.double()
                held = 0.5 * held * (1 + torch.tanh(math.sqrt(2 / math.pi) * (held + 0.044715 * held**3)))
                return held @ fall.weight.double() + fall.bias.double()

            norms = (_layer_norm(block.ln_1), _layer_norm(block.ln_2))
            self.layers.append(Layer(maps, (out, block.attn.c_proj.bias.double()), *norms, mlp))
        self.norm = _layer_norm(base.ln_f)
        self.head = lambda x: x @ base.wte.weight.double().T

    def _llama(self, model: Any) -> None:
        base, heads, groups = model.model, model.config.num_attention_heads, model.config.num_key_value_heads
        self.rotary = 10_000.0
        self.embed = lambda tokens: base.embed_tokens.weight.double()[tokens]
        for block in base.layers:
            held = block.self_attn
            sizes = {"q": (held.q_proj, heads), "k": (held.k_proj, groups), "v": (held.v_proj, groups)}
            maps = {
                c: (p.weight.double().unflatten(0, (n, -1)), p.bias.double().view(n, -1)) for c, (p, n) in sizes.items()
            }
            out = held.o_proj.weight.double().unflatten(1, (heads, -1)).transpose(0, 1)

            def mlp(x: Tensor, own: Any = block.mlp) -> Tensor:
                gate, up = (x @ part.weight.double().T + part.bias for part in (own.gate_proj, own.up_proj))
                return (nn.functional.silu(gate) * up) @ own.down_proj.weight.double().T + own.down_proj.bias

            norms = (_rms_norm(block.input_layernorm), _rms_norm(block.post_attention_layernorm))
            self.layers.append(Layer(maps, (out, held.o_proj.bias.double()), *norms, mlp))
        self.norm = _rms_norm(base.norm)
        self.head = lambda x: x @ model.lm_head.weight.double().T

    def _bare(self, model: Any) -> None:
        heads, places, self.causal = model.shape.heads, model.position.weight.double(), model.shape.causal
        self.embed = lambda tokens: model.embed.weight.double()[tokens] + places[: tokens.shape[1]]
        for block in model.blocks:
            held = block.attention
            parts = {"q": held.query, "k": held.key, "v": held.value}
            maps = {c: (p.weight.double().unflatten(0, (heads, -1)), p.bias.double().view(heads, -1)) for c, p in
                    parts.items()}  # fmt: skip
            out = held.output.weight.double().unflatten(1, (heads, -1)).transpose(0, 1)

            def mlp(x: Tensor, rise: Any = block.mlp.rise, fall: Any = block.mlp.fall) -> Tensor:
                return (x @ rise.weight.double().T + rise.bias).relu() @ fall.weight.double().T + fall.bias

            self.layers.append(Layer(maps, (out, held.output.bias.double()), lambda x: x, lambda x: x, mlp))
        self.norm = lambda x: x
        self.head = lambda x: x @ model.unembed.weight.double().T + model.unembed.bias


def _layer_norm(norm: Any) -> Callable[[Tensor], Tensor]:
    def normed(x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias

    return normed


def _rms_norm(norm: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: x / (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt() * norm.weight
