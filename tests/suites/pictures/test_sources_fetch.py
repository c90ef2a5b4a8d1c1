"""Fetching the published genomes, from a real server on this machine."""

import hashlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from published import DATA, needs_data
from published import NAMES as REAL
from wheeltap.core.errors import FileFormatError, MissingFile, UnknownName, UsageError
from wheeltap.suites.pictures.sources.genomes import BASE, PUBLISHED, PublishedGenome, fetch, read_genome


class Server(ThreadingHTTPServer):
    """Answers with what it was given: by path, a status and a body."""

    answers: dict[str, tuple[int, bytes]]
    asked: list[str]
    cut_off: threading.Event
    meanwhile: Callable[[], object]


class Answering(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.meanwhile()
        status, body = self.server.answers.get(self.path, (404, b"no such file"))
        self.send_response(status)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.server.cut_off.set()  # the other side has read enough

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of this machine is not asked for what is on it."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Answering)
    server.answers, server.asked, server.cut_off = {}, [], threading.Event()
    server.meanwhile = lambda: None
    if DATA.is_dir():
        server.answers = {f"/files/{name}.zip": (200, (DATA / f"{name}.zip").read_bytes()) for name in REAL}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def base(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/files"


@needs_data
def test_the_files_come_whole_and_are_genomes(server: Server, tmp_path: Path) -> None:
    paths = fetch(tmp_path / "new" / "folder", names=REAL, base=base(server))
    assert [path.name for path in paths] == ["skull.zip", "butterfly.zip"]
    assert [path.read_bytes() for path in paths] == [(DATA / path.name).read_bytes() for path in paths]
    assert [len(read_genome(path).links) for path in paths] == [59, 108]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["butterfly.zip", "skull.zip"]
    assert fetch(tmp_path / "new" / "folder", names=REAL, base=base(server)) == paths
    assert server.asked == ["/files/skull.zip", "/files/butterfly.zip"], "what is there is not asked for again"
    for name in REAL:
        assert PUBLISHED[name].is_in((DATA / f"{name}.zip").read_bytes()) and len(PUBLISHED[name].sha256) == 64
    assert BASE.startswith("https://raw.githubusercontent.com/akarshkumar0101/fer/")


@needs_data
def test_another_file_of_that_name_stays_and_nothing_is_asked(server: Server, tmp_path: Path) -> None:
    for mine in (b"my own skull", (DATA / "skull.zip").read_bytes()[:-1] + b"?", b"x" * 10_000):
        (tmp_path / "skull.zip").write_bytes(mine)
        with pytest.raises(FileFormatError, match="left as it is"):
            fetch(tmp_path, names=REAL, base=base(server))
        assert (tmp_path / "skull.zip").read_bytes() == mine
    assert server.asked == []
    assert [path.name for path in tmp_path.iterdir()] == ["skull.zip"]


@needs_data
def test_a_file_that_appears_while_it_is_fetched_stays(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "skull.zip"
    server.meanwhile = lambda: path.write_bytes(b"my own skull")
    with pytest.raises(FileFormatError, match="left as it is"):
        fetch(tmp_path, names=["skull"], base=base(server))
    assert path.read_bytes() == b"my own skull"
    path.unlink()
    server.meanwhile = lambda: path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(MissingFile, match="--out"):
        fetch(tmp_path, names=["skull"], base=base(server))
    assert [file.name for file in tmp_path.iterdir()] == ["skull.zip"]  # nothing was written through the link
    path.unlink()
    # The same file, as another fetch would bring it.
    server.meanwhile = lambda: path.write_bytes((DATA / "skull.zip").read_bytes())
    assert fetch(tmp_path, names=["skull"], base=base(server)) == [path]
    assert server.asked == ["/files/skull.zip"] * 3


LIMITED = """
import resource, sys
from wheeltap.core.errors import UsageError
from wheeltap.suites.pictures.sources.genomes import fetch
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    fetch(sys.argv[1], names=["skull"], base=sys.argv[2])
except UsageError as error:
    print(error.got)
"""


@needs_data
def test_where_there_is_no_room_for_all_of_it_nothing_is_left(server: Server, tmp_path: Path) -> None:
    run = [sys.executable, "-c", LIMITED, str(tmp_path), base(server)]
    said = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert "File too large" in said
    assert list(tmp_path.iterdir()) == []


@needs_data
def test_other_bytes_are_refused_and_leave_nothing(server: Server, tmp_path: Path) -> None:
    real = (DATA / "skull.zip").read_bytes()
    one_off = real[:100] + bytes([real[100] ^ 1]) + real[101:]
    for other in (one_off, real[:-1], real + b"\0", b"", b"<html>please log in</html>"):
        server.answers["/files/skull.zip"] = (200, other)
        with pytest.raises(FileFormatError, match="nothing was written"):
            fetch(tmp_path, names=["skull"], base=base(server))
    assert list(tmp_path.iterdir()) == []


def test_no_more_is_read_than_the_file_can_have(server: Server, tmp_path: Path) -> None:
    server.answers["/files/skull.zip"] = (200, b"\0" * 50_000_000)
    with pytest.raises(FileFormatError, match=r"more than 1,817 bytes"):
        fetch(tmp_path, names=["skull"], base=base(server))
    assert server.cut_off.wait(10.0)


def test_a_refusal_of_the_server_is_passed_on(server: Server, tmp_path: Path) -> None:
    for status in (403, 500):
        server.answers["/files/apple.zip"] = (status, b"")
        with pytest.raises(MissingFile, match=f"HTTP Error {status}") as caught:
            fetch(tmp_path, names=["apple"], base=base(server))
        assert "picbreeder_genomes/apple.zip" in str(caught.value)


def test_an_address_without_a_web_server(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(MissingFile, match=r"(?i)refused"):
        fetch(tmp_path, base=f"http://127.0.0.1:{port}")
    for address in ("https://", "https://127.0.0.1:port", "https://127.0.0.1/a b"):
        with pytest.raises(MissingFile, match="could not be fetched"):
            fetch(tmp_path, names=["skull"], base=address)
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(MissingFile, match="could not be fetched"):
            fetch(tmp_path, base=f"http://127.0.0.1:{other.getsockname()[1]}")
        thread.join()


def test_an_unknown_genome_is_refused_before_anything_is_asked(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="skull"):
        fetch(tmp_path, names=["skull", "skul"], base=base(server))
    assert server.asked == []


@needs_data
def test_a_folder_that_cannot_be_one(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="--out"):
        fetch(tmp_path / "file", names=["skull"], base=base(server))
    (tmp_path / "skull.zip").mkdir()
    with pytest.raises(MissingFile, match="--out"):
        fetch(tmp_path, names=["skull"], base=base(server))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "skull.zip"]


def test_where_only_the_first_digits_are_known_the_length_counts_too() -> None:
    data = b"some bytes"
    known = PublishedGenome("some", len(data), hashlib.sha256(data).hexdigest()[:8])
    assert [known.is_in(some) for some in (data, data + b"!", b"other byte")] == [True, False, False]
