"""The memory of a large model while a control copy of it is measured: the copy has it, and the model gets it back."""

from typing import final

import torch
from torch import nn

from wheeltap.core.errors import RestorationError
from wheeltap.core.layer import Layer
from wheeltap.core.subject import Subject
from wheeltap.engine.apply import verified_restoration
from wheeltap.engine.clean_weights import CleanWeights


@final
class LentMemory:
    """The parameters of a base, which its control copy is about to take over.

    Args:
        base: Whose weights can be read again: see ``CleanWeights``.
        proven: Digests of its tensors.
    """

    def __init__(self, base: Subject, proven: dict[str, str]) -> None:
        self._base, self._proven = base, proven
        self._own = {
            Layer(name, "plain", weight=name, bias=None, shape=tuple(one.shape)): one.data
            for name, one in base.model.named_parameters()
        }
        self._clean = CleanWeights(base, [*self._own])

    @torch.no_grad()
    def give_back(self, copied: nn.Module | None) -> None:
        """Puts the base's weights back where they were: who else holds that memory (a state dict) has them back too.

        The copy is left empty: whoever still runs it gets an error, not the base's numbers.

        Raises:
            RestorationError: If they are not what they were, to the bit.
        """
        lost = list[Exception]()
        for one in () if copied is None else copied.parameters():
            one.data = one.data.new_empty(0)
        for layer, own in self._own.items():
            self._base.parameter(layer.weight).data = own
            try:
                own.copy_(self._clean.of(layer).weight)
            except (RestorationError, OSError) as error:  # what else there is comes back all the same
                lost.append(error)
        self._clean.close()
        with verified_restoration(self._base, self._proven):
            for error in lost:
                raise error
