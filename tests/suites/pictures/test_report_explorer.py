"""The sweep explorer in a real browser, against an implementation of the nets in numpy: pictures, numbers, keys."""

import base64
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.pages import CONTRAST, opened
from tests.report.report_cases import single
from wheeltap.core.errors import FileFormatError, UsageError
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Section, Widget
from wheeltap.report import html as report_page
from wheeltap.report import jsonfile
from wheeltap.suites.pictures.sections import explorer
from wheeltap.suites.pictures.specs import DrawnNet

SKULL = "12;cache:15,gaussian:4,identity:2,sin:1"
EVERY = "3;abs:1,cache:2,cos:1,gaussian:2,identity:1,relu:1,sigmoid:1,sin:2,tanh:1"
NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}"
FRAME = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
SETTLED = ".wheeltap-explorer[data-state=settled]"
Kernels = list[NDArray[np.float64]]


def _widths(arch: str) -> tuple[list[str], list[int]]:
    depth, blocks = arch.split(";")
    kinds = [kind for kind, count in (b.split(":") for b in blocks.split(",")) for _ in range(int(count))]
    return kinds, [4, *[len(kinds)] * int(depth), 3]


def _random(arch: str, seed: int, **more: Any) -> DrawnNet:
    rng = np.random.default_rng(seed)
    kernels = [rng.normal(size=(i, o)) * 1.3 / np.sqrt(i) for i, o in pairwise(_widths(arch)[1])]
    return DrawnNet(**{"name": f"net {seed}", "arch": arch, "weights": _bytes(kernels), **more})


def _bytes(kernels: Kernels) -> bytes:
    return b"".join(kernel.astype("<f4").tobytes() for kernel in kernels)


def _kernels(net: DrawnNet) -> Kernels:
    _, widths = _widths(net.arch)
    ends = np.cumsum([i * o for i, o in pairwise(widths)])[:-1]
    flat = np.split(np.frombuffer(net.weights, "<f4").astype(float), ends)
    return [part.reshape(pair) for part, pair in zip(flat, pairwise(widths), strict=True)]


def _planted() -> DrawnNet:
    """x is copied, then goes into a gaussian, then into brightness; y is doubled in vain; everything else is dead."""
    first, second, last = np.zeros((4, 3)), np.zeros((3, 3)), np.zeros((3, 3))
    first[0, 0], first[1, 1], second[0, 2], last[2, 2] = 1.0, 2.0, 1.5, 1.0
    links, labels = ((1, 0, 2),), {"1,0,2": "Width"}
    return DrawnNet(
        name="planted", arch="2;cache:2,gaussian:1", weights=_bytes([first, second, last]), links=links, labels=labels
    )


ACTIVATIONS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "cache": lambda t: t, "identity": lambda t: t, "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "abs": np.abs,
    "relu": lambda t: np.maximum(t, 0), "sigmoid": lambda t: 2 / (1 + np.exp(-t)) - 1,
    "gaussian": lambda t: 2 * np.exp(-(t**2)) - 1,
}  # fmt: skip


def _draw(net: DrawnNet, size: int, moved: dict[tuple[int, int, int], float] | None = None) -> NDArray[np.float64]:
    """The picture [row, column, channel] in [0, 1], in double precision."""
    kernels = _kernels(net)
    for (layer, source, target), value in (moved or {}).items():
        kernels[layer][source, target] = value
    kinds, _ = _widths(net.arch)
    y, x = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    maps = np.stack([abs(x) if net.fold else x, y, 1.4 * np.sqrt(x**2 + y**2), np.ones_like(x)], axis=-1)
    for kernel in kernels[:-1]:
        maps = maps @ kernel
        maps = np.stack([ACTIVATIONS[kind](maps[..., u]) for u, kind in enumerate(kinds)], axis=-1)
    hue, saturation, value = np.moveaxis(maps @ kernels[-1], -1, 0)
    saturation, value = np.clip(saturation, 0, 1), np.clip(abs(value), 0, 1)
    turned = ((n + 6 * (hue % 1)) % 6 for n in (5, 3, 1))
    return np.stack([value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1) for k in turned], axis=-1)


def _effect(net: DrawnNet, moved: dict[tuple[int, int, int], float]) -> tuple[float, float]:
    change = _draw(net, 64, moved) - _draw(net, 64)
    return float(np.sqrt((change**2).mean())), float((((change + change[:, ::-1]) / 2) ** 2).sum() / (change**2).sum())


def _open(browser: Any, path: Path, html: str = "", **settings: Any) -> Any:
    """A page; ``_close`` fails if there was any message, error, dialog or request of its own."""
    if html:
        path.write_text(html, encoding="utf-8")
    page, events = opened(browser, path, **settings)
    page.unexpected = events
    page.wait_for_selector(SETTLED)
    return page


def _close(page: Any) -> None:
    page.close()
    assert page.unexpected == []


def _settle(page: Any) -> None:
    """Waits for the frame of the last move, then for the finer work."""
    page.evaluate(FRAME)
    page.wait_for_selector(SETTLED)


def _picture(page: Any, side: int) -> NDArray[np.float64]:
    canvas = page.locator(".big").nth(side)
    data = canvas.evaluate(
        "c => { const copy = new OffscreenCanvas(c.width, c.height).getContext('2d', {willReadFrequently: true});"
        " copy.drawImage(c, 0, 0); const d = copy.getImageData(0, 0, c.width, c.height).data;"
        " return btoa(Array.from(d, v => String.fromCharCode(v)).join('')) }"
    )
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(256, 256, 4)[..., :3].astype(float)


def _numbers(page: Any, side: int) -> tuple[float, float]:
    shown = page.locator(".panel").nth(side).locator("output").all_inner_texts()
    return float(shown[0]), float(shown[1])


def _move(page: Any, side: int, link: tuple[int, int, int], value: float) -> None:
    move = "const e = document.querySelector('.wheeltap-explorer').explorer; e.move(e.sides[side], link, value)"
    page.evaluate(f"([side, link, value]) => {{ {move} }}", [side, list(link), value])
    page.evaluate(FRAME)


@pytest.mark.browser
def test_draws_what_the_net_computes(browser: Any, tmp_path: Path) -> None:
    nets = [_random(SKULL, 1), _random(EVERY, 2, fold="abs-x"), _planted()]
    page = _open(
        browser, tmp_path / "x.html", explorer.page(nets, title="Three"), viewport={"width": 1280, "height": 900}
    )
    for side, net in enumerate(nets):
        far = abs(_picture(page, side) - 255 * _draw(net, 256))
        assert far.max() <= 1.5, net.name
    assert page.evaluate("document.querySelector('.wheeltap-explorer').explorer.sides[0].live.arena.sum !== null")
    _close(page)


@pytest.mark.browser
def test_a_moved_weight_redraws_what_depends_on_it(browser: Any, tmp_path: Path) -> None:
    nets = [_planted(), _random(EVERY, 3)]
    page = _open(browser, tmp_path / "x.html", explorer.page(nets, title="Two"))
    page.get_by_label("Keep earlier moves").check()
    rng = np.random.default_rng(5)
    for side, net in enumerate(nets):
        moved: dict[tuple[int, int, int], float] = {}
        _, widths = _widths(net.arch)
        for layer in (len(widths) - 2, 0, 1, 0):
            link = (layer, int(rng.integers(widths[layer])), int(rng.integers(widths[layer + 1])))
            if side == 0:
                link = (layer, 0, 0)  # nothing else depends on it than what the planted links lead to
            moved[link] = 0.0 if layer == 1 else float(rng.normal())
            _move(page, side, link, moved[link])
        _settle(page)
        assert abs(_picture(page, side) - 255 * _draw(net, 256, moved)).max() <= 1.5
        assert _numbers(page, side) == pytest.approx(_effect(net, moved), abs=0.006)
    page.get_by_role("button", name="Undo all").first.click()
    _settle(page)
    assert abs(_picture(page, 0) - 255 * _draw(nets[0], 256)).max() <= 1.5
    assert page.locator("output").first.inner_text() == "0.000"
    _close(page)


@pytest.mark.browser
def test_by_keyboard_alone(browser: Any, tmp_path: Path) -> None:
    net = _planted()
    page = _open(browser, tmp_path / "x.html", explorer.page([net, _random(EVERY, 6)], title="Two"))
    slider = page.get_by_label("Width", exact=True).first
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("PageDown")
    page.keyboard.press("PageUp")
    _settle(page)
    assert _numbers(page, 0) == pytest.approx(_effect(net, {(1, 0, 2): 1.7}), abs=0.006)
    page.keyboard.press("r")
    _settle(page)
    assert page.locator("output").first.inner_text() == "0.000"
    listed = page.get_by_label("Width: layer 1, unit 0").first
    listed.focus()
    page.keyboard.press("ArrowLeft")
    _settle(page)
    assert _numbers(page, 0) == pytest.approx(_effect(net, {(1, 0, 2): 1.48}), abs=0.006)
    page.keyboard.press("r")
    # The maps are one stop of the Tab key; arrows move inside, from the unit that the named weight leads to.
    assert page.locator(".grid").first.locator("[tabindex='0']").count() == 1
    page.locator(".grid").first.locator("[tabindex='0']").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Home")
    chosen = page.locator("[aria-selected=true]").first
    assert chosen.get_attribute("aria-label") == "layer 1, unit 0 \u00b7 cache \u00b7 carried copy of x"
    assert chosen.evaluate("c => c.getRootNode().activeElement === c")
    assert page.locator(".unit h4").first.inner_text().startswith("layer 1, unit 0")
    _close(page)


@pytest.mark.browser
def test_the_other_net_follows_at_equal_effect(browser: Any, tmp_path: Path) -> None:
    nets = [_random(EVERY, 1), _random(EVERY, 2)]
    page = _open(browser, tmp_path / "x.html", explorer.page(nets, title="Two"))
    page.get_by_label("Sweep the other at equal effect").check()
    link = (0, 0, 4)
    _move(page, 0, link, float(_kernels(nets[0])[0][0, 4]) + 0.1)
    _settle(page)
    wanted, got = (_numbers(page, side)[0] for side in (0, 1))
    assert wanted > 0.005
    assert got == pytest.approx(wanted, abs=0.002)
    assert "Follows at equal effect" in page.locator(".bench").nth(1).inner_text()
    page.keyboard.press("r")
    page.get_by_role("button", name="Reset weight").first.click()
    _settle(page)
    assert page.locator(".panel").nth(1).locator("output").first.inner_text() == "0.000"
    _close(page)


@pytest.mark.browser
def test_its_address_brings_the_state_back(browser: Any, tmp_path: Path) -> None:
    net = _planted()
    html = explorer.page([net], title="One")
    page = _open(browser, tmp_path / "x.html", html)
    _move(page, 0, (1, 0, 2), 2.25)
    _settle(page)
    address = page.url.partition("#")[2]
    _close(page)
    again = _open(browser, tmp_path / "x.html", address=f"#{address}")
    assert _numbers(again, 0) == pytest.approx(_effect(net, {(1, 0, 2): 2.25}), abs=0.006)
    _close(again)
    _close(_open(browser, tmp_path / "x.html", address="#sweep=9.9.9,4.4,0.0.0:1e400&range=1"))


@pytest.mark.browser
def test_hostile_names_are_text(browser: Any, tmp_path: Path) -> None:
    net = _random(EVERY, 7, name=NASTY, labels={"0,0,0": NASTY + "<!--"})
    page = _open(browser, tmp_path / "x.html", explorer.page([net, net], title=NASTY, note=NASTY))
    assert page.locator("img, iframe, object").count() == 0
    assert page.title() == NASTY
    for place in ("h1", ".note", ".panel h3", ".chips button"):
        assert NASTY in page.locator(place).first.inner_text()
    _close(page)


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_fits_and_reads_in_both_themes(browser: Any, tmp_path: Path, theme: str) -> None:
    nets = [_random(SKULL, 1), _planted()]
    html = explorer.page(nets, title="Two", note="A note.")
    page = _open(browser, tmp_path / "x.html", html, color_scheme=theme, viewport={"width": 400, "height": 800})
    for width in (400, 760, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        tops = page.locator(".panel").evaluate_all("all => all.map(e => e.getBoundingClientRect().top)")
        assert max(tops) - min(tops) < 1  # side by side, on a phone too
    worst = page.evaluate(CONTRAST)
    assert worst[0][0] >= 4.5, worst
    _close(page)


def test_refuses_what_it_cannot_draw() -> None:
    fields = {name: getattr(_planted(), name) for name in DrawnNet.__struct_fields__}
    changes: list[dict[str, Any]] = [
        {"arch": "nonsense"}, {"arch": "2;softmax:3"}, {"fold": "abs-y"}, {"weights": _planted().weights[1:]},
        {"weights": _bytes([kernel * np.nan for kernel in _kernels(_planted())])}, {"labels": {"1,0": "Width"}},
        {"links": ((2, 0, 3),)},
    ]  # fmt: skip
    for changed in changes:
        with pytest.raises(FileFormatError) as refused:
            explorer.page([DrawnNet(**{**fields, **changed})], title="One")
        assert refused.value.where == "planted"
    with pytest.raises(UsageError):
        explorer.page([], title="None")


def _reported(data: Any) -> ReportRecord:
    widget = Widget(name="explorer", data=data, alt="An explorer.")
    return msgspec.structs.replace(single(), sections=(Section(title="Explorer", blocks=(widget,)),))


def test_a_report_with_nets_has_the_explorer_and_its_policy() -> None:
    nets = msgspec.json.decode(msgspec.json.encode([_planted(), _random(EVERY, 2)]))
    record = jsonfile.validate(jsonfile.to_json(_reported(nets)))
    shown = report_page.page(record)
    assert shown.count("<script") == 2 and f"script-src '{explorer.script_hash()}' 'wasm-unsafe-eval'" in shown
    whole = explorer.alone(record)
    assert whole is not None and record.headline in whole and "<script" in whole and explorer.alone(single()) is None
    with pytest.raises(FileFormatError):
        report_page.page(_reported([{"name": "net"}]))
