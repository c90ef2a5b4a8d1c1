"""What lies beside a model's weights, beside what was sealed of it: what differs, is missing or is new."""

from collections.abc import Mapping, Set
from typing import Final

import msgspec

from wheeltap.core.contents import Contents
from wheeltap.core.subject import Subject

_SETTINGS: Final = {
    "config.json": "config",
    "generation_config.json": "generation_config",
    "tokenizer.json": "tokenizer",
    "tokenizer_config.json": "tokenizer_config",
}
"""Files that may be written in another way, by the name of what is made of them."""

_RAW: Final = "raw:"
"""Before digests of bytes, of which nothing is known but whether they are the same."""

_NEEDLESS: Final = ("weights", "other")
"""Parts of which nothing is lost where some are missing: what was loaded is checked by its values."""

_NAMED: Final = 4
"""Names in a sentence, at most."""


class SealedContents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a seal keeps of what lies beside the weights.

    Attributes:
        parts: A digest of each thing, by its part and its name.
        meanings: Digests of what the loader makes of settings.
    """

    parts: dict[str, dict[str, str]]
    meanings: dict[str, str]

    @classmethod
    def of(cls, subject: Subject) -> "SealedContents | None":
        """Of a subject; none where it comes from no folder or file."""
        held = subject.contents
        return None if held is None else cls(held.digests(), held.meanings())


def differences(sealed: SealedContents, held: Contents) -> tuple[str, ...]:
    """What is not as it was sealed, a sentence for each part; empty where all is.

    Settings may be written in another way where the loader makes the same of them, and templates may stand in another
    file. Files of weights that were loaded are no matter here.
    """
    before = {name: (part, one) for part, several in sealed.parts.items() for name, one in several.items()}
    known = {name: one for name, (_, one) in before.items()}
    now = {name: (part, one) for part, several in held.digests(known).items() for name, one in several.items()}
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    names = [name for name in names if name in now or before[name][0] not in _NEEDLESS]
    meanings = held.meanings() if names else {}
    same = {stem for stem, one in meanings.items() if sealed.meanings.get(stem) == one}
    parts = dict[str, list[str]]()
    for name in sorted(names):
        if not _moved(name, before, now, same):
            how = "is missing" if name not in now else "differs" if name in before else "is new"
            parts.setdefault((now.get(name) or before[name])[0], []).append(f"{name} {how}")
    return tuple(f"{part}: {_listed(several)}." for part, several in sorted(parts.items()))


_Placed = Mapping[str, tuple[str, str]]


def _moved(name: str, before: _Placed, now: _Placed, same: Set[str]) -> bool:
    """Whether what differs under a name only stands elsewhere or is written in another way."""
    part, digest = now.get(name) or before[name]
    if part == "template":
        others = before if name in now else now
        return "tokenizer_config" in same and ("template", digest) in others.values()
    if name not in now and part == "tokenizer":
        return "tokenizer_config" in same
    return _SETTINGS.get(name) in same and not digest.startswith(_RAW)


def _listed(several: list[str]) -> str:
    more = len(several) - _NAMED
    return ", ".join(several[:_NAMED]) + (f" and {more} more" if more > 0 else "")
