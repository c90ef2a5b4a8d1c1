"""The manual in the wheel: pages, where ``sphinx-build docs src/wheeltap/manual`` ran before; else its text."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TEXT = ("docs", "examples", "CONTRIBUTING.md")
"""What the pages are made of, in places as in a checkout."""


class Manual(BuildHookInterface):
    """Puts the text of the manual into a wheel that has no pages."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds files to a wheel that is built; an editable one has the checkout."""
        if version == "standard" and not Path(self.root, "src/wheeltap/manual/README.html").is_file():
            build_data["force_include"] |= {str(Path(self.root, name)): f"wheeltap/manual/{name}" for name in TEXT}
