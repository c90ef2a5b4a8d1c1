"""Tasks of lm-eval as tasks of ours: ``lm_eval:NAME``, with settings behind commas."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from wheeltap.core.errors import MissingFile, UnknownName, UsageError
from wheeltap.sources.base import DataSource, ExampleReader

if TYPE_CHECKING:
    from wheeltap.core.task import BaseTask

PREFIX: Final = "lm_eval:"

_EXAMPLE: Final = "lm_eval:arc_easy,metric=acc_norm,limit=200,fewshot=5"
_WHOLE: Final = re.compile(r"[0-9]{1,9}")
_SETTINGS: Final = ("metric", "filter", "limit", "fewshot")


@final
class LmEvalTasks(DataSource):
    """See ``lm_eval_tasks.load_task``."""

    form = f"{PREFIX}NAME"
    title = f"A task of lm-eval, perhaps with settings: {_EXAMPLE} (extra: eval)."

    def runs_code(self, rest: str) -> bool:
        """A folder of tasks may name functions."""
        return ",include=" in rest

    def load(self, rest: str, reader: ExampleReader) -> "BaseTask":
        """See ``DataSource.load``."""
        from wheeltap.sources.lm_eval_tasks import load_task

        return load_task(LmEvalSpec.parse(f"{PREFIX}{rest}"), reader.model, reader.tokenizer)


@final
@dataclass(frozen=True, kw_only=True)
class LmEvalSpec:
    """One task of lm-eval.

    Attributes:
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

    def __str__(self) -> str:
        stated = {"metric": self.metric, "filter": self.filter, "limit": self.limit or "",
                  "fewshot": "" if self.fewshot is None else self.fewshot, "include": self.include}  # fmt: skip
        return PREFIX + ",".join([self.name, *(f"{name}={value}" for name, value in stated.items() if value != "")])

    @classmethod
    def parse(cls, text: str, *, include: Path | None = None) -> "LmEvalSpec":
        """What ``lm_eval:NAME,SETTING=VALUE,...`` asks for, with a folder of YAML files of one's own.

        Raises:
            UsageError: If it cannot be read.
            UnknownName: If there is no such setting.
            MissingFile: If the folder is not there.
        """
        head, _, folder = text.removeprefix(PREFIX).partition(",include=")
        name, *settings = [part.strip() for part in head.split(",")]
        stated = {key: value for key, _, value in (setting.partition("=") for setting in settings)}
        bad = next((setting for setting in settings if not setting.partition("=")[2]), None)
        unknown = next((key for key in stated if key not in _SETTINGS), None)
        if unknown is not None and bad is None:
            raise UnknownName("setting of a task of lm-eval", unknown, _SETTINGS)
        if bad is not None or not text.startswith(PREFIX) or not name:
            raise UsageError(
                "The task cannot be read.",
                where=text,
                expected=f"lm_eval:NAME, perhaps with settings: {_EXAMPLE}",
                got=(name if bad is None else bad) or "nothing",
                do="Of several tasks: --task lm_eval:A --task lm_eval:B. See docs/measures.md.",
            )
        counts = {"limit": 0, "fewshot": None} | {
            key: _whole(text, key, stated[key]) for key in ("limit", "fewshot") if key in stated
        }
        where = include if include is not None else Path(folder) if folder else None
        if where is not None and not where.expanduser().is_dir():
            raise MissingFile(
                "The folder of tasks is not there.",
                where=str(where),
                expected="a folder with the YAML files of tasks",
                got="a file" if where.is_file() else "nothing",
                do="Check the path given with --include-path.",
            )
        return cls(
            name=name, metric=stated.get("metric", ""), filter=stated.get("filter", ""), limit=counts["limit"] or 0,
            fewshot=counts["fewshot"], include="" if where is None else str(where.expanduser().resolve()),
        )  # fmt: skip


def _whole(text: str, name: str, value: str) -> int:
    least = 1 if name == "limit" else 0
    if _WHOLE.fullmatch(value) is None or int(value) < least:
        whole = "all documents" if name == "limit" else "the number of the task itself"
        raise UsageError(
            "A setting of the task cannot be used.",
            where=f"{text}: {name}",
            expected=f"a whole number, {least} or more",
            got=value,
            do=f"Leave {name} out for {whole}.",
        )
    return int(value)
