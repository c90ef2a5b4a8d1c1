"""The screens of single weights, slowly: kept inputs, outputs and their gradients, unit by unit and tap by tap."""

import itertools

import torch
from torch import Tensor, nn

from wheeltap.core.layer import find_layers
from wheeltap.core.task import BaseTask


def slowly(model: nn.Module, task: BaseTask) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Both screens, answer by answer and call by call, from kept inputs, outputs and their gradients.

    The gradient of a convolution's weight by absolute values is summed over unfolded taps here; each use of a tied
    weight is written out.
    """
    names = {id(p): n for n, p in model.named_parameters()}
    first = {layer.name: torch.zeros(layer.units, layer.fan_in, dtype=torch.float64) for layer in find_layers(model)}
    largest: dict[tuple[str, str], Tensor] = {}
    powers: dict[tuple[str, str], list[Tensor]] = {}
    answers = 0
    owner = {layer.weight: layer for layer in find_layers(model)}
    for inputs in calls_of(model, task):
        scores, kept = followed(model, inputs)
        flat = scores.reshape(-1, scores.shape[-1])
        answers += len(flat)
        total = scores.new_zeros(())
        for row in flat:
            top = int(row.argmax())
            total = total + row[top] - torch.cat([row[:top], row[top + 1 :]]).logsumexp(0)
        deltas = torch.autograd.grad(total, [output for *_, output in kept])
        for (path, module, given, output), delta in zip(kept, deltas, strict=True):
            layer = owner[names[id(module.weight)]]
            patches, moved = expanded(module, given, delta)
            product = torch.einsum("pui,pu->ui", patches.abs().double(), moved.abs().double())
            reach = patches.abs().amax(0).double()
            if isinstance(module, nn.Linear) and layer.kind == "embedding":
                product, reach = product.T, reach.T
            first[layer.name] += product
            key = (layer.name, path)
            largest[key] = torch.maximum(largest.get(key, reach), reach)
            powers.setdefault(key, []).append(output.detach().double().flatten())
    first_order, spikes = dict[str, Tensor](), dict[str, Tensor]()
    for layer in owner.values():
        size = layer.matrix(model.get_parameter(layer.weight).detach()).abs().double()
        first_order[layer.name] = size * first[layer.name] / answers
        uses = [
            size * reach / torch.cat(powers[key]).square().mean().sqrt()
            for key, reach in largest.items()
            if key[0] == layer.name
        ]
        spikes[layer.name] = torch.stack(uses).amax(0)
    return first_order, spikes


def followed(model: nn.Module, inputs: Tensor) -> tuple[Tensor, list[tuple[str, nn.Module, Tensor, Tensor]]]:
    """The model's scores, and path, module, input and output of every layer it came by."""
    kept: list[tuple[str, nn.Module, Tensor, Tensor]] = []
    hooks: list[torch.utils.hooks.RemovableHandle] = []
    for path, module in model.named_modules():
        if isinstance(getattr(module, "weight", None), nn.Parameter) and not isinstance(module, nn.LayerNorm):

            def keep(module: nn.Module, args: tuple[Tensor], output: Tensor, path: str = path) -> Tensor:
                kept.append((path, module, args[0].detach().clone(), output))
                return output.clone()  # so that what follows in place leaves the kept one alone

            hooks.append(module.register_forward_hook(keep))
    scores = model(inputs)
    for hook in hooks:
        hook.remove()
    return scores, kept


def calls_of(model: nn.Module, task: BaseTask) -> list[Tensor]:
    """What the task calls the model with."""
    seen: list[Tensor] = []
    hook = model.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    task.scores(model)
    hook.remove()
    return seen


def expanded(module: nn.Module, given: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """What each unit reads at each place ``[place, unit, fan_in]``, and the gradient there ``[place, unit]``."""
    if isinstance(module, nn.Embedding):
        hot = nn.functional.one_hot(given.flatten(), module.num_embeddings).to(delta.dtype)
        return hot[:, None, :].expand(-1, module.embedding_dim, -1), delta.reshape(-1, module.embedding_dim)
    if not isinstance(module, nn.Conv1d | nn.Conv2d):
        units = delta.shape[-1]
        return given.reshape(-1, 1, given.shape[-1]).expand(-1, units, -1), delta.reshape(-1, units)
    units, taps = module.out_channels, module.weight[0].numel()
    columns: list[Tensor] = []
    for unit, tap in itertools.product(range(units), range(taps)):
        blank = torch.zeros_like(module.weight)
        blank.reshape(units, taps)[unit, tap] = 1.0
        # A weight of a single 1 hands through what that unit reads at that tap.
        columns.append(module._conv_forward(given, blank, None).detach()[:, unit].flatten())
    read = torch.stack(columns).reshape(units, taps, -1).permute(2, 0, 1)
    return read, delta.flatten(2).transpose(1, 2).reshape(-1, units)
