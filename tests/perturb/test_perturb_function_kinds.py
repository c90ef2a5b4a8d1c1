"""The law of function-space noise where a weight is no plain module's: its rows are found here by hand.

At dose 1 the root mean square of dW x is that of y, for recurrent weights at every step, each expert, each group of
channels, packed and hidden projections, computed weights, and of a convolution with what its batch norm makes of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from basis import directions
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from twins import Wired

from tests.nets.uncommon import uncommon
from wheeltap.core.layer import Layer
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.clean import settle
from wheeltap.engine.needs.moments import layer_moments
from wheeltap.perturb.base import BlockFactors, Factors, Weights
from wheeltap.testing.planted import numbers


@dataclass
class Map:
    """A block of a layer's rows, as somebody who knows the architecture would write it.

    Attributes:
        rows: What it reads, ``[row, in]``.
        scale: What its outputs are multiplied with afterwards, ``[unit]``.
        offset: What is then added.
    """

    layer: str
    rows: Tensor
    part: int = 0
    scale: Tensor | None = None
    offset: Tensor | None = None


def ratio(subject: Subject, layer: Layer, known: Factors | BlockFactors, of: Map) -> float:
    """rms(dW x) / rms(y) over all that can be drawn, of the map's own rows."""
    blocks = known.factors if isinstance(known, BlockFactors) else (known,)
    own = blocks[of.part]
    assert own is not None
    alone: Factors | BlockFactors = own
    if isinstance(known, BlockFactors):
        alone = BlockFactors(tuple(one if at == of.part else None for at, one in enumerate(blocks)))
    held = subject.weight(layer).detach()
    clean = Weights(held, None if layer.bias is None else subject.parameter(layer.bias).detach())
    each = layer.units // len(blocks)
    block = slice(of.part * each, (of.part + 1) * each)
    scale = torch.ones(each, dtype=held.dtype) if of.scale is None else of.scale

    def given(weights: Weights) -> Tensor:
        out = of.rows @ layer.matrix(weights.weight)[block].T
        return (out if weights.bias is None else out + weights.bias.flatten()[block]) * scale

    out = given(clean) if of.offset is None else given(clean) + of.offset
    moved = sum(float(given(one).double().square().sum()) for one in directions(layer, clean, alone, own))
    return (moved / float(out.double().square().sum())) ** 0.5


def known_of(model: nn.Module, inputs: Tensor) -> tuple[Subject, dict[str, Any]]:
    """The model as a subject, and what function-space noise knows of its layers on these inputs."""
    subject = Subject(model.eval())
    task = Task(inputs, torch.zeros(len(inputs), dtype=torch.long))
    settle(subject, task)
    return subject, layer_moments(subject, task).known


def require_law(model: nn.Module, inputs: Tensor, maps: Callable[[], Iterator[Map]], *, count: int) -> None:
    subject, known = known_of(model, inputs)
    layers = {layer.name: layer for layer in subject.layers}
    with torch.no_grad():
        found = [ratio(subject, layers[one.layer], known[one.layer], one) for one in maps()]
    assert found == pytest.approx([1.0] * count, abs=1e-6)


def last(body: nn.Module) -> nn.Module:
    return Wired(lambda net, rows: net.body(rows)[0][:, -1, :3], body=body)


SEQUENCES = numbers(60, 5, 4, seed=1) + 0.5


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return make().double()


def test_recurrent_weights_at_every_step() -> None:
    model: Any = seeded(lambda: last(nn.LSTM(4, 6, 2, batch_first=True)))
    lstm = model.body

    def maps() -> Iterator[Map]:
        below = SEQUENCES
        for level in range(2):
            ih, hh = (lstm.get_parameter(f"weight_{part}_l{level}") for part in ("ih", "hh"))
            bias = lstm.get_parameter(f"bias_ih_l{level}") + lstm.get_parameter(f"bias_hh_l{level}")
            hidden, cell = torch.zeros(60, 6).double(), torch.zeros(60, 6).double()
            before, after = [], []
            for step in below.unbind(1):
                before.append(hidden)
                gates = step @ ih.T + hidden @ hh.T + bias
                let, forget, new, out = gates.chunk(4, 1)
                cell = forget.sigmoid() * cell + let.sigmoid() * new.tanh()
                hidden = out.sigmoid() * cell.tanh()
                after.append(hidden)
            yield Map(f"body.weight_ih_l{level}", below.flatten(0, 1))
            yield Map(f"body.weight_hh_l{level}", torch.cat(before))
            below = torch.stack(after, 1)
        torch.testing.assert_close(below[:, -1, :3], model(SEQUENCES))

    require_law(model, SEQUENCES, maps, count=4)


def test_packed_projections_of_different_inputs_and_the_one_of_heads() -> None:
    def read(net: Any, rows: Tensor) -> Tensor:
        return net.attend(rows, rows.cumsum(1), rows.cumsum(1), need_weights=False)[0].mean(1)

    model: Any = seeded(lambda: Wired(read, attend=nn.MultiheadAttention(4, 2, batch_first=True)))

    def maps() -> Iterator[Map]:
        attend, sums = model.attend, SEQUENCES.cumsum(1)
        parts = zip((SEQUENCES, sums, sums), attend.in_proj_weight.chunk(3), attend.in_proj_bias.chunk(3), strict=True)
        query, key, value = (
            (rows @ weight.T + bias).unflatten(2, (2, 2)).transpose(1, 2) for rows, weight, bias in parts
        )
        heads = ((query @ key.mT / 2**0.5).softmax(-1) @ value).transpose(1, 2).flatten(2)
        torch.testing.assert_close(attend.out_proj(heads).mean(1), model(SEQUENCES))
        for part, rows in enumerate((SEQUENCES, sums, sums)):
            yield Map("attend", rows.flatten(0, 1), part)
        yield Map("attend.out_proj", heads.flatten(0, 1))

    require_law(model, SEQUENCES, maps, count=4)


IMAGES = numbers(40, 6, 5, 5, seed=1) + 0.4


def windows(images: Tensor, kernel: int) -> Tensor:
    """``[row, channel x tap]`` without padding, by loops."""
    size = images.shape[-1] - kernel + 1
    found = [images[:, :, i : i + kernel, j : j + kernel].flatten(1) for i in range(size) for j in range(size)]
    return torch.cat(found)


def test_each_group_of_a_depthwise_convolution() -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(6, 12, 3, groups=6), nn.Flatten()))
    require_law(model, IMAGES, lambda: (Map("0", windows(IMAGES[:, at : at + 1], 3), at) for at in range(6)), count=6)


def test_a_convolution_and_the_batch_norm_that_reads_it() -> None:
    """The scale is that of what the norm gives: as if it were fused into the convolution."""
    model: Any = seeded(lambda: nn.Sequential(nn.Conv2d(6, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten()))
    with torch.no_grad():
        norm = model[1]
        norm.running_mean.copy_(torch.linspace(-2, 3, 4))
        norm.running_var.copy_(torch.linspace(0.3, 4, 4))
        norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
        norm.bias.copy_(torch.linspace(4, -1, 4))
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        offset = norm.bias - scale * norm.running_mean
    require_law(model, IMAGES, lambda: iter([Map("0", windows(IMAGES, 3), 0, scale, offset)]), count=1)


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_weight_that_its_module_computes(norm: Callable[[nn.Module], nn.Module]) -> None:
    """In what the module multiplies by: of a spectral norm, in what it divides, scaled alike."""
    rows = SEQUENCES.flatten(1)
    model: Any = seeded(lambda: nn.Sequential(norm(nn.Linear(20, 6)), nn.Tanh(), nn.Linear(6, 3)))
    subject, every = known_of(model, rows)
    layer, known = subject.layers[0], every["0"]
    assert isinstance(known, Factors)
    held, bias = subject.weight(layer).detach(), model[0].bias.detach()
    with torch.no_grad():
        times = model[0].weight / held
        moved = sum(
            float((rows @ (one.weight * times).T + (0.0 if one.bias is None else one.bias)).square().sum())
            for one in directions(layer, Weights(held, bias), known, known)
        )
        assert (moved / float(model[0](rows).square().sum())) ** 0.5 == pytest.approx(1.0, abs=1e-6)


def test_each_expert_of_a_fused_mixture() -> None:
    """Mixtral's, in one tensor: the rows of each are those that the router sends to it."""
    case = uncommon("mixtral")
    model: Any = case.subject.model
    settle(case.subject, case.task)
    known = layer_moments(case.subject, case.task)
    layers = {layer.name: layer for layer in case.subject.layers}
    block = model.inner.model.layers[0]
    reads: list[Tensor] = []
    hook = block.mlp.register_forward_pre_hook(lambda module, args: reads.append(args[0].flatten(0, 1)))
    case.task.scores(model)
    hook.remove()
    rows, count = torch.cat(reads), block.mlp.experts.gate_up_proj.shape[0]
    with torch.no_grad():
        chosen = (rows @ block.mlp.gate.weight.T).softmax(1).topk(model.inner.config.num_experts_per_tok).indices
        seen = 0
        for at in range(count):
            own = rows[(chosen == at).any(1)]
            gate, up = (own @ block.mlp.experts.gate_up_proj[at].T).chunk(2, 1)
            inner = nn.functional.silu(gate) * up
            for name, given in (("gate_up_proj", own), ("down_proj", inner)):
                layer = layers[f"inner.model.layers.0.mlp.experts.{name}"]
                factors = known.known[layer.name]
                assert isinstance(factors, BlockFactors)
                if factors.factors[at] is not None:
                    seen += 1
                    assert ratio(case.subject, layer, factors, Map(layer.name, given, at)) == pytest.approx(
                        1.0, abs=1e-3
                    )
                else:
                    assert len(given) < 1.5 * given.shape[1]
    assert seen >= 4
