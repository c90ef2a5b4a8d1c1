"""What lies beside a model's weights, beside what was sealed of it: what differs, is missing or is new."""

import re
from collections.abc import Mapping, Set
from typing import Final

import msgspec

from wheeltap.core.files import Contents, Digests
from wheeltap.core.subject import Subject
from wheeltap.suites.seal.folder import digests, meanings
from wheeltap.suites.seal.structure import listed

_SETTINGS: Final = {
    "config.json": {"config", "tokenizer_config"},
    "generation_config.json": {"generation_config"},
    "tokenizer.json": {"tokenizer", "tokenizer_config"},
    "tokenizer_config.json": {"tokenizer_config"},
}
"""Files that may be written in another way where what is made of them is the same."""

_TEMPLATE: Final = re.compile(r"(chat_template|additional_chat_templates/[^/]+)\.jinja")
"""Files of templates that the tokenizer has: they may stand in its settings instead."""

_RAW: Final = "raw:"
"""Before digests of bytes, of which nothing is known but whether they are the same."""

_NEEDLESS: Final = ("weights", "other")
"""Parts of which nothing is lost where some are missing: what was loaded is checked by its values."""


class SealedContents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a seal keeps of what lies beside the weights.

    Attributes:
        parts: A digest of each thing, by its part and its name.
        meanings: Digests of what the loader makes of settings.
    """

    parts: Digests
    meanings: dict[str, str]

    @classmethod
    def of(cls, subject: Subject) -> "SealedContents | None":
        """Of a subject; none where it comes from no folder or file."""
        held = subject.contents
        return None if held is None else cls(digests(held), meanings(held))


def differences(sealed: SealedContents, held: Contents) -> tuple[str, ...]:
    """What is not as it was sealed, a sentence for each part; empty where all is.

    Settings may be written in another way where the loader makes the same of them, and templates may stand in another
    file. Files of weights that were loaded are no matter here.
    """
    before = _flat(sealed.parts)
    now = _flat(digests(held))
    several = [one for one in {**before, **now} if before.get(one) != now.get(one)]
    settings = meanings(held) if several else {}
    same = {
        stem
        for stem, one in settings.items()
        if one and sealed.meanings.get(stem) == one
        and settings.get(f"{stem} more", "") in ("", sealed.meanings.get(f"{stem} more"))
    }  # fmt: skip
    parts = dict[str, list[str]]()
    for part, name in sorted(several):
        if not _moved((part, name), before, now, same):
            how = "is missing" if (part, name) not in now else "differs" if (part, name) in before else "is new"
            parts.setdefault(part, []).append(f"{name} {how}")
    return tuple(f"{part}: {listed(names)}." for part, names in parts.items())


_Placed = Mapping[tuple[str, str], str]


def _flat(parts: Digests) -> _Placed:
    return {(part, name): one for part, several in parts.items() for name, one in several.items()}


def _moved(one: tuple[str, str], before: _Placed, now: _Placed, same: Set[str]) -> bool:
    """Whether what differs under a name only stands elsewhere, is written in another way, or is not needed."""
    part, name = one
    digest = now[one] if one in now else before[one]
    if part == "template":
        return "tokenizer_config" in same and _TEMPLATE.fullmatch(name) is not None
    if one not in now and part == "tokenizer":
        return "tokenizer_config" in same
    if one not in now and part in _NEEDLESS:  # but other runtimes read all of a GGUF file, and code may read any file
        return "config" in same and (part == "weights" or not any(of == "code" for of, _ in before))
    return name in _SETTINGS and _SETTINGS[name] <= same and not digest.startswith(_RAW)
