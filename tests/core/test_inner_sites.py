"""Sites of the whole model but some layers."""

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


def test_what_is_below_a_spared_layer_is_covered() -> None:
    site = Site.without(["lm_head", "embed"])
    assert site == Site("inner", "embed,lm_head")
    assert [name for name in ("embed", "embed.more", "lm", "head", "") if site.covers(name)] == [
        "embed.more", "lm", "head", "",
    ]  # fmt: skip
    assert str(site) == "all but embed, lm_head"


def test_without_none_is_the_whole() -> None:
    assert Site.without(()) is WHOLE
    assert WHOLE.spared == set() and WHOLE.everywhere
    assert not any(
        site.everywhere for site in (Site("block", "a"), Site("layer", "a"), Site.weight("a", row=0, column=0))
    )


def test_it_is_another_trial_than_the_whole() -> None:
    common = {"subject": "a", "task": "b", "measures": (), "perturbation": "quantize", "version": 1}
    keys = {Trial(**common, site=site).key for site in (WHOLE, Site.without(["a"]), Site.without(["a", "b"]))}
    assert len(keys) == 3


def test_a_comma_in_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match="comma"):
        Site.without(["a", "b,c"])
