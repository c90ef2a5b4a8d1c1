"""What a control may say: it has passed only if it could have failed."""

from wheeltap.core.records import Control, Estimate
from wheeltap.stats.effect import exceeds, smallest_detectable


def silent(
    name: str, gap: Estimate, *, margin: float, min_effect: float, because: str, one_sided: bool = False
) -> Control:
    """A null control: what must show nothing.

    It fails where the effect surely exceeds ``margin``, at the level of its interval. It passes only where a true
    effect of ``min_effect`` would have failed it 4 times out of 5; else it is skipped, for it vouches for nothing.

    Args:
        name: Of the control.
        gap: The effect.
        margin: Effect that does not matter.
        min_effect: Effect that the audit promises to see.
        because: What was compared, in words.
        one_sided: Only a positive effect fails it.
    """
    if exceeds(gap, margin) and not (one_sided and (gap.value or 0.0) <= 0.0):
        return Control(name=name, kind="null", status="failed", estimates=(gap,), because=because)
    why = _blind(smallest_detectable(gap, alpha=1.0 - gap.level, margin=margin), min_effect)
    return Control(
        name=name, kind="null", status="skipped" if why else "passed", estimates=(gap,), because=f"{because}{why}"
    )


def shown(name: str, effect: Estimate, *, margin: float, because: str, least: float = 0.0) -> Control:
    """A planted control: what must be found.

    It passes where the effect is surely above ``least``. It fails where it is surely below ``margin``; else it is
    skipped, for it shows neither that the instrument sees the plant nor that it misses it. How large the effect of a
    plant is differs from net to net, so that a small one is no failure.

    Args:
        name: Of the control.
        effect: What the instrument says of the planted copy, with its interval.
        margin: Effect that any such plant has.
        because: What was planted, in words.
        least: What must be exceeded: nothing, where plants may be small.
    """
    if effect.low is not None and effect.low > least:
        return Control(name=name, kind="planted", status="passed", estimates=(effect,), because=because)
    if effect.high is not None and effect.high < margin:
        missed = f" It was missed: the effect is shown to be below {margin:.2g}."
        return Control(name=name, kind="planted", status="failed", estimates=(effect,), because=f"{because}{missed}")
    why = " The interval is too wide to show it, or to show that it is missed: measure more."
    return Control(name=name, kind="planted", status="skipped", estimates=(effect,), because=f"{because}{why}")


def _blind(least: float | None, min_effect: float) -> str:
    """Why a control could hardly have failed; empty where it could."""
    if least is None:
        return " It could not have failed, whatever was different: its interval is open."
    if least > min_effect:
        return (
            f" It could hardly have failed: only a difference of {least:.2g} or more would have failed it 4 times out "
            f"of 5, and the smallest effect of interest is {min_effect:.2g}. Measure more, or lower the margin."
        )
    return ""
