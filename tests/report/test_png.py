"""PNG files hold what was drawn."""

import zlib

import numpy as np

from wheeltap.report import png


def test_pictures_are_png_files_that_hold_what_was_drawn() -> None:
    drawn = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
    drawn[0, 0] = [-0.5, 1.5, 0.5]  # clipped
    data = png.encode(drawn)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    body = data[data.index(b"IDAT") + 4 : data.index(b"IEND") - 8]
    rows = np.frombuffer(zlib.decompress(body), dtype=np.uint8).reshape(8, 25)
    assert np.array_equal(rows[:, 1:].reshape(8, 8, 3), np.rint(np.clip(drawn, 0.0, 1.0) * 255))
    assert not rows[:, 0].any()
    assert png.encode(np.rint(np.clip(drawn, 0.0, 1.0) * 255).astype(np.uint8)) == data
