"""Who makes the members of a study, as the engine sees it."""

from collections.abc import Sequence
from typing import Protocol

from torch import nn

from wheeltap.core.records import Outcome, SubjectRecord, Trial


class Maker(Protocol):
    """Makes the members of a study, or finds what was made before."""

    def module(self, record: SubjectRecord) -> nn.Module:
        """The member, in eval mode.

        Raises:
            WheeltapError: If it cannot be made or read.
        """
        ...

    def make(self, record: SubjectRecord, trial: Trial, batch: Sequence[Trial]) -> Outcome:
        """Makes a member (and its batch) where it is not there yet; its outcome holds the digest of its weights."""
        ...

    def together(self, trials: Sequence[Trial], *, parts: int) -> list[list[Trial]]:
        """Makings in batches of members that may be trained together; ``parts`` batches of a kind at least."""
        ...
