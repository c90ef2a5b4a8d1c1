"""Nets whose weights are no plain layers: disturbed, rounded and put back, and said where something is left alone."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from engine_nets import TiedLanguageModel, numbers, seeded, taught
from engine_trials import DOSES, require_slow, run, settled, trial
from folding import folded, norms
from torch import Tensor, nn
from twins import Wired

from tests.nets.uncommon import MODELS, uncommon
from wheeltap import gauge
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.records import Trial
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine import readings
from wheeltap.engine.apply import Disturbance, differentiable, verified_restoration
from wheeltap.engine.clean import settle
from wheeltap.engine.needs.gather import gather
from wheeltap.perturb import BUILTIN, create


def copied(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for module in model.modules():  # what hooks computed in a graph cannot be copied
            for name, held in list(vars(module).items()):
                if isinstance(held, Tensor) and not held.is_leaf:
                    vars(module)[name] = held.detach()
    return copy.deepcopy(model)


@pytest.mark.parametrize("kind", list(MODELS))
def test_every_perturbation_and_reading_gives_the_net_back_bit_for_bit(kind: str) -> None:
    """At the whole net, without its first layer, in two layers and in a block; where it is not defined it says so."""
    assert set(DOSES) == set(BUILTIN) - {"none"}
    case, other = settled(kind), settled(kind, 1)
    digest, record = weights_digest(case.subject.model), case.subject.record
    sites = [WHOLE, Site.without(record.layers[:1]), *(Site("layer", name) for name in record.layers[:2])]
    sites.append(Site("block", record.blocks[-1]))
    asked: list[Trial] = []
    for name, dose in DOSES.items():
        how = {"settings": {"other": other.subject.record.fingerprint}} if name == "merge" else {}
        asked += [trial(case.subject, case.task, name, dose, site, **how) for site in sites]
    outcomes = run(case.subject, case.task, asked, other.subject)
    assert weights_digest(case.subject.model) == digest
    for one, outcome in zip(asked, outcomes, strict=True):
        assert outcome.status != "failed", f"{one.perturbation} {one.site}: {outcome.because}"
        if outcome.status == "skipped":
            asks = create(one.perturbation)  # more than weights: moments, heads, what layers are given, a cache
            assert asks.needs in ("moments", "inputs", "heads") or asks.changes in ("inputs", "cache"), outcome.because
            assert any(
                words in outcome.because for words in ("no weight", "too small", "keeps no keys", "cache of a part")
            ), outcome.because
    made = trial(case.subject, case.task, "none", 0.0)
    asked = [
        msgspec.structs.replace(made, kind="read", perturbation=name, version=readings.readings.get(name).version)
        for name in readings.readings
    ]
    for one, outcome in zip(asked, run(case.subject, case.task, asked), strict=True):
        assert outcome.status in ("done", "skipped"), f"{one.perturbation}: {outcome.because}"
    assert weights_digest(case.subject.model) == digest
    for name in ("relative", "quantize", "cast", "prune-nm", "flip"):  # after an exception too
        disturbance = Disturbance(case.subject, create(name), WHOLE)
        with pytest.raises(KeyError), verified_restoration(case.subject), disturbance:
            disturbance.apply(DOSES[name], root=0, seed=0)
            assert weights_digest(case.subject.model) != digest
            raise KeyError
        assert weights_digest(case.subject.model) == digest


@pytest.mark.parametrize("kind", list(MODELS))
def test_no_copy_that_is_claimed_is_wrong(kind: str) -> None:
    """Copies of these nets are a later issue: none is recognised, or each computes the same."""
    case = settled(kind)
    family = gauge.find(case.subject.model)
    if isinstance(family, gauge.Refusal):
        assert family.because
        return
    for name in family.offers:
        twin = gauge.twin(case.subject.model, gauge.describe(family, name, seed=1))
        scores = [case.task.scores(model).numpy() for model in (case.subject.model, twin)]
        assert gauge.check(*scores).difference < 1e-3, name


# Coverage.


@pytest.mark.release
@pytest.mark.parametrize("kind", list(MODELS))
def test_outcomes_tell_the_share_that_was_touched(kind: str) -> None:
    """Also where layers are spared, where biases stay, and where a layer's inputs are not read."""
    case = settled(kind)
    record = case.subject.record
    sites = [WHOLE, Site.without(record.layers[-1:]), Site("layer", record.layers[0])]
    kinds = [(name, site) for name in ("relative", "quantize", "cast") for site in sites]
    kinds += [("function", WHOLE), ("prune-wanda", WHOLE)]
    asked = [trial(case.subject, case.task, name, DOSES[name], site) for name, site in kinds]
    for one, outcome in zip(asked, run(case.subject, case.task, asked), strict=True):
        if outcome.status != "done":
            assert one.perturbation in ("function", "prune-wanda"), outcome.because
            continue
        assert ("coverage" in outcome.values) == (one.site.kind in ("whole", "inner"))
        require_slow([one], [outcome], copied(case.subject.model), case.task, tolerance=2e-5)


def test_sparing_every_covered_layer_but_one_leaves_that_one_and_the_norms() -> None:
    case = settled("mixtral")
    record = case.subject.record
    (outcome,) = run(
        case.subject, case.task, [trial(case.subject, case.task, "cast", 16, Site.without(record.layers[:-1]))]
    )
    norms = record.parameters - record.covered
    head = case.subject.parameter("inner.lm_head.weight").numel()
    assert float(outcome.values["coverage"]) == pytest.approx(head / (head + norms))


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("pruned", "3", "its module computes another weight from it"),
        ("bags", "embed", "bags of tokens"),
        ("lstm projected", "layer.weight_hr_l0", "a recurrent weight"),
        ("mamba", "inner.backbone.layers.0.mixer.A_log", "a parameter of MambaMixer"),
    ],
)
def test_layers_whose_inputs_are_not_read_are_left_out_with_a_word(kind: str, name: str, reason: str) -> None:
    case = settled(kind)
    # What a mask leaves of a weight is multiplied with something that can be read: only noise has no way through it.
    for perturbation in ("function",) if kind == "pruned" else ("function", "quantize-aware"):
        asked = [trial(case.subject, case.task, perturbation, DOSES[perturbation])]
        (outcome,) = run(case.subject, case.task, asked)
        assert outcome.status == "done"
        assert f"{name} ({reason}" in outcome.because
        assert float(outcome.values["coverage"]) < 1.0
    known = gather("moments", case.subject, case.task)
    with Disturbance(case.subject, create("function"), WHOLE, known) as disturbance:
        assert name not in {layer.name for layer in disturbance.layers}


# Fast paths.


class Wide(nn.Module):
    """The same of plain layers, with blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 720)
        self.blocks = nn.ModuleList(nn.Linear(720, 720) for _ in range(4))
        self.head = nn.Linear(720, 11)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.embed(ids)
        for block in self.blocks:
            hidden = block(hidden).tanh()
        return self.head(hidden.mean(1))


class Adapted(Wide):
    """The same with numbered parameters of its own beside the blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.ParameterList([nn.Parameter(torch.ones(3, 720)) for _ in range(2)])

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * float(self.gates[0][0, 0])


def large(make: Callable[[], nn.Module], inputs: Tensor) -> tuple[Subject, Task]:
    model = seeded(make)
    subject, task = Subject(model), taught(model, inputs)
    settle(subject, task)
    return subject, task


def test_numbered_parameters_are_no_blocks_of_a_stack() -> None:
    subject, task = large(Adapted, torch.arange(44).reshape(11, 4) % 11)
    assert "gates.0" in subject.record.blocks
    block, own = run(
        subject, task, [trial(subject, task, "quantize", 3, Site("block", at)) for at in ("blocks.2", "gates.0")]
    )
    assert (block.status, block.path) == ("done", "prefix cached")
    assert (own.status, own.path) == ("done", "")


def test_what_is_spared_is_as_it_was() -> None:
    subject = Subject(seeded(TiedLanguageModel))
    before = {name: p.detach().clone() for name, p in subject.model.named_parameters()}
    with Disturbance(subject, create("relative"), Site.without(subject.record.ends)) as disturbance:
        disturbance.apply(0.5, root=0, seed=0)
        assert torch.equal(subject.parameter("embed.weight"), before["embed.weight"])
        assert not torch.equal(subject.parameter("blocks.0.up.weight"), before["blocks.0.up.weight"])


# Gradients.


def test_gradients_of_recurrent_nets_do_without_cudnn() -> None:
    """Which has them in training mode alone; what other nets run on is left as it is."""
    for model, enabled in ((uncommon("lstm").subject.model, False), (nn.Linear(2, 2), True)):
        with differentiable(model):
            assert torch.backends.cudnn.enabled == enabled
        assert torch.backends.cudnn.enabled


# Rounding, against a slow quantizer that knows nothing of layers.


def units_of(name: str, weight: Tensor) -> Iterator[tuple[Any, ...]]:
    """Where the numbers of each output unit are, from what torch and transformers say of each class."""
    if name == "grouped.weight":  # [in, out / groups, ...]: the second half of the channels reads the second half
        for unit in range(6):
            yield slice(2 * (unit // 3), 2 * (unit // 3) + 2), unit % 3
    elif name in ("up.weight", "line.weight"):
        for unit in range(weight.shape[1]):
            yield slice(None), unit
    elif weight.ndim == 3 and name.endswith(("gate_up_proj", "down_proj")):
        for expert in range(len(weight)):
            for unit in range(weight.shape[2 if _is_transposed(name, weight) else 1]):
                yield (expert, slice(None), unit) if _is_transposed(name, weight) else (expert, unit)
    elif name == "positions":
        for place in range(weight.shape[1]):
            yield 0, place
    else:
        for unit in range(len(weight)):
            yield (unit,)


def _is_transposed(name: str, weight: Tensor) -> bool:
    """GPT-OSS stores experts ``[expert, in, out]``: of 8 hidden and 12 inner numbers."""
    return weight.shape[1:] == ((8, 24) if name.endswith("gate_up_proj") else (12, 8))


def slowly_rounded(values: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    top = 2 ** (bits - 1) - 1
    step = np.float32(np.abs(values).max() / np.float32(top))
    if step == 0:
        return values
    rounded = [np.float32(round(float(np.float32(value / step))) * step) for value in values.ravel()]
    return np.array(rounded).reshape(values.shape)


def quantized_copy(model: nn.Module, bits: int) -> nn.Module:
    """A copy with each weight of two axes or more rounded, unit by unit; of a weight norm, what it computes."""
    rounded = copied(model)
    held, computed = dict(rounded.named_parameters()), folded(rounded)
    for name, (_, weight) in computed.items():
        held[name].data = weight
    for name, parameter in rounded.named_parameters():
        bias = name.endswith("_bias")  # of experts: [expert, unit]
        if sum(size > 1 for size in parameter.shape) < 2 or bias or "norm" in name.lower():
            continue
        array = parameter.detach().numpy().copy()
        for unit in units_of(name, parameter):
            array[unit] = slowly_rounded(array[unit], bits)
        parameter.data = torch.from_numpy(array)
    for name, (lengths, _) in computed.items():
        held[lengths].data = norms(held[name].detach(), held[lengths])
    return rounded


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("kind", list(MODELS))
def test_rounding_gives_the_scores_of_an_independent_quantizer(kind: str, bits: int) -> None:
    case = uncommon(kind)
    slow = case.task.scores(quantized_copy(case.subject.model, bits))
    clean = case.task.scores(case.subject.model)
    with Disturbance(case.subject, create("quantize"), WHOLE) as disturbance:
        disturbance.apply(bits, root=0, seed=0)
        fast = case.task.scores(case.subject.model)
    assert float((slow - clean).abs().max()) > 1e-3, "nothing was rounded"
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    assert torch.equal(case.task.scores(case.subject.model), clean)


@pytest.mark.parametrize("kind", ["spectral norm", "spectral norm by hooks"])
def test_codes_of_what_is_behind_a_norm_are_those_of_the_computed_weight(kind: str) -> None:
    """Per channel, so up to one scale: of what is divided by a norm."""
    subject = uncommon(kind).subject
    for layer in subject.layers:
        computed: Any = subject.model.get_submodule(layer.module).weight
        rows = (layer.matrix(subject.parameter(layer.weight)).detach(), computed.detach().reshape(layer.units, -1))
        # In sizes, for what a spectral norm divides by may be negative before it was trained.
        scaled = [(one / (one.abs().amax(1, keepdim=True) / 7)).abs() for one in rows]
        torch.testing.assert_close(*scaled, rtol=1e-5, atol=1e-5)  # of which the codes are the nearest whole numbers
        factor = rows[1] / rows[0]
        torch.testing.assert_close(factor, factor[0, 0].expand_as(factor), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["weight norm", "weight norm by hooks"])
def test_a_weight_norm_computes_what_was_asked_for_and_comes_back(kind: str) -> None:
    """Also where nothing is left of a row, which then has no direction."""
    case = uncommon(kind)
    subject, layer = case.subject, case.subject.layers[1]
    before = {name: held.detach().clone() for name, held in subject.model.named_parameters()}
    clean = subject.weight(layer).detach().clone()
    other, computed = folded(subject.model)[layer.weight]
    torch.testing.assert_close(clean, computed)
    assert other == layer.length
    with Disturbance(subject, create("erase"), Site("layer", layer.name)) as disturbance:
        for dose in (1.0, 0.25):
            disturbance.apply(dose, root=0, seed=0)
            assert case.task.scores(subject.model).isfinite().all()
            now: Any = subject.model.get_submodule(layer.module).weight
            torch.testing.assert_close(now, clean * (1.0 - dose))
    for name, held in subject.model.named_parameters():
        assert torch.equal(held, before[name]), name


@pytest.mark.parametrize("bits", [2, 3])
def test_a_bare_parameter_is_rounded_by_the_axis_that_its_product_shows(bits: int) -> None:
    """The layers of an MLP as bare parameters: one read ``x @ W``, one as ``nn.functional.linear`` reads it."""
    right, rows = (nn.Parameter(numbers(*shape, seed=at)) for at, shape in enumerate(((6, 9), (4, 9))))
    net = Wired(lambda net, x: nn.functional.linear((x @ net.right).relu(), net.rows), right=right, rows=rows)
    subject = Subject(net.eval())
    settle(subject, Task(numbers(8, 6), torch.arange(8) % 4))
    kinds = {layer.name: layer.kind for layer in subject.layers}
    assert kinds == {"right": "stacked", "rows": "plain"}
    right, rows = (subject.parameter(name).detach().clone().numpy() for name in ("right", "rows"))
    with Disturbance(subject, create("quantize"), WHOLE) as disturbance:
        disturbance.apply(bits, root=0, seed=0)
        columns = np.stack([slowly_rounded(right[:, unit], bits) for unit in range(9)], 1)
        assert np.allclose(subject.parameter("right").detach().numpy(), columns, atol=1e-6)
        lines = np.stack([slowly_rounded(line, bits) for line in rows])
        assert np.allclose(subject.parameter("rows").detach().numpy(), lines, atol=1e-6)
