"""Norms with the scale that they have on a clean context: what reads the stream through them reads linearly.

A norm gives ``gain * (x - mean) * scale + offset`` (or without the mean), with a scale for each place. Which it is,
and with what gain, its own outputs tell; its class need not be known.
"""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from wheeltap.core.errors import ModelError
from wheeltap.core.subject import Subject
from wheeltap.engine.fast.folded import computing

_TOLERANCE: Final = 1e-4
"""By how much a norm with its own scale put back may miss itself, as a share of its largest output."""

_EXTENT: Final = 1e3
"""Size of the row by which a gain is found: so large that what norms add to a mean square does not count."""


@final
@dataclass(frozen=True, eq=False)
class Scaled:
    """A norm with fixed scales.

    Attributes:
        gain: ``[feature]``, up to a factor that ``scale`` makes good.
        offset: ``[feature]``.
        centred: Whether it takes the mean away.
        scale: Of each place, ``[row, place, 1]``.
    """

    gain: Tensor
    offset: Tensor
    centred: bool
    scale: Tensor

    def __call__(self, stream: Tensor, *_: Any, **__: Any) -> Tensor:
        """Of ``[copy x row, place, width]``; of fewer places, the last ones."""
        scale = self.scale[:, -stream.shape[1] :]
        copies = len(stream) // len(scale)
        return _centred(stream, self.centred) * self.gain * scale.repeat(copies, 1, 1) + self.offset


@final
class Frozen:
    """The norms among some modules, with their scales on clean contexts.

    Args:
        subject: Whose.
        paths: Modules that are given the residual stream; those that are no norms are left as they are.
        clean: Contexts ``[row, place]``.

    Raises:
        ModelError: If none is a norm of a known form while some change with the scale of what they are given.
    """

    def __init__(self, subject: Subject, paths: Sequence[str], clean: Tensor) -> None:
        self.subject = subject
        self.scaled: dict[str, Scaled] = {}

        def take(path: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if len(args) == 1 and isinstance(output, Tensor) and path not in self.scaled:
                found = _scaled(module, args[0], output)
                if found is not None:
                    self.scaled[path] = found

        with ExitStack() as undo, torch.no_grad():
            for path in dict.fromkeys(paths):
                undo.callback(subject.model.get_submodule(path).register_forward_hook(partial(take, path)).remove)
            subject.model(clean)
        if not self.scaled:
            raise ModelError(
                "There is no norm to freeze.",
                where=subject.name,
                expected="norms that give gain * (x - mean) / scale + offset of the residual stream",
                got="none",
                do="Leave frozen out: without norms, components read the stream as it is.",
            )

    @contextmanager
    def applied(self) -> Generator[None]:
        """While the block runs, the norms have these scales."""
        with ExitStack() as undo:
            for path, scaled in self.scaled.items():
                undo.enter_context(computing(self.subject.model.get_submodule(path), scaled))
            yield


def _centred(stream: Tensor, centred: bool) -> Tensor:
    return stream - stream.mean(-1, keepdim=True) if centred else stream


def _scaled(module: nn.Module, stream: Tensor, output: Tensor) -> Scaled | None:
    """The norm that gives ``output`` for ``stream``; ``None`` if it is none."""
    if stream.shape != output.shape:
        return None
    row = _EXTENT * (torch.arange(stream.shape[-1], device=stream.device) % 2 * 2 - 1).to(stream.dtype)
    tried = torch.stack([row, row + _EXTENT / 2, torch.zeros_like(row)])[:, None]
    own, lifted, offset = module.forward(tried)[:, 0]
    # Only a norm that takes the mean away does not see that a row was lifted.
    centred = bool(torch.allclose(own, lifted, rtol=_TOLERANCE, atol=_TOLERANCE))
    gain = (own - offset) / _centred(row, centred)
    plain = _centred(stream, centred) * gain
    size = (plain * plain).sum(-1, keepdim=True)
    scale = ((output - offset) * plain).sum(-1, keepdim=True) / size.clamp_min(torch.finfo(size.dtype).tiny)
    found = Scaled(gain, offset, centred, scale)
    miss = float((found(stream) - output).abs().max())
    # A linear layer is also reproduced by fixed scales: a norm is what gives the same for a longer row.
    longer = module.forward(2.0 * tried[:1])[0, 0]
    is_norm = torch.allclose(longer, own, rtol=_TOLERANCE, atol=_TOLERANCE)
    return found if is_norm and miss <= _TOLERANCE * float(output.abs().max()) else None
