"""The reading behind the pages of dictionaries: features, their top examples, and what each does when it is removed."""

from typing import Any, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.readings.base import Readings
from wheeltap.suites.dictionaries import specs
from wheeltap.suites.dictionaries.readings import EntryReading
from wheeltap.suites.dictionaries.sources import AttributeWords


@final
class DictionaryView(EntryReading):
    """Removes each of the features that add most to reconstructions, and names the examples where it is most active."""

    spec = specs.DICTIONARY_VIEW

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; a pass over its examples for each feature."""
        bench, (one,), found = self.opened(subject, task)
        vectors = bench.vectors
        codes = bench.codes(one, vectors)
        atoms, length = one.W_dec, one.normalized(vectors)[1].expand(len(vectors), 1)
        size = codes.square().sum(0) * atoms.square().sum(1)
        shown = size.argsort(descending=True, stable=True)[: min(specs.SHOWN, int((size > 0).sum()))]
        top = min(specs.TOP, len(codes))
        order = codes[:, shown].T.argsort(dim=1, descending=True, stable=True)[:, :top]
        answers, margins = bench.clean.argmax(1), bench.margins(bench.clean)
        lost, changed = list[float](), list[float]()
        for feature in shown:
            rows = (codes[:, feature] != 0).nonzero()[:, 0].cpu()
            gone = codes[rows, feature][:, None] * atoms[feature] * length[rows]
            scores = bench.clean.clone()
            scores[rows] = bench.exchanged(vectors[rows] - gone, rows).to(scores)
            lost.append(float((margins - bench.margins(scores))[rows].mean()))
            changed.append(float((scores.argmax(1) != answers)[rows].float().mean()))
        wording = task.annotation(AttributeWords)
        numbers: NDArray[Any] = order.cpu().numpy()
        said = [f"example {at}" for at in range(len(codes))] if wording is None else wording.texts
        says: list[list[str]] = [[said[int(at)] for at in row] for row in numbers]
        found |= {
            "features": shown.cpu().numpy(), "frequency": (codes[:, shown] != 0).float().mean(0).cpu().numpy(),
            "examples": numbers, "codes": codes[:, shown].T.gather(1, order).cpu().numpy(),
            "lost": np.array(lost), "changed": np.array(changed),
            "texts": np.frombuffer(msgspec.json.encode(says), dtype=np.uint8),
        }  # fmt: skip
        return Readings(found, bench.forwards)
