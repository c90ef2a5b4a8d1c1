"""``wheeltap history``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def history(
    folder: Annotated[Path, Parameter(help="Reports of checkpoints, step-N.json: what wt.callbacks writes.")],
) -> int:
    """Says (and draws: history.svg) from which step of a training on a scheme is not safe.

    Try it:

      wheeltap history wheeltap-history
    """
    from wheeltap.core.plain import many, terminal
    from wheeltap.report import figures, files, sections
    from wheeltap.report.history import chart, histories, read, section
    from wheeltap.report.words import examples_of

    reports = read(folder)
    several, task = histories(reports), reports[min(reports)].task
    print(f"{many(len(reports), 'checkpoint')}, {examples_of(task)} ({task.measure})")
    sections.terminal([section(several, max(reports))], terminal())
    print(f"Written: {files.write(folder / 'history.svg', figures.svg(chart(several, task.measure)).encode())}")
    return 0
