"""``python -m benchmarks.explorer [--json FILE] [--moves N]``: how fast does the sweep explorer answer, and how large is its page?

Two random nets of 12 layers of 22 units, every weight of them non-zero, so that nothing can be skipped: the worst case. In
Chromium, a slider is moved by synthetic ``input`` events (weights of the first layer, drawn anew for each move; then of
any layer) and by dragging its thumb with the mouse. Milliseconds from the event's time stamp to the picture drawn on its
canvas, and to the end of the frame after it, which the screen then shows.
"""

import argparse
import json
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from wheeltap.suites.pictures.sections import explorer
from wheeltap.suites.pictures.specs import DrawnNet

CHROMIUM = "/usr/bin/chromium"
DEPTH, WIDTH = 12, 22
ARCH = "12;cache:15,gaussian:4,identity:2,sin:1"
BAR_MS, BAR_BYTES = 50.0, 5 * 1024 * 1024

LISTEN = """() => {
  const host = document.querySelector('.wheeltap-explorer');
  window.drawn = []; window.shown = [];
  host.addEventListener('wheeltap:drawn', event => {
    const since = performance.now() - event.detail.ms, channel = new MessageChannel();
    window.drawn.push(event.detail.ms);
    // A task posted in a frame runs once that frame has been handed on for painting.
    channel.port1.onmessage = () => window.shown.push(performance.now() - since);
    channel.port2.postMessage(0);
  });
}"""

SLIDE = """async ([side, links, pause]) => {
  const host = document.querySelector('.wheeltap-explorer'), explorer = host.explorer, one = explorer.sides[side];
  const wait = ms => new Promise(done => setTimeout(done, ms));
  for (const link of links) {
    explorer.pick(one, link);
    await wait(pause);
    const slider = explorer.benches[side].slider.input;
    slider.value = (Math.random() - .5) * (slider.max - slider.min);
    const before = window.drawn.length;
    slider.dispatchEvent(new Event('input'));
    while (window.drawn.length === before) await new Promise(requestAnimationFrame);
    await wait(0);
  }
}"""


def nets() -> list[DrawnNet]:
    """Two dense nets with random weights."""
    widths = [4, *[WIDTH] * DEPTH, 3]
    rng = np.random.default_rng(0)
    return [
        DrawnNet(
            name=f"random {n}",
            arch=ARCH,
            weights=b"".join(
                (rng.normal(size=s) * 1.3 / np.sqrt(s[0])).astype("<f4").tobytes() for s in pairwise(widths)
            ),
        )
        for n in range(2)
    ]


def summary(values: list[float]) -> dict[str, float]:
    """Of times in milliseconds."""
    ordered = sorted(values)
    return {
        "moves": len(ordered),
        "median": statistics.median(ordered),
        "p95": ordered[int(0.95 * (len(ordered) - 1))],
        "worst": ordered[-1],
    }


def taken(page: Page) -> dict[str, dict[str, float]]:
    """What was recorded since the last call."""
    page.wait_for_timeout(100)
    found = {name: summary(page.evaluate(f"window.{name}")) for name in ("drawn", "shown")}
    page.evaluate("() => { window.drawn = []; window.shown = []; }")
    return found


def links(count: int, layers: list[int]) -> list[list[int]]:
    """Random weights of the given layers."""
    rng = np.random.default_rng(1)
    widths = [4, *[WIDTH] * DEPTH, 3]
    chosen = [int(rng.choice(layers)) for _ in range(count)]
    return [[k, int(rng.integers(widths[k])), int(rng.integers(widths[k + 1]))] for k in chosen]


def drag(page: Page, moves: int) -> None:
    """Drags the thumb of the picked weight's slider to and fro, one mouse event about every 16 ms."""
    page.evaluate(
        "() => { const e = document.querySelector('.wheeltap-explorer').explorer; e.pick(e.sides[0], [0, 0, 3]) }"
    )
    box = page.locator(".drag input[type=range]").first.bounding_box()
    assert box is not None
    middle, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(middle, y)
    page.mouse.down()
    for n in range(moves):
        page.mouse.move(middle + 0.4 * box["width"] * np.sin(n / 7), y)
        page.wait_for_timeout(16)
    page.mouse.up()


def measured(moves: int) -> dict[str, Any]:
    """Page size and times."""
    html = explorer.page(nets(), title="Two random nets")
    result: dict[str, Any] = {"bytes": len(html.encode())}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = Path(folder) / "explorer.html"
        path.write_text(html, encoding="utf-8")
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_selector(".wheeltap-explorer[data-state=settled]")
        page.evaluate(LISTEN)
        for name, layers, pause in (
            ("first layer, at rest before each", [0], 250),
            ("first layer, in quick succession", [0], 0),
            ("any layer, in quick succession", list(range(DEPTH + 1)), 0),
        ):
            page.evaluate(SLIDE, [0, links(moves, layers), pause])
            result[name] = taken(page)
        drag(page, moves)
        result["first layer, mouse drag"] = taken(page)
        page.get_by_label("Sweep the other at equal effect").check()
        page.wait_for_selector(".wheeltap-explorer[data-state=settled]")
        drag(page, moves)
        result["the same, the other net following"] = taken(page)
        result["browser"] = browser.version
        result["errors"] = errors
        browser.close()
    return result


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--moves", type=int, default=200)
    asked = parser.parse_args()
    result = measured(asked.moves)
    print(
        f"page: {result['bytes']:,} bytes (bar {BAR_BYTES:,}); Chromium {result['browser']}; errors: {result['errors']}"
    )
    for name, times in result.items():
        if not isinstance(times, dict):
            continue
        for until, row in times.items():
            print(
                f"{name:36} until {until}: median {row['median']:5.1f} ms, 95 % {row['p95']:5.1f}, "
                f"worst {row['worst']:5.1f} of {row['moves']} (bar {BAR_MS:g})"
            )
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
