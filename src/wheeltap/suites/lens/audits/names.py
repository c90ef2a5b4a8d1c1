"""Items and parts of a benchmark by their names, where a recording had any: readings know them by number."""

from msgspec.structs import replace

from wheeltap.plans.plan import Names
from wheeltap.suites.lens.record import LensRecord


def named(lens: LensRecord, names: Names | None) -> LensRecord:
    """The same with names in place of numbers; what has none stays as it is."""
    if names is None:
        return lens
    groups = {str(at): name or "(none)" for at, name in enumerate(names.groups)}
    supports = [
        replace(one, items=tuple(replace(kept, id=names.items[kept.item]) for kept in one.items) if names.items
                else one.items)
        for one in lens.supports
    ]  # fmt: skip
    return replace(
        lens,
        curves=tuple(replace(one, group=groups.get(one.group, one.group)) for one in lens.curves),
        gaps=tuple(replace(one, group=groups.get(one.group, one.group)) for one in lens.gaps),
        supports=tuple(replace(one, group=groups.get(one.group, one.group)) for one in supports),
    )
