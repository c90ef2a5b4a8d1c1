"""Sites: which layers they cover."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wheeltap.core.errors import UsageError
from wheeltap.core.records import Trial
from wheeltap.core.site import WHOLE, Site

PARTS = st.lists(st.sampled_from(["a", "ab", "0", "10"]), min_size=1, max_size=3)


@given(PARTS, PARTS)
def test_blocks_and_layers_cover_what_lies_below_them(site: list[str], layer: list[str]) -> None:
    one, two = ".".join(site), ".".join(layer)
    assert WHOLE.covers(two)
    assert Site("block", one).covers(two) == (layer[: len(site)] == site)
    assert Site("layer", one).covers(two) == (layer == site)
    assert (str(Site("block", one)), str(WHOLE)) == (one, "whole")


def test_what_is_below_a_spared_layer_is_covered_and_without_none_is_the_whole() -> None:
    site = Site.without(["lm_head", "embed"])
    assert site == Site("inner", "embed,lm_head") and str(site) == "all but embed, lm_head"
    covered = [name for name in ("embed", "embed.more", "lm", "head", "") if site.covers(name)]
    assert covered == ["embed.more", "lm", "head", ""]
    assert Site.without(()) is WHOLE
    assert WHOLE.spared == set() and WHOLE.everywhere
    others = (Site("block", "a"), Site("layer", "a"), Site.weight("a", row=0, column=0))
    assert not any(site.everywhere for site in others)
    common = {"subject": "a", "task": "b", "measures": (), "perturbation": "quantize", "version": 1}
    assert len({Trial(**common, site=site).key for site in (WHOLE, Site.without(["a"]), Site.without(["a", "b"]))}) == 3
    with pytest.raises(UsageError, match="comma"):
        Site.without(["a", "b,c"])


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
