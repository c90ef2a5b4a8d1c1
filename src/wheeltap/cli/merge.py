"""``wheeltap merge``."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

_SHOWN: Final = 16
"""Kinds of trials, and shards, that are named."""


def merge(
    *parts: Annotated[Path, Parameter(help="Stores of shards.")],
    into: Annotated[
        Path, Parameter(name=["--into", "-o"], help="The merged store; one of an earlier round is added to.")
    ],
) -> int:
    """Puts the stores of a plan's shards into one, and says what is missing and what runs it.

    The exit code is 0 where nothing is missing, 1 where trials are, 2 where the stores cannot be merged.

    Try it:

      wheeltap merge part-*.wheeltap -o all.wheeltap
      wheeltap report all.wheeltap
    """
    from wheeltap.cli.progress import spinner
    from wheeltap.core.plain import many, plain
    from wheeltap.runs import merging

    with spinner("merging"):
        found = merging.merge(parts, into)
    said = [f"{into}: {many(len(parts), 'store')} merged, {many(found.outcomes, 'outcome')}."]
    said += [f"{many(found.twice, 'trial')} had run twice, with the same numbers."] if found.twice else []
    if not found.missing:
        said.append(f"Nothing is missing: wheeltap report {into}")
    else:
        kinds = Counter(f"{trial.kind} {trial.perturbation}" for trial in found.missing).most_common(_SHOWN)
        listed = ", ".join(f"{count:,} {kind}" for kind, count in kinds)
        said.append(f"Missing: {many(len(found.missing), 'trial')} ({listed}).")
        if found.another:
            said.append("All shards are finished, and this follows from what they gave: another round is wanted.")
        elif found.work:
            said.append("Not all shards are there and finished.")
        for one in found.work[:_SHOWN]:
            said.append(f"  shard {one.shard}: {many(len(one.trials), 'trial')}: {one.command}")
        if found.work:
            shards = ",".join(str(one.shard.index) for one in found.work)
            said.append(f"Shards with trials to run: {shards}, each with --base {into}")
        said += [f"Or all in one process: {found.command}"] if found.command else []
    for line in said:
        print(plain(line))
    return int(bool(found.missing))
