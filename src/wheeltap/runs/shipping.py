"""Files as they are shipped: found when a plan is made, opened when a trial asks for one."""

from collections.abc import Iterable, Sequence
from typing import Any, final

from numpy.typing import NDArray
from torch import nn

from wheeltap.core.errors import UsageError
from wheeltap.core.subject import Subject
from wheeltap.plans.shipped import ShippedFile, packed
from wheeltap.runs.request import Given
from wheeltap.sources.base import CODE, is_code, models
from wheeltap.sources.shipped import Shipped, ShippedModule, compared


def found(specs: Iterable[str], reference: Subject, given: Given | None = None) -> tuple[ShippedFile, ...]:
    """What a plan knows of files.

    Args:
        specs: As they were asked for.
        reference: The original.
        given: Functions for some of them.

    Raises:
        WheeltapError: If one cannot be read, or is of another architecture or vocabulary than the original.
    """
    files = tuple(_opened(spec, reference, given or {}).record(spec) for spec in specs)
    first = dict[str, str]()
    for file in files:
        other = first.setdefault(file.fingerprint, file.spec)
        if other != file.spec:
            raise UsageError(
                "Two files are the same.", where="--for", expected="other bytes for each", got=f"{other}, {file.spec}",
                do="Leave one of them out.",
            )  # fmt: skip
    return files


def _opened(spec: str, reference: Subject, given: Given) -> Shipped:
    if spec in given:
        return ShippedModule(given[spec], reference=reference, where=spec)
    kind, _, rest = (CODE, "", spec) if is_code(spec) else spec.partition(":")
    source = models.get(kind)()
    opened = source.shipped(rest, reference=reference)
    if opened is None:
        opened = ShippedModule(lambda: source.load(rest, name=spec).subject.model, reference=reference, where=spec)
    return opened


@final
class FileShelf:
    """See ``engine.shipped.Shelf``.

    Args:
        files: What a plan knows of them.
        given: Functions for some of them.
    """

    def __init__(self, files: Sequence[ShippedFile], given: Given | None = None) -> None:
        self._files, self._given = {file.fingerprint: file for file in files}, dict(given or {})
        self._same = set[str]()

    def _open(self, fingerprint: str, reference: Subject) -> Shipped:
        spec = self._files[fingerprint].spec
        opened = _opened(spec, reference, self._given)
        if fingerprint not in self._same and opened.fingerprint() != fingerprint:
            raise UsageError(
                "The file is not the one that was planned.", where=spec, expected=f"bytes of digest {fingerprint[:8]}",
                got="others", do="It changed since: make a new plan.",
            )  # fmt: skip
        self._same.add(fingerprint)
        return opened

    def model(self, fingerprint: str, reference: Subject) -> nn.Module:
        """See ``Shelf.model``."""
        return self._open(fingerprint, reference).model()

    def compared(self, fingerprint: str, reference: Subject) -> dict[str, NDArray[Any]]:
        """See ``Shelf.compared``."""
        return packed(compared(self._open(fingerprint, reference).weights(), reference.model))
