"""Nets whose weights are no plain layers: disturbed and put back, and said where something is left alone."""

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import torch
from engine_nets import TiedLanguageModel, numbers, seeded, taught
from oracle import measured_slowly
from torch import Tensor, nn
from uncommon_trials import DOSES, copied, run, settled, trial

from benchmarks.nets.uncommon import CLASSES, MODELS, uncommon
from wheeltap import gauge
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.records import Trial
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject
from wheeltap.engine import readings
from wheeltap.engine.apply import Disturbance, differentiable, unharmed
from wheeltap.engine.clean import settle
from wheeltap.engine.needs.gather import gather
from wheeltap.perturb import BUILTIN, create
from wheeltap.testing.planted import PlantedCase

# Restoration.


def test_no_perturbation_is_forgotten() -> None:
    assert set(DOSES) == set(BUILTIN) - {"none"}


@pytest.mark.parametrize("kind", list(MODELS))
def test_every_perturbation_gives_the_net_back_bit_for_bit(kind: str) -> None:
    """At the whole net, without its first layer, in two layers and in a block; where it is not defined it says so."""
    case, other = settled(kind), settled(kind, 1)
    digest, record = weights_digest(case.subject.model), case.subject.record
    sites = [WHOLE, Site.without(record.layers[:1]), *(Site("layer", name) for name in record.layers[:2])]
    sites.append(Site("block", record.blocks[-1]))
    asked: list[Trial] = []
    for name, dose in DOSES.items():
        how = {"settings": {"other": other.subject.record.fingerprint}} if name == "merge" else {}
        asked += [trial(case, name, dose, site, **how) for site in sites]
    outcomes = run(case, asked, other)
    assert weights_digest(case.subject.model) == digest
    for one, outcome in zip(asked, outcomes, strict=True):
        assert outcome.status != "failed", f"{one.perturbation} {one.site}: {outcome.because}"
        if outcome.status == "skipped":
            assert create(one.perturbation).needs in ("moments", "inputs", "heads"), outcome.because
            assert "no weight" in outcome.because or "too small" in outcome.because


class Told(Exception):
    """Raised in a disturbed block."""


@pytest.mark.parametrize("kind", list(MODELS))
def test_it_comes_back_after_an_exception_too(kind: str) -> None:
    case = settled(kind)
    digest = weights_digest(case.subject.model)
    for name in ("relative", "low-rank", "quantize", "cast", "prune-nm", "flip"):
        with pytest.raises(Told), unharmed(case.subject), Disturbance(case.subject, create(name), WHOLE) as disturbance:
            disturbance.apply(DOSES[name], root=0, seed=0)
            assert weights_digest(case.subject.model) != digest
            raise Told
        assert weights_digest(case.subject.model) == digest


@pytest.mark.parametrize("kind", list(MODELS))
def test_every_reading_is_done_or_says_why_not(kind: str) -> None:
    case = settled(kind)
    digest = weights_digest(case.subject.model)
    made = trial(case, "none", 0.0)
    asked = [
        msgspec.structs.replace(made, kind="read", perturbation=name, version=readings.readings.get(name).version)
        for name in readings.readings
    ]
    for one, outcome in zip(asked, run(case, asked), strict=True):
        assert outcome.status in ("done", "skipped"), f"{one.perturbation}: {outcome.because}"
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


@pytest.mark.parametrize("kind", list(MODELS))
def test_outcomes_tell_the_share_that_was_touched(kind: str) -> None:
    """Also where layers are spared, where biases stay, and where a layer's inputs are not read."""
    case = settled(kind)
    record = case.subject.record
    sites = [WHOLE, Site.without(record.layers[-1:]), Site("layer", record.layers[0])]
    asked = [
        trial(case, name, DOSES[name], site) for name in ("relative", "low-rank", "quantize", "cast") for site in sites
    ]
    asked += [trial(case, name, DOSES[name]) for name in ("function", "prune-wanda")]
    for one, outcome in zip(asked, run(case, asked), strict=True):
        if outcome.status != "done":
            assert one.perturbation in ("function", "prune-wanda", "low-rank"), outcome.because
            continue
        slow = measured_slowly(one, copied(case.subject.model), case.task)
        assert ("coverage" in outcome.values) == ("coverage" in slow) == (one.site.kind in ("whole", "inner"))
        for name in slow:
            scale = max(1.0, float(np.abs(slow[name]).max()))
            assert np.abs(outcome.values[name] - slow[name]).max() <= 2e-5 * scale, f"{one.perturbation} {name}"


def test_sparing_every_covered_layer_but_one_leaves_that_one_and_the_norms() -> None:
    case = settled("mixtral")
    record = case.subject.record
    (outcome,) = run(case, [trial(case, "cast", 16, Site.without(record.layers[:-1]))])
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
        (outcome,) = run(case, [trial(case, perturbation, DOSES[perturbation])])
        assert outcome.status == "done"
        assert f"{name} ({reason}" in outcome.because
        assert float(outcome.values["coverage"]) < 1.0
    known = gather("moments", case.subject, case.task)
    with Disturbance(case.subject, create("function"), WHOLE, known) as disturbance:
        assert name not in {layer.name for layer in disturbance.layers}


# Fast paths.


class Long(nn.Module):
    """More than two million weights, so that shortcuts are taken where they hold."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(6, 720, batch_first=True), nn.Linear(720, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.layer(inputs)[0][:, -1])


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


def large(make: Callable[[], nn.Module], inputs: Tensor) -> PlantedCase:
    model = seeded(make)  # type: ignore[arg-type]
    case = PlantedCase(Subject(model), taught(model, inputs))
    settle(case.subject, case.task)
    return case


def test_low_rank_noise_of_a_large_recurrent_net_takes_the_plain_path() -> None:
    case = large(Long, numbers(12, 3, 6))
    asked = [trial(case, "low-rank", 0.2), trial(case, "low-rank", 0.2, Site.without(["head"]))]
    for one, outcome in zip(asked, run(case, asked), strict=True):
        assert (outcome.status, outcome.path) == ("done", "")
        assert float(outcome.values["coverage"]) == pytest.approx(
            float(measured_slowly(one, case.subject.model, case.task)["coverage"])
        )


def test_a_fast_path_spares_what_the_plain_one_spares() -> None:
    case = large(Wide, torch.arange(44).reshape(11, 4) % 11)
    spared = Site.without(case.subject.record.ends)
    assert spared == Site("inner", "embed,head")
    asked = [trial(case, "low-rank", 0.2, site, seed=seed) for site in (WHOLE, spared) for seed in (0, 1)]
    for one, outcome in zip(asked, run(case, asked), strict=True):
        assert (outcome.status, outcome.path) == ("done", "low-rank folded, rank 1")
        for name, values in measured_slowly(one, case.subject.model, case.task).items():
            assert np.abs(values - outcome.values[name]).max() <= 1e-4 * max(1.0, float(np.abs(values).max())), name
    assert 0.99 < float(outcome.values["coverage"]) < 1.0  # biases are left alone, and count


def test_numbered_parameters_are_no_blocks_of_a_stack() -> None:
    case = large(Adapted, torch.arange(44).reshape(11, 4) % 11)
    assert "gates.0" in case.subject.record.blocks
    asked = [
        trial(case, "quantize", 3, Site("block", "blocks.2")),
        trial(case, "quantize", 3, Site("block", "gates.0")),
    ]
    block, own = run(case, asked)
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
    with differentiable(uncommon("lstm").subject.model):
        assert not torch.backends.cudnn.enabled
    with differentiable(nn.Linear(2, 2)):
        assert torch.backends.cudnn.enabled
    assert torch.backends.cudnn.enabled
