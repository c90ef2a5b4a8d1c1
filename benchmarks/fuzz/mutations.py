"""What is done to sound files: values swapped for others, lengths that lie, keys twice, cuts, flips, deep lists."""

import io
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from random import Random

Mutate = Callable[[bytes, Random], bytes]

_TOKEN = re.compile(rb"""
    "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*'                      # texts
    | -?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?                          # numbers
    | \b(?:true|false|null|True|False|None)\b
""", re.VERBOSE)  # fmt: skip
_PAIR = re.compile(rb'"[\w. -]+"\s*:\s*(?:"[^"]*"|[-\w.]+)|^[\w.]+ = .*$', re.MULTILINE)

EXTREME = (
    b"0", b"-1", b"1", b"2", b"0.5", b"1e999", b"-1e999", b"NaN", b"Infinity", b"-Infinity", b"nan", b"inf", b"1e-320",
    b"9" * 400, b"1" + b"0" * 18, b"2147483648", b"9223372036854775808", b"-9223372036854775809", b"100000000",
    b"65536", b"1000000", b'""', b'"x"', b'"1"', b'"-1"', b"'x'", b'"\\u0000\\u001b[2J\\u202e"', b'"\\ud800"',
    b'"../../etc/passwd"', b'"' + b"n" * 5000 + b'"', "\"\u00e9\u202e\u0661\"".encode(), b"null", b"None", b"true",
    b"True", b"[]", b"{}", b"()", b"[[]]", b"[1, 2, 3]", b'{"a": 1}', b"[null]", b'["x", "x"]', b"\xff\xfe", b"",
    b"[" * 200 + b"]" * 200, b"[" * 100_000, b"[" * 3000 + b"]" * 3000, b'{"a":' * 2000 + b"1" + b"}" * 2000,
    b"(" * 5000, b"-" * 5000 + b"1",
)  # fmt: skip
_NUMBERS, _TEXTS = (
    tuple(
        one
        for one in EXTREME
        if bool(re.fullmatch(rb"-?[\d.e+-]+|-?inf|nan|-?Infinity|NaN", one, re.IGNORECASE)) is kind
    )
    for kind in (True, False)
)
_TEXTS = tuple(one for one in _TEXTS if one[:1] in b"\"'")
_COUNTS = (0, 1, 2, 255, 2**15, 2**16 - 1, 10**6, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1)


def swapped(data: bytes, random: Random) -> bytes:
    """A value of a text made another one."""
    found = list(_TOKEN.finditer(data))
    if not found:
        return flipped(data, random)
    for one in sorted(random.sample(found, min(random.choice((1, 1, 1, 2, 5)), len(found))), key=lambda m: -m.start()):
        data = data[: one.start()] + _other(one[0], found, random) + data[one.end() :]
    return data


def _other(token: bytes, found: list[re.Match[bytes]], random: Random) -> bytes:
    """Another value: of the same kind, of another place, or any."""
    kind = random.random()
    if kind < 0.4:
        return random.choice(_TEXTS if token[:1] in b"\"'" else _NUMBERS)
    return random.choice(found)[0] if kind < 0.6 else random.choice(EXTREME)


def doubled(data: bytes, random: Random) -> bytes:
    """A key with its value a second time, with another value, or away."""
    found = list(_PAIR.finditer(data))
    if not found:
        return cut(data, random)
    one, other = random.choice(found), random.choice(found)
    if random.random() < 0.3:
        return data[: one.start()] + data[one.end() :].lstrip(b", ")
    between = b"\n" if one[0][:1] != b'"' else b", "
    return data[: one.start()] + swapped(other[0], random) + between + data[one.start() :]


def cut(data: bytes, random: Random) -> bytes:
    """The beginning alone, the end alone, or without a piece."""
    a, b = sorted((random.randint(0, len(data)), random.randint(0, len(data))))
    return random.choice((data[:a], data[b:], data[:a] + data[b:], data[:b] + data[a:]))


def flipped(data: bytes, random: Random) -> bytes:
    """A few bytes made others."""
    made = bytearray(data)
    for _ in range(random.choice((1, 2, 8)) if made else 0):
        made[random.randrange(len(made))] = random.choice((0, 0xFF, 0x1B, random.randrange(256)))
    return bytes(made)


def counted(data: bytes, random: Random) -> bytes:
    """A binary number made a count that lies; most often near the beginning, where headers are."""
    width = random.choice(("<B", "<H", "<I", "<Q", "<I", "<Q"))
    size = struct.calcsize(width)
    if len(data) <= size:
        return data
    end = len(data) - size if random.random() < 0.3 else min(len(data) - size, 400)
    at = random.randint(0, end)
    return data[:at] + struct.pack(width, random.choice(_COUNTS) % 2 ** (8 * size)) + data[at + size :]


def text(data: bytes, random: Random) -> bytes:
    """A text format."""
    return random.choice((swapped, swapped, swapped, swapped, doubled, cut, flipped))(data, random)


def binary(data: bytes, random: Random) -> bytes:
    """A binary format."""
    return random.choice((counted, counted, counted, swapped, cut, flipped))(data, random)


def tensors(data: bytes, random: Random) -> bytes:
    """A safetensors file: its header as text, whose length is then right or lies."""
    length = int.from_bytes(data[:8], "little")
    if random.random() < 0.2:
        return binary(data, random)
    header = text(data[8 : 8 + length], random)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def arrays(data: bytes, random: Random) -> bytes:
    """A file of arrays: the header of one of them, its bytes, the names, or the archive."""
    if random.random() < 0.2:
        return binary(data, random)
    made = io.BytesIO()
    how = random.choice((0, 8, 8, 12, 14))
    with warnings.catch_warnings(), zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w", how) as new:
        warnings.simplefilter("ignore", UserWarning)  # of names that stand twice, as they are meant to
        names = old.namelist()
        chosen = random.choice(names)
        for name in names:
            held = old.read(name)
            if name == chosen:
                length = int.from_bytes(held[8:10], "little")
                head, rest = held[10 : 10 + length], held[10 + length :]
                head = text(head, random) if random.random() < 0.8 else head
                head = _shaped(head, random) if random.random() < 0.3 else head
                rest = binary(rest, random) if random.random() < 0.3 else rest
                held = held[:8] + struct.pack("<H", len(head) % 2**16) + head + rest
            renamed = random.choice((name, name, name, name, names[0], "../x", "x", "groups.npy", "votes.npy"))
            new.writestr(renamed, held)
    return made.getvalue()


def _shaped(head: bytes, random: Random) -> bytes:
    """An array's header with another shape or type."""
    shape = ", ".join(str(random.choice((0, 1, -1, 3, "True", 2**20, 2**31, 2**62, 10**30))) for _ in range(2))
    dtype = random.choice(("<i8", "|u1", "<U0", "<U9", "|O", "|V0", "<f16", ">f8", "<M8[ns]", "<c8", "?", "|S3"))
    head = re.sub(rb"'shape': \([^)]*\)", b"'shape': (" + shape.encode() + b")", head)
    return re.sub(rb"'descr': '[^']*'", b"'descr': '" + dtype.encode() + b"'", head)
