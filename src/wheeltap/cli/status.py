"""``wheeltap status``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def status(store: Annotated[Path, Parameter(help="A .wheeltap file; may be in use.")]) -> int:
    """Shows how far a run is: what it audits, trials done, diverged, failed and still known to be missing.

    Try it:

      wheeltap status digits.wheeltap
    """
    from wheeltap.audits.settle import wanted
    from wheeltap.plans.outcomes import Outcomes
    from wheeltap.plans.store import Store
    from wheeltap.runs.stored import plan_of

    with Store(store, readonly=True) as kept:
        plan = plan_of(kept)
        known = Outcomes(kept)
        asked = wanted(plan, known)
        found = [known(trial.key) for trial in asked]
        missing, failed = found.count(None), sum(one is not None and one.status == "failed" for one in found)
        counts = ", ".join(f"{number} {name}" for name, number in kept.count().items()) or "none"
    print(f"{plan.command}: {', '.join(s.name for s in plan.subjects)} on {plan.task.name}")
    print(f"trials in the store: {counts}")
    if missing:
        print(f"{missing} trials to go, as far as is known: run the same command again")
    else:
        print(f"complete, but {failed} failed: the same command tries them again" if failed else "complete")
    return 0
