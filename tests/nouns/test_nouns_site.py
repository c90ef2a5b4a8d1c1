"""A site names exactly the weights that it covers."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from wheeltap.core.site import WHOLE, Site

PATHS = st.lists(st.from_regex(r"[a-z0-9_]{1,6}", fullmatch=True), max_size=4).map(".".join)
INDEX = st.integers(0, 10**7)


@given(PATHS, INDEX, INDEX)
def test_a_single_weight_tells_its_layer_and_place(path: str, row: int, column: int) -> None:
    site = Site.weight(path, row=row, column=column)
    assert (site.kind, site.layer, site.position) == ("weight", path, (row, column))
    assert str(site) == f"{path}[{row},{column}]"
    assert msgspec.json.decode(msgspec.json.encode(site), type=Site) == site


def test_a_single_weight_covers_its_own_layer_alone_and_other_sites_have_no_place() -> None:
    site, names = (
        Site.weight("blocks.1.up", row=3, column=4),
        ("blocks.1", "blocks.1.up.inner", "blocks.11.up", "up", ""),
    )
    assert site.covers("blocks.1.up") and not any(site.covers(name) for name in names)
    sites = {Site.weight("a", row=row, column=column) for row in range(3) for column in range(3)}
    assert len(sites) == 9 and len({str(site) for site in sites}) == 9
    for other in (WHOLE, Site("layer", "a[1,2]"), Site("block", "a"), Site("weight", "a"), Site("weight", "a[1]")):
        assert other.position is None
