"""``python -m wheeltap``."""

from wheeltap.cli import entry

if __name__ == "__main__":
    entry()
