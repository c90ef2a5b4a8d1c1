"""``wheeltap lens``."""

import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from wheeltap.cli.telling import Telling

_TELLING = Telling()


def lens(
    *files: Annotated[Path, Parameter(help="Recorded answers; of two files, the second is compared with the first.")],
    votes: Annotated[Path | None, Parameter(help="Votes of people on the same items, in a file of their own.")] = None,
    store: Annotated[
        Path | None,
        Parameter(help="Keep what was read in this file; it is judged again without the answers: wheeltap judge."),
    ] = None,
    telling: Telling = _TELLING,
) -> int:
    """What a benchmark's score leaves out: from recorded answers, without a model.

    Try it:

      wheeltap lens base.jsonl rl.jsonl
      wheeltap lens samples_gsm8k.jsonl --out gsm8k/
      wheeltap lens answers.jsonl --votes votes.jsonl
    """
    from wheeltap.core.errors import UsageError
    from wheeltap.runs.recorded import imported
    from wheeltap.runs.stored import judge
    from wheeltap.sources.recorded import read

    if not files and votes is None:
        raise UsageError("There is no file to look at.", expected="wheeltap lens FILE [FILE]", got="none")
    telling.prepare()
    held = imported([read(path) for path in (*files, *([] if votes is None else [votes]))])
    with tempfile.TemporaryDirectory(prefix="wheeltap-") as passing:
        kept = Path(passing) / "lens.wheeltap" if store is None else store
        held.put(kept)
        return telling.tell(judge(kept))
