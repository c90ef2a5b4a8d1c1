"""Settings, and what is made with them: perturbations, readings, audits."""

import re
from typing import Any, ClassVar, get_type_hints

import msgspec

from wheeltap.core.errors import UsageError, nearest
from wheeltap.core.literals import words_of


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of settings; subclasses add named fields with defaults."""


class Configured:
    """What has a name and settings, which are checked when it is made.

    Attributes:
        noun: What it is, in words: ``perturbation``.
        name: Registered name.
        settings_type: Its settings, each a named field with a default.
    """

    noun: ClassVar[str]
    name: ClassVar[str]
    settings_type: ClassVar[type[Settings]] = Settings

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        try:
            self.settings: Any = msgspec.convert(settings or {}, self.settings_type)
        except msgspec.ValidationError as error:
            if isinstance(error.__cause__, UsageError):  # of the settings' own __post_init__
                raise error.__cause__ from None
            asked, _, place = str(error).partition(" - at `$.")
            name = re.split(r"[\[`]", place)[0]
            known = ", ".join(f.name for f in msgspec.structs.fields(self.settings_type)) or "no settings"
            near = nearest(asked.partition("unknown field `")[2].rstrip("`"), known.split(", "))
            if asked.startswith("Invalid enum"):
                words = [str(word) for word in words_of(get_type_hints(self.settings_type)[name])]
                asked, near = " or ".join(words), nearest((settings or {}).get(name), words)
            kinds = f"{self.noun.removesuffix('y')}{'ies' if self.noun.endswith('y') else 's'}"
            raise UsageError(
                f"A setting of the {self.noun} {self.name!r} cannot be used.",
                where=name or None,
                expected=asked.removeprefix("Expected ").replace("`", "") if name else known,
                got=repr((settings or {}).get(name)) if name else str(error),
                do=f"Did you mean {near[0]!r}?" if near else f"Run: wheeltap list {kinds}",
            ) from error
