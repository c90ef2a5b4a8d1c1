"""What the page of a picture study shows beside its numbers: pictures, feature maps, strips, and nets to explore."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from wheeltap.fer import drawings
from wheeltap.fer.cast import UNTRAINED, Cast, called
from wheeltap.fer.judge import decibels
from wheeltap.fer.measures import Sampling, Sight, swept
from wheeltap.fer.procedures import Swept
from wheeltap.models.cppn import Cppn
from wheeltap.models.pictures import Picture
from wheeltap.report.explorer import DrawnNet
from wheeltap.report.fer import NetPicture, Sweep

SWEPT: Final = 5
"""Weights of each net shown as strips, beside the named ones."""

NAMED: Final = 6
"""Named weights shown as strips, at most."""

STEPS: Final = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Of a strip, as shares of the change that has the wanted effect."""


def pictures(cast: Cast, picture: Picture) -> tuple[NetPicture, ...]:
    """What every net draws, and the feature maps of one net of each sort."""
    target = picture.genome.render(drawings.PICTURE)
    own = NetPicture(name=cast.name, cohort=cast.name, picture=drawings.picture(cast.own), maps=drawings.maps(cast.own))
    found, shown = [own], (cast.trained[0][0], called(UNTRAINED, 0))
    for kind, made in cast.kinds.items():
        for at, (net, status) in enumerate(zip(made.nets, made.status, strict=True)):
            error = float(np.square(net.render(drawings.PICTURE) - target).mean())
            drawn = NetPicture(
                name=called(kind, at),
                cohort=kind,
                picture=drawings.picture(net),
                maps=drawings.maps(net) if called(kind, at) in shown else b"",
                error=error,
                psnr=decibels(error) if error > 0.0 else None,
                status=status,
            )
            found.append(drawn)
    return tuple(found)


def explored(cast: Cast, picture: Picture) -> tuple[DrawnNet, ...]:
    """The net under study and the first trained one, for the explorer."""
    (name, first), layout = cast.trained[0], cast.own.layout
    labels = {",".join(map(str, layout.address(at))): label for at, label in picture.genome.factors().items()}
    links = tuple(layout.address(int(at)) for at in cast.own.links())
    return (
        DrawnNet(name=cast.name, arch=cast.own.arch, weights=tuple(cast.own.kernels()), labels=labels, links=links),
        DrawnNet(name=name, arch=first.arch, weights=tuple(first.kernels()), fold=first.fold),
    )


def sweeps(cast: Cast, picture: Picture, sight: Sight, *, sampling: Sampling) -> tuple[Sweep, ...]:
    """Strips of both nets of the explorer: named weights, and weights at even steps of the symmetry of response."""
    own = _Shown(cast.name, cast.own, swept(cast.own, sight, sampling), picture.genome.factors())
    name, first = cast.trained[0]
    trained = _Shown(name, first, swept(first, sight, sampling), {})
    return tuple(net.strip(row, symmetric=sight.symmetry is not None) for net in (own, trained) for row in net.rows())


@final
@dataclass(frozen=True, eq=False)
class _Shown:
    """A net whose weights were moved, and the names that some have."""

    name: str
    net: Cppn
    result: Swept
    factors: Mapping[int, str]

    def rows(self) -> list[int]:
        """The named weights, then weights at even steps from the least to the most symmetric response."""
        upwards = np.flatnonzero(self.result.reached[:, 0])
        ranked = upwards[np.argsort(self.result.responses.symmetry[upwards, 0], kind="stable")]
        steps = np.linspace(0, len(ranked) - 1, min(SWEPT, len(ranked))).round().astype(int)
        named = [int(row) for row in upwards if int(self.result.moves.ids[row]) in self.factors][:NAMED]
        return list(dict.fromkeys([*named, *(int(ranked[at]) for at in steps)]))

    def strip(self, row: int, *, symmetric: bool) -> Sweep:
        flat_id, found = int(self.result.moves.ids[row]), self.result.responses
        place = self.net.layout.address(flat_id)
        steps = tuple(float(share * found.delta[row, 0]) for share in STEPS)
        label = f"weight {flat_id} ({place[0]}: {place[1]} to {place[2]})"
        return Sweep(
            net=self.name,
            weight=f"{self.factors[flat_id]}, {label}" if flat_id in self.factors else label,
            steps=steps,
            strip=drawings.strip(self.net, weight=place, steps=steps),
            effect=float(found.rmse[row, 0]),
            symmetry=float(found.symmetry[row, 0]) if symmetric else None,
        )
