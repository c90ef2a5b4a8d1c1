"""Where the time of a run goes: wall and CPU seconds of each stage, without those of the stages inside it."""

from collections.abc import Generator
from contextlib import contextmanager
from time import perf_counter, process_time
from typing import Final

_SPENT: Final = dict[str, tuple[float, float, int]]()
_inside: Final = list[tuple[float, float]]()  # what stages inside of the open ones took, outermost first


@contextmanager
def stage(name: str) -> Generator[None]:
    """Counts the time of the block, or of the function that it decorates, as ``name``; of one thread alone."""
    began, began_cpu = perf_counter(), process_time()
    _inside.append((0.0, 0.0))
    try:
        yield
    finally:
        wall, cpu = perf_counter() - began, process_time() - began_cpu
        within, within_cpu = _inside.pop()
        before, before_cpu, times = _SPENT.get(name, (0.0, 0.0, 0))
        _SPENT[name] = (before + wall - within, before_cpu + cpu - within_cpu, times + 1)
        if _inside:
            _inside[-1] = (_inside[-1][0] + wall, _inside[-1][1] + cpu)


def profile() -> list[str]:
    """Lines that say where this process's time went so far, the longest stage first; the rest is what no stage is."""
    rows = [(name, *spent) for name, spent in sorted(_SPENT.items(), key=lambda one: -one[1][0])]
    wall, cpu = perf_counter() - _BEGAN, process_time()
    rest = wall - sum(row[1] for row in rows), cpu - sum(row[2] for row in rows)
    rows += [("everything else", *rest, 1), ("all", wall, cpu, 1)]
    titles = f"{'where the time went':26} {'seconds':>8} {'CPU':>8} {'times':>8}"
    return [titles, *(f"{name:26} {one:8.1f} {two:8.1f} {times:8,}" for name, one, two, times in rows)]


_BEGAN: Final = perf_counter() - process_time()
"""About when the process started: it computes, on one thread, until this is imported."""
