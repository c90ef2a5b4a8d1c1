"""The models of the table: perturbed, read, rounded, and put back; layers that are skipped are named."""

import copy
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from engine_trials import DOSES, require_slow, run, settled, trial
from folding import folded, norms
from torch import Tensor, nn

from tests.cases import MODEL_CASES
from tests.nets.uncommon import uncommon
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.site import WHOLE, Site
from wheeltap.engine import readings
from wheeltap.engine.apply import Disturbance, verified_restoration
from wheeltap.engine.clean import settle
from wheeltap.engine.needs.gather import gather
from wheeltap.perturb import BUILTIN, create


@pytest.mark.parametrize("name", MODEL_CASES)
def test_every_perturbation_and_reading_gives_the_model_back_bit_for_bit(name: str) -> None:
    """At the whole model, without its first layer, in one layer, and in a block; skipped where it is not defined."""
    assert set(DOSES) == set(BUILTIN) - {"none"}
    declared, case, other = MODEL_CASES[name], MODEL_CASES[name].planted(), MODEL_CASES[name].planted(seed=1)
    for one in (case, other):
        settle(one.subject, one.task)
    subject, digest, record = case.subject, weights_digest(case.subject.model), case.subject.record
    assert {layer.kind for layer in subject.layers} == declared.kinds
    assert {layer.name for layer in subject.layers if layer.tied} == declared.tied
    assert sum(subject.fixed.values()) == declared.fixed
    sites = [WHOLE, Site("layer", record.layers[-1]), Site.without(record.layers[:1]), Site("block", record.blocks[-1])]
    asked = [
        trial(subject, case.task, perturbation, dose, sites[at % len(sites)],
              settings={"other": other.subject.record.fingerprint} if perturbation == "merge" else {})
        for at, (perturbation, dose) in enumerate(DOSES.items())
    ]  # fmt: skip
    unperturbed = trial(subject, case.task, "none", 0.0)
    asked += [
        msgspec.structs.replace(
            unperturbed, kind="read", perturbation=name, version=readings.readings.get(name).version
        )
        for name in readings.readings
    ]
    for one, outcome in zip(asked, run(subject, case.task, asked, other.subject), strict=True):
        assert outcome.status != "failed", f"{one.perturbation} {one.site}: {outcome.because}"
        if outcome.status == "skipped" and one.kind == "disturb" and not declared.fixed:
            made = create(one.perturbation)  # asks for more than weights
            assert made.needs in ("moments", "inputs", "heads") or made.changes in ("inputs", "cache"), outcome.because
    assert weights_digest(subject.model) == digest
    for perturbation in ("relative", "quantize"):  # after an exception too
        with pytest.raises(KeyError), verified_restoration(subject), Disturbance(
            subject, create(perturbation), WHOLE
        ) as disturbance:  # fmt: skip
            disturbance.apply(DOSES[perturbation], root=0, seed=0)
            assert weights_digest(subject.model) != digest
            raise KeyError
        assert weights_digest(subject.model) == digest


FLOATS = [name for name, case in MODEL_CASES.items() if not case.fixed and case.dtype is torch.float32]
"""Models all of whose weights are parameters in single precision, as the slow ways below take them."""


@pytest.mark.parametrize("name", FLOATS)
def test_outcomes_are_those_of_the_slow_engine(name: str) -> None:
    """Scores, and the share of weights that was touched, also where layers are spared and biases stay."""
    case = MODEL_CASES[name].planted()
    settle(case.subject, case.task)
    layers = case.subject.record.layers
    asked = [
        trial(case.subject, case.task, perturbation, DOSES[perturbation], site)
        for perturbation, site in (
            ("relative", Site.without(layers[-1:])), ("quantize", WHOLE), ("cast", Site("layer", layers[0])),
        )
    ]  # fmt: skip
    require_slow(asked, run(case.subject, case.task, asked), case.subject.model, case.task, tolerance=2e-5)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("pruned", "3"), ("bags", "embed"), ("lstm projected", "layer.weight_hr_l0"),
        ("mamba", "inner.backbone.layers.0.mixer.A_log"),
    ],
)  # fmt: skip
def test_layers_whose_inputs_are_not_read_are_skipped_and_named(kind: str, name: str) -> None:
    case = settled(kind)
    # What a mask leaves of a weight is multiplied with something that can be read: only noise has no way through it.
    for perturbation in ("function",) if kind == "pruned" else ("function", "quantize-aware"):
        asked = [trial(case.subject, case.task, perturbation, DOSES[perturbation])]
        (outcome,) = run(case.subject, case.task, asked)
        assert outcome.status == "done"
        assert name in outcome.because
        assert float(outcome.values["coverage"]) < 1.0
    known = gather("moments", case.subject, case.task)
    with Disturbance(case.subject, create("function"), WHOLE, known) as disturbance:
        assert name not in {layer.name for layer in disturbance.layers}


# Rounding, against a slow quantizer that knows nothing of layers.


def units_of(name: str, weight: Tensor) -> Iterator[tuple[Any, ...]]:
    """Where the numbers of each output unit are, from what torch and transformers say of each class."""
    if name == "grouped.weight":  # [in, out / groups, ...]: the second half of the channels reads the second half
        for unit in range(6):
            yield slice(2 * (unit // 3), 2 * (unit // 3) + 2), unit % 3
    elif name.endswith(("up.weight", "line.weight", "c_attn.weight", "c_proj.weight", "c_fc.weight")):
        for unit in range(weight.shape[1]):
            yield slice(None), unit
    elif weight.ndim == 3 and name.endswith(("gate_up_proj", "down_proj")):
        for expert in range(len(weight)):
            for unit in range(weight.shape[1]):
                yield expert, unit
    elif name == "positions":
        for place in range(weight.shape[1]):
            yield 0, place
    else:
        for unit in range(len(weight)):
            yield (unit,)


def slowly_rounded(values: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    top = 2 ** (bits - 1) - 1
    step = np.float32(np.abs(values).max() / np.float32(top))
    if step == 0:
        return values
    rounded = [np.float32(round(float(np.float32(value / step))) * step) for value in values.ravel()]
    return np.array(rounded).reshape(values.shape)


def quantized_copy(model: nn.Module, bits: int) -> nn.Module:
    """A copy with each weight of two axes or more rounded, unit by unit; of a weight norm, what it computes."""
    rounded = copy.deepcopy(model)
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


@pytest.mark.parametrize("name", FLOATS)
def test_rounding_gives_the_scores_of_an_independent_quantizer(name: str) -> None:
    case, bits = MODEL_CASES[name].planted(), 3
    slow = case.task.scores(quantized_copy(case.subject.model, bits))
    clean = case.task.scores(case.subject.model)
    with Disturbance(case.subject, create("quantize"), WHOLE) as disturbance:
        disturbance.apply(bits, root=0, seed=0)
        fast = case.task.scores(case.subject.model)
    assert float((slow - clean).abs().max()) > 1e-3, "nothing was rounded"
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    assert torch.equal(case.task.scores(case.subject.model), clean)


def test_a_weight_norm_computes_what_was_asked_for_and_comes_back() -> None:
    """Also where nothing is left of a row, which then has no direction."""
    case = uncommon("weight norm by hooks")
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
