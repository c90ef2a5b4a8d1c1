"""The errors a user can meet: one root, leaves that also are the builtin they resemble.

Every message says what went wrong, where or what was found, and what was expected or what to do:
``tests/test_errors.py`` checks each call.
"""

import difflib
import errno
from collections.abc import Callable, Iterable
from typing import Any, Self

from wheeltap.core.plain import plain


class WheeltapError(Exception):
    """Root of every error that wheeltap raises on purpose.

    Args:
        what: One sentence: what went wrong.
        where: The file, subject, site or trial it concerns.
        expected: What would have been right.
        got: What was there instead.
        do: What the reader can do about it.
    """

    exit_code: int = 2

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        got: str | None = None,
        do: str | None = None,
    ) -> None:
        self.what, self.where, self.expected, self.got, self.do = what, where, expected, got, do
        rows = (("where", where), ("expected", expected), ("got", got), ("what to do", do))
        # They quote files of others: no line of theirs may look like one of these.
        lines = [what, *(f"  {label}: {text}" for label, text in rows if text)]
        super().__init__("\n".join(plain(line, lines=True).replace("\n", "\n    ") for line in lines))

    def in_line(self) -> str:
        """All of it as one line: for a status, a table, a sentence of a report."""
        facts = [f"{label} {text}" for label, text in (("expected", self.expected), ("got", self.got)) if text]
        place = f" ({self.where})" if self.where else ""
        first = f"{self.what.rstrip('.')}{place}" + (f": {', '.join(facts)}" if facts else "")
        return " ".join(plain(f"{first}. {self.do or ''}").split())

    def at(self, where: str) -> Self:
        """The same error, said of another place: of the file that a value came from, say."""
        made = type(self).__new__(type(self))
        WheeltapError.__init__(made, self.what, where=where, expected=self.expected, got=self.got, do=self.do)
        return made

    def __reduce__(self) -> tuple[Callable[..., "WheeltapError"], tuple[type["WheeltapError"], dict[str, Any]]]:
        # Worker processes send their errors back whole; the default would call a subclass with the wrong arguments.
        return _restored, (type(self), {**self.__dict__, "args": self.args})


def _restored(kind: type[WheeltapError], state: dict[str, Any]) -> WheeltapError:
    error = kind.__new__(kind)
    error.args = state.pop("args")
    error.__dict__.update(state)
    return error


class UsageError(WheeltapError, ValueError):
    """A flag, setting or argument that cannot be used."""


class UnknownName(UsageError, LookupError):
    """A name that nothing is registered under; suggests the nearest ones.

    Args:
        kind: Of what.
        name: What was asked for.
        known: What there is; of more than ``MOST_NAMES``, the nearest are listed.
        first: Those of them that are listed first.
        expected: How names are made, where what there is cannot be listed.
        do: What to do, where that is not to take the nearest.
    """

    def __init__(
        self, kind: str, name: object, known: Iterable[str], *, first: Iterable[str] = (), expected: str = "",
        do: str = "",
    ) -> None:  # fmt: skip
        names, own = sorted(known), sorted(first)
        if len(names) <= MOST_NAMES:
            near = nearest(name, names)
            listed = ", ".join(names)
        else:
            several = nearest(name, names, most=_FEW_NAMES)
            near = [*nearest(name, own), *several]
            some = list(dict.fromkeys([*own, *several]))[:_FEW_NAMES] or names[:_FEW_NAMES]
            listed = f"{', '.join(some)} and {len(names) - len(some):,} more"
        hint = f"Did you mean {near[0]!r}?" if near else f"Choose one of: {listed}."
        what = f"There is no {kind} called {name!r}."
        super().__init__(what, expected=expected or listed, got=str(name), do=do or hint)


def nearest(name: object, known: Iterable[str], *, most: int = 1) -> list[str]:
    """Those of the known names that are spelled most like this one, whatever the case; none where none is near."""
    by_case = {one.casefold(): one for one in known}
    return [by_case[one] for one in difflib.get_close_matches(str(name).casefold(), by_case, n=most, cutoff=0.5)]


MOST_NAMES = 200
"""Names up to which all are listed."""

_FEW_NAMES = 10


class ModelError(WheeltapError, ValueError):
    """A model that cannot be audited as it is."""


class DataError(WheeltapError, ValueError):
    """Task data that cannot be used."""


class FileFormatError(DataError):
    """A file whose contents are not what its name promises."""


class MissingFile(WheeltapError, FileNotFoundError):
    """A file, folder or model that is not where it was looked for."""


class FileError(WheeltapError, OSError):
    """A file that could not be read or written."""

    @classmethod
    def of(cls, error: Exception, where: object = None, *, what: str = "", do: str = "") -> "FileError":
        """What to say of an error of the file system.

        Args:
            error: Of the system; or of Python, of a path with a NUL byte or thousands of folders.
            where: The file; by default the one that the error names.
            what: What went wrong, where the disk is not full.
            do: What to do about it, likewise.
        """
        deep = isinstance(error, RecursionError)
        known = (
            error if isinstance(error, OSError) else OSError(errno.EINVAL, "too many folders" if deep else str(error))
        )
        full = known.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        place = known.filename if where is None else where
        made = cls(
            "The disk is full: the file was not written." if full else what or "A file could not be read or written.",
            where="the output" if place is None else str(place),
            got=known.strerror or str(known),
            do="Free some space and give the command again: what was measured or trained is kept."
            if full
            else do or "Check the path and its permissions, and give the command again.",
        )
        made.errno = known.errno  # without a text beside it, which would take the place of the message
        return made


class MissingExtra(WheeltapError, ImportError):
    """An optional dependency that is not installed; prints the install line."""

    def __init__(self, package: str, extra: str, *, needed_for: str) -> None:
        super().__init__(
            f"The package {package!r} is not installed.",
            where=needed_for,
            do=f'pip install "wheeltap[{extra}]"',
        )


class StoreError(WheeltapError, RuntimeError):
    """A store that cannot be read or written."""


class RestorationError(WheeltapError, RuntimeError):
    """The subject did not come back as it was; nothing measured after that can be trusted."""
