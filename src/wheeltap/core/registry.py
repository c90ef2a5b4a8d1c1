"""Registries of named things, open to other packages through entry points."""

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from wheeltap.core.errors import UnknownName, UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to classes, filled from a table of built-ins and from an entry-point group, each loaded when asked for.

    Args:
        kind: What is registered, in words ("perturbation"), for messages.
        group: The entry-point group third parties add to.
        builtin: Name to ``module:attribute``.
        base: What an entry must subclass.
        removed: Names that were removed, and the one to use instead; empty where there is none.
    """

    def __init__(
        self, kind: str, group: str, builtin: dict[str, str], base: type[T], removed: Mapping[str, str] | None = None
    ) -> None:
        self.kind, self.group, self.base, self.removed = kind, group, base, removed or {}
        self._paths = dict(builtin)
        self._plugins: dict[str, str] | None = None

    def _all(self) -> dict[str, str]:
        if self._plugins is None:
            plugins: dict[str, str] = {}
            for point in entry_points(group=self.group):
                # A plug-in may add names, never replace one: a report must mean the same everywhere.
                if plugins.setdefault(point.name, point.value) != point.value or point.name in self._paths:
                    package = "an installed package" if point.dist is None else f"the package {point.dist.name!r}"
                    got = self._paths.get(point.name, point.name)
                    do = f"Rename it in the group {self.group!r} of that package, or uninstall the package."
                    raise self._twice(point.name, f"{package}: {point.value}", got, do)
            self._plugins = plugins
        return {**self._plugins, **self._paths}

    def add(self, name: str, path: str) -> None:
        """Adds a class to this process alone: what is used in one project and is no package.

        Args:
            name: What it is called.
            path: ``module:attribute``.

        Raises:
            UsageError: If the name is taken.
        """
        if self._all().get(name, path) != path:
            raise self._twice(name, path, self._all()[name], "Give it another name.")
        self._paths[name] = path

    def _twice(self, name: str, where: str, got: str, do: str) -> UsageError:
        return UsageError(
            f"The {self.kind} {name!r} is declared twice.",
            where=where,
            expected="a name that wheeltap and other packages do not have",
            got=got,
            do=do,
        )

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._all()))

    def get(self, name: str) -> type[T]:
        """The class registered as ``name``.

        Raises:
            UnknownName: If there is none, with the nearest name as a hint.
            UsageError: If it was removed, a plug-in's entry cannot be loaded, or it is not a subclass of what is
                expected here.
        """
        paths = self._all()
        if name in self.removed:
            instead = self.removed[name]
            do = f"Use {instead}." if instead else "Omit it: none of the others does the same."
            raise UsageError(f"The {self.kind} {name!r} was removed.", got=name, do=do)
        if name not in paths:
            raise UnknownName(self.kind, name, paths)
        module, _, attribute = paths[name].partition(":")
        try:
            found: Any = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"The {self.kind} {name!r} cannot be loaded.",
                where=paths[name],
                expected=f"a subclass of {self.base.__name__}",
                got=f"{type(error).__name__}: {error}",
                do=f"Fix or uninstall the package that declares it in the group {self.group!r}.",
            ) from error
        if not (inspect.isclass(found) and issubclass(found, self.base)):
            raise UsageError(
                f"The {self.kind} {name!r} is not a {self.base.__name__}.",
                where=paths[name],
                expected=f"a subclass of {self.base.__name__}",
                got=f"{paths[name]} = {type(found).__name__}",
                do=f"Fix the entry point in the group {self.group!r} of the package that declares it.",
            )
        return found

    def create(self, name: str, settings: dict[str, Any] | None = None) -> T:
        """Make what is registered as ``name``, with its settings checked.

        Raises:
            UnknownName: If there is none.
            UsageError: If a setting does not fit, or see ``get``.
        """
        kind: Any = self.get(name)
        return kind(settings)
