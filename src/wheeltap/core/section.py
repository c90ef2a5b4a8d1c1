"""Sections: what a report shows beside its findings, as typed blocks that one renderer a format draws."""

from typing import Any

import msgspec


class Data(msgspec.Struct, frozen=True, kw_only=True, tag="data"):
    """What a suite draws itself.

    Attributes:
        name: Of its drawing.
        value: What is drawn, as JSON.
    """

    name: str
    value: Any


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to show: audits and studies make it, every renderer draws it.

    Attributes:
        title: Its heading.
        says: What it shows, in a sentence or two.
        subject: The model or pair that it is about; empty where it is about all.
        brief: How the answer names what it shows, in a few words; empty where the answer does not.
        blocks: What it is made of.
    """

    title: str
    says: str = ""
    subject: str = ""
    brief: str = ""
    blocks: tuple[Data, ...] = ()
