"""Sites: which layers they cover."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wheeltap.core.errors import UsageError
from wheeltap.core.records import Trial
from wheeltap.core.site import WHOLE, Site

PATHS = st.lists(st.from_regex(r"[a-z0-9_]{1,6}", fullmatch=True), max_size=4).map(".".join)


@given(st.lists(PATHS, min_size=1, max_size=4), PATHS)
def test_all_layers_but_the_named_ones_are_covered(names: list[str], other: str) -> None:
    site = Site.without(names)
    assert site.everywhere
    assert site.spared == set(names)
    assert not any(site.covers(name) for name in names)
    assert site.covers(other) == (other not in names)
    assert Site.without([*reversed(names), names[0]]) == site, "in whatever order, and however often"
    assert msgspec.json.decode(msgspec.json.encode(site), type=Site) == site


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
