"""Which task of lm-eval is asked for: ``lm_eval:NAME``, with settings behind commas."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from wheeltap.core.errors import MissingFile, UnknownName, UsageError

PREFIX: Final = "lm_eval:"

_EXAMPLE: Final = "lm_eval:arc_easy,metric=acc_norm,limit=200,fewshot=5"
_WHOLE: Final = re.compile(r"[0-9]{1,9}")


@final
@dataclass(frozen=True, kw_only=True)
class Asked:
    """One task of lm-eval.

    Attributes:
        name: As lm-eval knows it.
        metric: What its documents are graded by; lm-eval's own choice of accuracy where empty.
        filter: Which of its filters makes answers of what the model said; the first where empty.
        limit: How many documents, from the first; 0 for all.
        fewshot: Solved examples before each document; the task's own number where ``None``.
        include: Folder of YAML files of one's own; lm-eval's tasks alone where empty.
    """

    name: str
    metric: str = ""
    filter: str = ""
    limit: int = 0
    fewshot: int | None = None
    include: str = ""

    @property
    def path(self) -> Path:
        """The same as a path, to be kept in a plan: ``asked_for`` reads it."""
        stated = {"metric": self.metric, "filter": self.filter, "limit": self.limit or "",
                "fewshot": "" if self.fewshot is None else self.fewshot, "include": self.include}  # fmt: skip
        return Path(
            PREFIX + ",".join([self.name, *(f"{name}={value}" for name, value in stated.items() if value != "")])
        )


def is_asked(data: Path) -> bool:
    """Whether this names a task of lm-eval, and not for a file."""
    return str(data).startswith(PREFIX)


def asked_for(data: Path, *, include: Path | None = None) -> Asked:
    """What ``lm_eval:NAME,SETTING=VALUE,...`` asks for.

    Args:
        data: The text.
        include: Folder of YAML files of one's own.

    Raises:
        UsageError: If it cannot be read.
        UnknownName: If there is no such setting.
        MissingFile: If the folder is not there.
    """
    text, _, folder = str(data).removeprefix(PREFIX).partition(",include=")
    name, *settings = [part.strip() for part in text.split(",")]
    stated = dict[str, str]()
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not value:
            raise _unreadable(data, setting)
        if key not in ("metric", "filter", "limit", "fewshot"):
            raise UnknownName("setting of a task of lm-eval", key, ("metric", "filter", "limit", "fewshot"))
        stated[key] = value
    if not is_asked(data) or not name:
        raise _unreadable(data, name)
    return Asked(
        name=name, metric=stated.get("metric", ""), filter=stated.get("filter", ""),
        limit=_whole(data, "limit", stated, least=1) or 0, fewshot=_whole(data, "fewshot", stated, least=0),
        include=_folder(include if include is not None else Path(folder) if folder else None),
    )  # fmt: skip


def _whole(data: Path, name: str, stated: Mapping[str, str], *, least: int) -> int | None:
    text = stated.get(name)
    if text is None:
        return None
    if _WHOLE.fullmatch(text) is None or int(text) < least:
        whole = "all documents" if name == "limit" else "the number of the task itself"
        raise UsageError(
            "A setting of the task cannot be used.",
            where=f"{data}: {name}",
            expected=f"a whole number, {least} or more",
            got=text,
            do=f"Leave {name} out for {whole}.",
        )
    return int(text)


def _folder(include: Path | None) -> str:
    if include is None:
        return ""
    if not include.expanduser().is_dir():
        raise MissingFile(
            "The folder of tasks is not there.",
            where=str(include),
            expected="a folder with the YAML files of tasks",
            got="a file" if include.is_file() else "nothing",
            do="Check the path given with --include-path.",
        )
    return str(include.expanduser().resolve())


def _unreadable(data: Path, got: str) -> UsageError:
    return UsageError(
        "The task cannot be read.",
        where=str(data),
        expected=f"lm_eval:NAME, perhaps with settings: {_EXAMPLE}",
        got=got or "nothing",
        do="See docs/lm-eval.md.",
    )
