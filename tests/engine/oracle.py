"""The slow engine: one deep copy of the model per trial, new parameters put in, one pass, measures by hand.

Shares with the fast engine only what defines a trial: the perturbation's ``replace``, its draws, and the task.
"""

import copy

import numpy as np
import torch
from folding import folded, norms
from numpy.typing import NDArray
from torch import nn

from wheeltap.core.layer import find_layers
from wheeltap.core.records import Trial
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.apply import LayerKnowledge
from wheeltap.engine.clean import settle
from wheeltap.engine.needs.gather import gather
from wheeltap.perturb import create
from wheeltap.perturb.base import Draw, Weights

Values = dict[str, NDArray[np.float64]]


def measured_slowly(trial: Trial, model: nn.Module, task: BaseTask) -> Values:
    """Every recorded measure of one trial, how far the weights moved, and which share of them was replaced."""
    clean = _scores(copy.deepcopy(model), task)
    disturbed, replaced = _disturbed(trial, model, task)
    found = _measures(_scores(disturbed, task), task.targets.numpy(), clean)
    found = {measure.name: found[measure.name] for measure in task.measures}
    if trial.site.kind in ("whole", "inner"):
        spared = [layer for layer in find_layers(model) if layer.name in trial.site.name.split(",") and layer.name]
        kept = {name for layer in spared for name in (layer.weight, layer.bias, layer.length)}
        left = sum(p.numel() for name, p in model.named_parameters() if name not in kept)
        lengths = {layer.length for layer in find_layers(model) if layer.weight in replaced and layer.length}
        touched = replaced | lengths
        found["coverage"] = np.array(sum(model.get_parameter(name).numel() for name in touched) / left)
        apart = _full_precision(model)
        weights = sum(p.numel() for name, p in model.named_parameters() if name not in kept | apart)
        reached = sum(model.get_parameter(name).numel() for name in touched - apart)
        if weights:
            found["reach"] = np.array(reached / weights)
    return {**found, "relative_norm": _relative_norm(model, disturbed)}


def _full_precision(model: nn.Module) -> set[str]:
    """Biases of layers, and gains and shifts of norms."""
    named = {
        f"{path}.{name}".strip(".")
        for path, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if "norm" in type(module).__name__.lower() and not any(module.children())
    }
    layers = find_layers(model)
    return (named | {layer.bias for layer in layers if layer.bias}) - {layer.weight for layer in layers}


def _relative_norm(model: nn.Module, disturbed: nn.Module) -> NDArray[np.float64]:
    before, after = (_numbers(one) for one in (model, disturbed))
    return np.sqrt(np.square(after - before).sum() / np.square(before).sum())


def _numbers(model: nn.Module) -> NDArray[np.float64]:
    """All weights in a row; of a weight norm what it computes."""
    computed = folded(model)
    lengths = {other for other, _ in computed.values()}
    held = {name: p for name, p in model.named_parameters() if name not in lengths}
    values = [computed[name][1] if name in computed else p for name, p in held.items()]
    return np.concatenate([value.detach().double().flatten().numpy() for value in values])


def _disturbed(trial: Trial, model: nn.Module, task: BaseTask) -> tuple[nn.Module, set[str]]:
    perturbation = create(trial.perturbation, trial.settings)
    subject = Subject(copy.deepcopy(model))
    settle(subject, task)
    known = gather(perturbation.needs, subject, task) if perturbation.needs else LayerKnowledge({})
    facts = known.at(trial.dose, root=trial.root, seed=trial.seed)
    disturbed, replaced = copy.deepcopy(model), set[str]()
    for layer in subject.layers:
        inside = {
            "whole": True,
            "inner": layer.name not in trial.site.name.split(","),
            "layer": layer.name == trial.site.name,
            "block": (layer.name + ".").startswith(trial.site.name + "."),
        }[trial.site.kind]
        if not inside or not perturbation.accepts(layer):
            continue
        if perturbation.needs and layer.name not in facts:
            continue
        norm = folded(model).get(layer.weight)
        old = Weights(
            model.get_parameter(layer.weight).detach().clone() if norm is None else norm[1],
            None if layer.bias is None else model.get_parameter(layer.bias).detach().clone(),
        )
        new = perturbation.replace(layer, old, trial.dose, Draw(trial.root, trial.seed, facts.get(layer.name)))
        _put(disturbed, layer.weight, new.weight)
        if norm is not None:
            _put(disturbed, norm[0], norms(new.weight, model.get_parameter(norm[0])))
        replaced.add(layer.weight)
        if layer.bias is not None and new.bias is not None:
            _put(disturbed, layer.bias, new.bias)
            if new.bias is not old.bias:
                replaced.add(layer.bias)
    return disturbed, replaced


def _put(model: nn.Module, path: str, value: torch.Tensor) -> None:
    """A new parameter wherever the old one is used (more than once, if tied)."""
    old, new = model.get_parameter(path), nn.Parameter(value, requires_grad=False)
    for module in model.modules():
        for name, held in list(module._parameters.items()):
            if held is old:
                module._parameters[name] = new


def _scores(model: nn.Module, task: BaseTask) -> NDArray[np.float64]:
    with torch.no_grad():
        # Scores are defined in single precision, whatever the model's.
        return task.forward(model).float().double().numpy()


def _measures(scores: NDArray[np.float64], targets: NDArray[np.int64], clean: NDArray[np.float64]) -> Values:
    rows = np.arange(len(scores))
    logs, before = _log_softmax(scores), _log_softmax(clean)
    rest = scores.copy()
    rest[rows, targets] = -np.inf
    answers = scores.argmax(1)
    return {
        "accuracy": (answers == targets).astype(np.float64),
        "nll": -logs[rows, targets],
        "margin": scores[rows, targets] - rest.max(1),
        "agreement": (answers == clean.argmax(1)).astype(np.float64),
        "kl": np.maximum((np.exp(before) * (before - logs)).sum(1), 0.0),
    }


def _log_softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = scores - scores.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
