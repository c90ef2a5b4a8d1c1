"""Genomes from XML and zip files: the published ones to the bit, and everything else a stranger may hand over."""

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from published import ARCH, DATA, DECODED, NAMES, needs_data, parameters, png
from wheeltap.core.errors import DataError, FileFormatError, MissingFile, UnknownName, WheeltapError
from wheeltap.models.cppn import grid
from wheeltap.suites.pictures.sources.genomes import parse_genome, read_genome

HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n'
INPUTS = [("in", label, "identity") for label in ("x", "y", "d", "bias")]
COLOURS = [("out", label, "sin") for label in ("hue", "saturation", "brightness")]
GREY = [("out", "ink", "gaussian")]


def xml(nodes: list[tuple[str, str, str]], links: list[tuple[int, int, str]], *, root: str = "data") -> str:
    """A genome: nodes by type, label and activation, links by the places of their nodes."""
    rows = [
        f'<node type="{kind}" label="{label}"><marking branch="b" id="{at}"/><activation>{name}(x)</activation></node>'
        for at, (kind, label, name) in enumerate(nodes)
    ]
    ends = [
        f'<link><marking branch="b" id="{at}"/><source branch="b" id="{one}"/><target branch="b" id="{other}"/>'
        f"<weight>{weight}</weight></link>"
        for at, (one, other, weight) in enumerate(links, len(nodes))
    ]
    inside = f"<genome><nodes>{''.join(rows)}</nodes><links>{''.join(ends)}</links></genome>"
    return HEAD + (inside if root == "genome" else f'<data version="1.0">{inside}</data>')


FED = [(0, 4, "1.0"), (1, 5, "-0.5"), (2, 6, "2.25")]
GOOD = xml([*INPUTS, *COLOURS], FED)


def zipped(data: bytes, *, name: str = "a", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr(name, data)
    return stream.getvalue()


def refused(folder: Path, data: bytes, *, kind: type[WheeltapError] = FileFormatError) -> WheeltapError:
    """The error of a file of these bytes, which says where it is."""
    path = folder / "stranger.zip"
    path.write_bytes(data)
    with pytest.raises(kind) as caught:
        read_genome(path)
    assert str(path) in str(caught.value) or kind is UnknownName
    return caught.value


# The published genomes


@needs_data
@pytest.mark.parametrize(("name", "nodes", "links"), [("skull", 25, 59), ("butterfly", 34, 108)])
def test_published_genomes_become_the_published_parameters_to_the_bit(name: str, nodes: int, links: int) -> None:
    genome = read_genome(DATA / f"{name}.zip")
    net = genome.layerize()
    assert (len(genome.nodes), len(genome.links)) == (nodes, links)
    assert net.arch == ARCH[name]
    assert np.array_equal(net.flat_parameters(), parameters(name, "pb"))
    assert len(net.links()) == {"skull": 57, "butterfly": 104}[name]
    if name == "butterfly":  # ids alone would not tell its nodes apart
        assert len({str(node.key[1]) for node in genome.nodes if isinstance(node.key, tuple)}) == 33
    for number, address in DECODED[name].items():
        assert net.layout.address(number) == address[:3]


@needs_data
@pytest.mark.parametrize("name", NAMES)
def test_published_genomes_draw_the_published_pictures(name: str) -> None:
    genome = read_genome(DATA / f"{name}.zip")
    assert np.abs(genome.render(256) - png(f"picbreeder_{name}")).mean() < 0.004
    inputs = grid(128)
    with torch.no_grad():
        assert float((genome.layerize().hsv(inputs) - genome.evaluate(inputs)).abs().max()) < 1e-4


# Forms of a genome


FORMS = {
    "byte order mark": GOOD.encode("utf-8-sig"),
    "UTF-16": GOOD.replace("UTF-8", "UTF-16").encode("utf-16"),
    "Latin 1": GOOD.replace("UTF-8", "ISO-8859-1").encode("latin-1"),
    "no declaration": GOOD.removeprefix(HEAD).encode(),
    "lines and tabs": GOOD.replace("><", ">\r\n\t<").encode(),
    "more": GOOD.replace("<genome>", '<genome age="3"><!-- by me --><identifier branch="1" id="2"/>').encode(),
}


def test_the_same_genome_in_another_form_is_the_same() -> None:
    good = parse_genome(GOOD.encode())
    for what, data in FORMS.items():
        assert parse_genome(data).links == good.links, what
    root = parse_genome(xml([*INPUTS, *COLOURS], FED, root="genome").encode())
    assert (good.nodes, good.links) == (root.nodes, root.links)


def test_a_grey_genome_has_its_ink_as_brightness_and_no_colour() -> None:
    genome = parse_genome(xml([*INPUTS, *GREY], [(0, 4, "1.5")]).encode())
    hsv = genome.evaluate(grid(8))
    assert hsv[:, :2].abs().max() == 0.0
    assert torch.allclose(hsv[:, 2], 2 * torch.exp(-((1.5 * grid(8)[:, 0].double()) ** 2)) - 1)
    picture = genome.render(8)
    assert np.array_equal(picture[:, :, 0], picture[:, :, 1])


# What is not a genome


LAUGHS = '<!DOCTYPE data [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(10)
)


def change(text: str, old: str, new: str) -> bytes:
    assert old in text
    return text.replace(old, new, 1).encode()


PROLOGS = (
    "<!DOCTYPE data>",
    '<!DOCTYPE data SYSTEM "http://192.0.2.1/genome.dtd">',
    f"{LAUGHS}]>",
    '<!DOCTYPE data [<!ENTITY k SYSTEM "file:///etc/passwd">]>',
    '<!DOCTYPE data [<!ENTITY % k SYSTEM "http://192.0.2.1/x">%k;]>',
)
NO_GENOMES: list[bytes] = [
    b"", b"\0" * 100, b"a skull", b"<data><genome>", b"<data/>\n<data/>", b"\x89PNG\r\n\x1a\n",
    GOOD.encode("utf-16"), GOOD.replace("UTF-8", "UTF-13").encode(),
    GOOD.replace("bias", "bi\xe4s").encode("latin-1"), b"<html><body/></html>", b"<data><genome/></data>",
    xml([*INPUTS, *COLOURS], []).encode(), change(GOOD, "-0.5", "half"), change(GOOD, "-0.5", "0x10"),
    change(GOOD, "-0.5", ""), change(GOOD, "<weight>-0.5</weight>", ""),
    change(GOOD, 'source branch="b" ', "source "), change(GOOD, 'marking branch="b" id="0"', 'marking branch="b"'),
    change(GOOD, '<target branch="b" id="5"/>', ""), change(GOOD, "<activation>sin(x)</activation>", ""),
    change(GOOD, 'type="out"', 'type="output"'), change(GOOD, 'type="out"', ""),
]  # fmt: skip
UNSOUND: list[str] = [  # of all that a genome refuses (see test_pictures_nets), what a file can hold
    xml([*INPUTS, *COLOURS[:2]], FED[:2]), xml([*INPUTS, *GREY, *GREY], [(0, 4, "1")]),
    xml([*INPUTS, *COLOURS, *GREY], FED), xml([*INPUTS, *COLOURS], [*FED, (4, 5, "1"), (5, 4, "1")]),
    xml([*INPUTS, *COLOURS], [*FED, (0, 4, "NaN")]), xml([*INPUTS, *COLOURS], [*FED, (0, 4, "-1e999")]),
    GOOD.replace('id="6"', 'id="5"', 1),
]  # fmt: skip


def test_what_is_no_genome_is_refused(tmp_path: Path) -> None:
    for data in NO_GENOMES:
        refused(tmp_path, data)
    for text in UNSOUND:
        refused(tmp_path, text.encode(), kind=DataError)
    for prolog in PROLOGS:
        text = GOOD.replace(HEAD, HEAD + prolog).replace("-0.5", "&k;")
        for data in (text.encode(), zipped(text.encode())):
            assert refused(tmp_path, data).expected == "plain XML"
    assert "'sine'" in str(refused(tmp_path, change(GOOD, "sin(x)", "sine(x)"), kind=UnknownName))
    for path in (tmp_path / "nothing.zip", tmp_path):
        with pytest.raises(MissingFile):
            read_genome(path)


# Zip files


def test_a_zip_file_has_one_member(tmp_path: Path) -> None:
    empty, two = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(empty, "w"):
        pass
    with zipfile.ZipFile(two, "w") as archive:
        archive.mkdir("folder")
        for name in ("a", "b"):
            archive.writestr(name, GOOD)
    refused(tmp_path, empty.getvalue())
    refused(tmp_path, two.getvalue())


def test_a_zip_file_that_is_not_as_it_should_be_is_refused(tmp_path: Path) -> None:
    for name in ("../a", "a/../../b", "/etc/passwd", "..\\a", "C:\\a", "\\\\host\\a"):
        refused(tmp_path, zipped(GOOD.encode(), name=name))
    assert [path.name for path in tmp_path.iterdir()] == ["stranger.zip"]
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        refused(tmp_path, zipped(GOOD.encode(), method=method))
    data = zipped(GOOD.encode())
    for length in (2, 3, 10, 30, len(data) // 2, len(data) - 1):
        refused(tmp_path, data[:length])
    encrypted = bytearray(data)
    encrypted[6] |= 1
    encrypted[data.index(b"PK\x01\x02") + 8] |= 1
    refused(tmp_path, bytes(encrypted))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=4), st.booleans())
def test_a_damaged_file_never_gives_another_kind_of_error(
    tmp_path: Path, hits: list[tuple[int, int]], packed: bool
) -> None:
    data = bytearray(zipped(GOOD.encode()) if packed else GOOD.encode())
    for place, value in hits:
        data[place % len(data)] ^= value
    (tmp_path / "damaged.zip").write_bytes(data)
    try:
        read_genome(tmp_path / "damaged.zip")
    except WheeltapError:
        return


# Bombs


def test_a_bomb_is_refused_without_its_memory(tmp_path: Path) -> None:
    bomb = zipped(b"\0" * 100_000_000)
    tracemalloc.start()
    refused(tmp_path, bomb)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20 * 2**20
    lying = bytearray(zipped(b" " * 10_000_000 + GOOD.encode()))
    entry = lying.index(b"PK\x01\x02")
    lying[22:26] = lying[entry + 24 : entry + 28] = struct.pack("<I", 500)
    refused(tmp_path, bytes(lying))
    refused(tmp_path, b" " * 4_194_305)


@pytest.mark.parametrize(
    "text",
    [
        "<data>" + "<a>" * 100_000 + "</a>" * 100_000 + "</data>",
        "<data><genome><nodes>" + "<node/>" * 1_000_000 + "</nodes></genome></data>",
        "<data><genome><nodes>" + "<node/>" * 5_001 + "</nodes></genome></data>",
    ],
    ids=["deep", "a million nodes", "a node too many"],
)
def test_floods_of_elements_are_refused(tmp_path: Path, text: str) -> None:
    refused(tmp_path, zipped(text.encode()))
