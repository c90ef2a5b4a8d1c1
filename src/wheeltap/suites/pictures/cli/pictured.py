"""What ``wheeltap fer`` does: it names the picture, and calls the study ``pictures``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wheeltap.cli import studying as cli
from wheeltap.cli.options import Running, processes
from wheeltap.cli.study import Choosing
from wheeltap.cli.telling import Telling
from wheeltap.core.errors import UsageError
from wheeltap.runs import studying
from wheeltap.suites.pictures.cli.fer import Training, Written
from wheeltap.suites.pictures.nets.pictures import PICTURES
from wheeltap.suites.pictures.sources.drawn import picture_named
from wheeltap.suites.pictures.studies.pictures import FOLDED


@dataclass(frozen=True)
class Asked:
    """Which picture, and which further nets."""

    genome: Path | None
    picture: str | None
    nets: Path | None

    def settings(self, training: Training) -> dict[str, Any]:
        """The settings of the study.

        Raises:
            UsageError: If neither or both ways of naming the picture are used, or a genome is the name of a picture.
        """
        if (self.genome is None) == (self.picture is None):
            raise UsageError(
                "One picture is needed.",
                expected="a genome, or --picture NAME",
                got="neither" if self.genome is None else "both",
                do=f"wheeltap fer --picture {next(iter(PICTURES))}",
            )
        which = {"picture": self.picture} if self.genome is None else {"genome": str(self.genome)}
        kinds = [kind for kind in training.kinds if kind != FOLDED or self._mirrored]
        return {
            **which, "nets": "" if self.nets is None else str(self.nets), "controls": ",".join(kinds),
            "seeds": training.seeds, "control_seeds": training.control_seeds, "size": training.size,
            "steps": training.steps, "seed": training.seed,
        }  # fmt: skip

    @property
    def _mirrored(self) -> bool:
        """Whether nets that read |x| can draw it at all."""
        return self.genome is None or picture_named("genome", str(self.genome)).symmetric is not None

    @property
    def command(self) -> str:
        """How it is called, apart from settings."""
        return f"fer {self.genome}" if self.picture is None else f"fer --picture {self.picture}"

    @property
    def name(self) -> str:
        """What its folder is named after."""
        return self.picture or Path(str(self.genome)).stem


def carry_out(asked: Asked, training: Training, *, written: Written) -> int:
    """Makes the study and writes its files; gives the exit code."""
    found = studying.create("pictures", asked.settings(training))
    planned = cli.planned(found, asked.command, Choosing(seed=training.seed))
    out = written.folder(asked.name)
    telling = Telling(out=out, json=written.json, fail_on=written.fail_on, full=written.full)
    telling.prepare()
    running = Running(store=out / "study.wheeltap", workers=written.workers or processes())
    return telling.tell(cli.run(planned, running=running, telling=telling, made=out / "nets"))
