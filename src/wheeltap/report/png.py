"""Pictures on the page: PNG files as addresses that hold them."""

import base64


def address(png: bytes) -> str:
    """The picture as an address that holds it, for ``<img src>``."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
