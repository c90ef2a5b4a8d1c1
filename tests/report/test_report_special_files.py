"""A pipe or a device is written to, and stays what it is."""

import os
import stat
import threading
from pathlib import Path

from wheeltap.report import files


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    files.write(pipe, b"{}\n")
    reader.join(timeout=10)
    assert got == [b"{}\n"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
