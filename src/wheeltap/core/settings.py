"""Settings, and what is made with them: perturbations, readings, audits.

Arguments that are choices: what is given is held against the words that an annotation lists.

A door takes a choice as ``Literal["costs", "never"]`` or ``bool``, and is ``@checked``: a misspelled word is an error
before anything runs, never a default.
"""

import inspect
import re
from collections.abc import Callable
from functools import cache, wraps
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from wheeltap.core.errors import UnknownName, UsageError, nearest
from wheeltap.core.plain import plain

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@cache
def words_of(annotation: Any) -> tuple[Any, ...]:
    """The words that an annotation lists, those of a union's parts included; none where it lists none."""
    if get_origin(annotation) is Annotated:
        return words_of(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        return tuple(word for part in get_args(annotation) for word in words_of(part))
    return ()


@cache
def _others(annotation: Any) -> tuple[type, ...]:
    """The classes that an annotation allows beside words."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return tuple(part for part in parts if isinstance(part, type))


def comma_separated(text: str) -> tuple[str, ...]:
    """Names separated by commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def is_choice(annotation: Any) -> bool:
    """Whether an annotation lists words, or is of a switch."""
    return bool(words_of(annotation)) or set(_others(annotation)) in ({bool}, {bool, NoneType})


def require(given: object, annotation: Any, *, of: str) -> None:
    """Raises if what was given is no choice that the annotation has.

    Args:
        given: Anything.
        annotation: As it stands in a signature.
        of: Name of the argument or field.

    Raises:
        UnknownName: If it is none of the words.
        UsageError: If it is not True or False, of a switch.
    """
    words, others = words_of(annotation), _others(annotation)
    if isinstance(given, others) or any(isinstance(given, type(word)) and given == word for word in words):
        return
    if words:
        raise UnknownName(of, given, [str(word) for word in words])
    raise UsageError(
        f"The argument {of} is on or off.",
        where=of,
        expected="True or False" + (" (or None)" if NoneType in others else ""),
        got=repr(given)[:120],
        do=f"Give {of}=True, or leave it out.",
    )


def name_of(given: object) -> str:
    """A name that was given, as one line without control characters.

    Raises:
        UsageError: If it is no text.
    """
    if not isinstance(given, str):
        raise UsageError("The argument name is a text.", where="name", expected="a text", got=repr(given)[:120],
                         do='Give name="first", say, or leave it out.')  # fmt: skip
    return plain(given)


def checked(door: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A function or method that refuses what is no choice of its annotations, before it does anything.

    Args:
        door: Its annotations of choices are no text (no forward references).
    """
    signature = inspect.signature(door)
    choices = {name: one.annotation for name, one in signature.parameters.items() if is_choice(one.annotation)}

    @wraps(door)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        given = signature.bind_partial(*args, **kwargs).arguments
        for name, annotation in choices.items():
            if name in given:
                require(given[name], annotation, of=name)
        return door(*args, **kwargs)

    return guarded


def unknown_word(error: msgspec.ValidationError, kind: type) -> UnknownName | None:
    """What msgspec says of a field that lists words, in ours; ``None`` where the error is another one.

    Args:
        error: Of converting to ``kind``.
        kind: A struct; fields of structs in it are found too.
    """
    found = re.fullmatch(r"Invalid enum value '?(.*?)'? - at `\$(.*)`", str(error), re.DOTALL)
    if found is None:
        return None
    annotation: Any = kind
    for field, _ in re.findall(r"\.(\w+)|(\[[^]]*\])", found[2]):
        while get_origin(annotation) in (Annotated, Union, UnionType):
            annotation = next(part for part in get_args(annotation) if part is not NoneType)
        if field:
            hints = get_type_hints(annotation, include_extras=True)
            annotation = hints[next(f.name for f in msgspec.structs.fields(annotation) if f.encode_name == field)]
        else:
            annotation = get_args(annotation)[1 if get_origin(annotation) is dict else 0]
    return UnknownName(found[2].rpartition(".")[2], found[1], [str(word) for word in words_of(annotation)])


@cache
def _fields(kind: type) -> dict[str, Any]:
    return {name: one for name, one in get_type_hints(kind).items() if is_choice(one)}


def require_fields(record: object) -> None:
    """Raises as ``require`` does if a field of a dataclass or struct is no choice of its annotation."""
    for name, annotation in _fields(type(record)).items():
        require(getattr(record, name), annotation, of=name)


class ChoiceRecord(msgspec.Struct, frozen=True):
    """Base of records that callers write: a field that is a choice refuses any other word when the record is made."""

    def __post_init__(self) -> None:
        require_fields(self)


def described(doc: str | None, section: str) -> dict[str, str]:
    """What a docstring says of arguments or attributes: the lines of a section by name, each as one line.

    Args:
        doc: A docstring, in Google's form.
        section: Its heading: ``Args`` or ``Attributes``.
    """
    _, _, after = inspect.cleandoc(doc or "").partition(f"{section}:\n")
    listed = re.split(r"\n(?=\S)", after)[0]
    parts = re.split(r"\n    (?=\w+: )", f"\n{listed}")[1:]
    return {name: " ".join(text.split()) for name, _, text in (part.partition(": ") for part in parts)}


SMALL: Final = 2_000_000
"""Weights below which a model is small: a pass costs less than shortcuts, threads, or to forget what was read of it."""

LARGE: Final = 20_000_000
"""Weights from which a model is large: a pass takes seconds, a gradient is a lot of memory; defaults ask for less."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of settings; subclasses add named fields with defaults."""


class Component:
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
