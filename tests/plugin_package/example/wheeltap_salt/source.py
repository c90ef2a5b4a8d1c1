"""Sources: a model and examples, each by a name of their own."""

from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.sources import digits
from wheeltap.sources.base import DataSource, ExampleReader, LoadedModel, ModelSource


class SeededDigits(ModelSource):
    """The net of ``digits``, trained from another seed: ``wheeltap audit seeded-digits:7``."""

    form = "seeded-digits:SEED"
    title = "A small net trained on handwritten digits from this seed."

    def load(self, rest: str, *, name: str) -> LoadedModel:
        """The net, with the examples that it brings."""
        return LoadedModel(Subject(digits.train(int(rest)), name=name), digits.task)


class InvertedDigits(DataSource):
    """Light ink on dark paper: ``wheeltap audit digits --data inverted-digits``."""

    form = "inverted-digits"
    title = "Handwritten digits, light on dark."

    def load(self, rest: str, reader: ExampleReader) -> BaseTask:
        """The test split; a source of texts would ask for ``reader.tokenizer``."""
        data = digits.split()
        return Task(1.0 - data.test_inputs, data.test_targets, name=self.form)
