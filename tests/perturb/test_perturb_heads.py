"""Heads pruned as by hand: the least of each layer go, as a pass without them computes, and alike on every twin."""

from typing import Any, cast

import pytest
import torch
from one_layer import disturbed
from tiny_transformers import TOKENS, VOCABULARY, causal, in_float64
from torch import Tensor
from twins import Wired

from wheeltap import gauge
from wheeltap.core import measure
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.layer import LayerKind
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.apply import Disturbance, LayerKnowledge
from wheeltap.engine.fast.heads import HeadAblation, HeadAddress, found_attention
from wheeltap.engine.needs.gather import gather
from wheeltap.perturb import create
from wheeltap.perturb.base import HeadMoments
from wheeltap.testing.planted import numbers

FAMILIES = ("GPT2", "Llama", "Qwen2")


def last(lm: Any) -> Subject:
    """A language model with one row of scores per example: those at the last place."""
    model = Wired(lambda net, tokens: net.lm(tokens, logits_to_keep=1).logits[:, -1], lm=lm)
    return Subject(model.eval(), name="last")


def task(rows: int = 6) -> Task:
    return Task(TOKENS[:rows], TOKENS[:rows, 3] % VOCABULARY, batch=4, measure=measure.nll)


def sentences() -> ChoiceTask:
    """Items for a language model itself, which gives scores at every place."""
    rows = cast("list[list[int]]", TOKENS.tolist())
    options = [[[row[20]], [row[21]], [row[22]]] for row in rows]
    return ChoiceTask([row[:12] for row in rows], options, [0] * len(rows), more=[row[12:28] for row in rows])


def known(subject: Subject, of: BaseTask) -> LayerKnowledge:
    found = gather("heads", subject, of)
    assert isinstance(found, LayerKnowledge)
    return found


def moments(subject: Subject, of: BaseTask) -> dict[str, HeadMoments]:
    """By output projection."""
    held = known(subject, of).known
    return {name: one for name, one in held.items() if isinstance(one, HeadMoments)}


def by_head(subject: Subject, path: str) -> Tensor:
    """Weights of an output projection, ``[head, output, width]``."""
    [found] = [each for each in found_attention(subject) if each.output.path == path]
    rows = found.output.read(subject.model)[:, : found.heads * found.width]
    return rows.reshape(len(rows), found.heads, found.width).transpose(0, 1)


def scores(subject: Subject, of: BaseTask, dose: float, site: Site = WHOLE) -> Tensor:
    with Disturbance(subject, create("prune-heads"), site, known(subject, of)) as disturbance:
        disturbance.apply(dose, root=0, seed=0)
        return of.scores(subject.model)


def written(subject: Subject, of: BaseTask) -> dict[str, Tensor]:
    """Mean square of what each head writes, summed over outputs, row by row of a pass: by output projection."""
    given: dict[str, list[Tensor]] = {each.output.path: [] for each in found_attention(subject)}
    hooks = [
        subject.model.get_submodule(path).register_forward_pre_hook(lambda _, args, held=held: held.append(args[0]))
        for path, held in given.items()
    ]
    with torch.no_grad():
        for batch in of.moments():
            subject.model(batch.inputs)
    for hook in hooks:
        hook.remove()
    found: dict[str, Tensor] = {}
    for path, held in given.items():
        weight = by_head(subject, path)
        heads, _, width = weight.shape
        rows = torch.cat([each.reshape(-1, heads, width) for each in held]).double()
        added = [(rows[:, head] @ weight[head].T).square().sum(1).mean() for head in range(heads)]
        found[path] = torch.stack(added)
    return found


# One layer, by hand.


def pruned(weight: Tensor, values: Tensor, dose: float, *, kind: LayerKind = "linear") -> Tensor:
    """The weight without the least heads, whose values were ``[place, head, width]``."""
    second = torch.einsum("phi,phj->hij", values, values) / len(values)
    return disturbed("prune-heads", weight, dose, kind=kind, known=HeadMoments(second))


@pytest.mark.parametrize("dose", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("kind", ["linear", "transposed"])
def test_heads_that_write_least_are_read_no_more(kind: LayerKind, dose: float) -> None:
    """Head by head: what it writes at each place, squared and averaged."""
    matrix, values = numbers(7, 15, seed=0), numbers(40, 5, 3, seed=1)
    values[:, 2] += 3.0  # correlated within the head
    expected = matrix.clone()

    def power(head: int) -> float:
        return float((values[:, head] @ matrix[:, 3 * head : 3 * head + 3].T).square().sum(1).mean())

    for head in sorted(range(5), key=power)[: round(dose * 5)]:
        expected[:, 3 * head : 3 * head + 3] = 0.0
    stored = matrix.T.contiguous() if kind == "transposed" else matrix
    found = pruned(stored, values, dose, kind=kind)
    assert torch.equal(found.T if kind == "transposed" else found, expected)


# Tiny transformers.


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_head_adds_is_the_power_of_what_it_writes_and_the_least_one_is_removed(family: str) -> None:
    """In each layer, as ablated by the slow path, which sets the head's values to zero."""
    subject, of = last(causal(family)), task()
    slow, held = written(subject, of), moments(subject, of)
    assert list(held) == list(slow) and len(held) == 3
    for path, one in held.items():
        weight = by_head(subject, path)
        torch.testing.assert_close(torch.einsum("hoi,hij,hoj->h", weight, one.second, weight), slow[path])
    bench = HeadAblation(subject, of)
    for found in found_attention(subject):
        without = bench.plainly(HeadAddress(found.path, int(slow[found.output.path].argmin())))
        fast, size = scores(subject, of, 0.25, Site("layer", found.output.path)), float(without.abs().max())
        torch.testing.assert_close(fast, without, atol=1e-5 * size, rtol=0.0)
        assert float((without - bench.clean).abs().max()) > 1e-3 * size


@pytest.mark.parametrize("family", FAMILIES)
def test_only_output_weights_change_and_they_come_back(family: str) -> None:
    subject, of = last(causal(family)), task()
    projections = {f"{each.output.path}.weight" for each in found_attention(subject)}
    held, digest = known(subject, of), weights_digest(subject.model)
    assert held.forwards == 1.0
    clean = {name: parameter.detach().clone() for name, parameter in subject.model.named_parameters()}
    with Disturbance(subject, create("prune-heads"), WHOLE, held) as disturbance:
        for dose in (0.0, 0.1, 0.5, 1.0):
            disturbance.apply(dose, root=0, seed=0)
            now = dict(subject.model.named_parameters())
            changed = {name for name, parameter in now.items() if not torch.equal(parameter, clean[name])}
            assert changed == (projections if dose > 0.1 else set())  # a tenth of four heads is none
            for name in changed:
                kept = now[name] != 0
                assert torch.equal(now[name][kept], clean[name][kept])
                assert float(kept.double().mean()) == pytest.approx(1.0 - dose, abs=0.01)
            assert (disturbance.relative_norm > 0) == bool(changed)
    assert weights_digest(subject.model) == digest


def probed(model: Any) -> Tensor:
    """What a model is run with where only its outputs can tell which gauges hold."""
    with torch.no_grad():
        return model(TOKENS[:8, :12]).logits.flatten(0, 1)


@pytest.mark.parametrize("family", ("GPT2", "Llama"))
def test_twins_lose_the_same_heads(family: str) -> None:
    """Every gauge there is for the family, in double precision, layer after layer and at every dose."""
    model, of = in_float64(causal(family)), sentences()
    subject, found = Subject(model, name=family), gauge.find(model, probed)
    assert isinstance(found, gauge.Family)
    assert {"heads", "value"} <= set(found.offers)
    doses = (0.25, 0.5)
    original = [scores(subject, of, dose) for dose in doses]
    clean = of.scores(model)
    assert all(float((one - clean).abs().max()) > 0.1 for one in original)
    for name in set(found.offers) - {"regroup"}:
        twin = Subject(gauge.twin(model, gauge.describe(found, name, seed=7), probed), name=name)
        assert weights_digest(twin.model) != weights_digest(model)
        for dose, expected in zip(doses, original, strict=True):
            torch.testing.assert_close(scores(twin, of, dose), expected, atol=1e-5, rtol=0.0)
        ours, theirs = written(subject, of), written(twin, of)
        for path, power in ours.items():
            torch.testing.assert_close(theirs[path].sort().values, power.sort().values, rtol=1e-8, atol=0.0)


# Models whose heads are not known.
