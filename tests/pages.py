"""Pages in a real browser: what happens on them, what does not fit, how well their text can be read."""

from pathlib import Path
from typing import Any

# What does not fit: tables over 1,100 pixels, text that its box cuts off, words of a chart outside of it.
MISFITS = """() => {
  const found = [], seen = e => e.checkVisibility() && e.getBoundingClientRect().width > 1;
  for (const table of document.querySelectorAll('table'))
    if (table.getBoundingClientRect().width > 1100) found.push('wide table: ' + table.className);
  for (const e of document.querySelectorAll('main, main *')) {
    if (!seen(e) || e.closest('svg')) continue;
    if (getComputedStyle(e).overflowX !== 'visible' && e.scrollWidth > e.clientWidth + 1)
      found.push('cut: ' + e.tagName + ' ' + e.textContent.trim().slice(0, 40));
    const box = e.getBoundingClientRect();
    if (box.right > innerWidth + 1 || box.left < -1) found.push('outside: ' + e.tagName + ' ' + e.className);
  }
  for (const svg of document.querySelectorAll('.chart svg')) {
    if (!seen(svg)) continue;
    const frame = svg.getBoundingClientRect();
    for (const text of svg.querySelectorAll('text')) {
      const box = text.getBoundingClientRect();
      if (box.width && (box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1))
        found.push('chart: ' + text.textContent.slice(0, 60));
    }
  }
  return found;
}"""

# Contrast of each text on the ground behind it (WCAG 2), transparent grounds looked through; worst first.
CONTRAST = """() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const linear = v => v / 255 <= .03928 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const lum = c => .2126 * linear(c[0]) + .7152 * linear(c[1]) + .0722 * linear(c[2]);
  const ground = e => {
    for (; e; e = e.parentElement || e.getRootNode().host) {
      const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > .5) return c }
    return [255, 255, 255] };
  const seen = [], hosts = [...document.querySelectorAll('*')].filter(e => e.shadowRoot);
  for (const root of [document.body, ...hosts.map(e => e.shadowRoot)]) {
    const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
      const e = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
      if (!text || ['SCRIPT', 'STYLE', 'NOSCRIPT'].includes(e.tagName) || e.disabled) continue;
      const style = getComputedStyle(e), ink = parse(e.closest('svg') ? style.fill : style.color);
      const [a, b] = [lum(ink), lum(ground(e))].sort((x, y) => y - x);
      seen.push([(a + .05) / (b + .05), text.slice(0, 40)]);
    }
  }
  return seen.sort((x, y) => x[0] - y[0]).slice(0, 5);
}"""

UNFOLD = "document.querySelectorAll('details').forEach(d => d.open = true)"


def opened(browser: Any, path: Path, *, address: str = "", **settings: Any) -> tuple[Any, list[str]]:
    """The page of a file, and the list of every message, error, dialog and request of its own, which grows."""
    page, events = browser.new_page(**settings), list[str]()
    page.on("console", lambda message: events.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: events.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (events.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda one: events.append(one.url) if not one.url.startswith(("file:", "data:")) else 0)
    page.goto(path.as_uri() + address)
    return page, events
