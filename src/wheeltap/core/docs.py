"""What docstrings say of the arguments of a function, or of the attributes of a class."""

import inspect
import re


def described(doc: str | None, section: str) -> dict[str, str]:
    """The lines of a section by name, each as one line.

    Args:
        doc: A docstring, in Google's form.
        section: Its heading: ``Args`` or ``Attributes``.
    """
    _, _, after = inspect.cleandoc(doc or "").partition(f"{section}:\n")
    listed = re.split(r"\n(?=\S)", after)[0]
    parts = re.split(r"\n    (?=\w+: )", f"\n{listed}")[1:]
    return {name: " ".join(text.split()) for name, _, text in (part.partition(": ") for part in parts)}
