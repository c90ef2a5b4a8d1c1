// What is seen: elements are made one by one and names go in as text, so that no name can become markup.

const SHOWN = 6; // Weights of a unit listed before "show all".
const THUMB = 32; // Pixels of a small feature map.

function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter(child => child !== null));
  return element;
}

function number(value, digits = 3) {
  return Number.isFinite(value) ? value.toFixed(digits).replace("-", "\u2212") : "\u2013";
}

const button = (text, onclick, props = {}) => h("button", { type: "button", onclick, ...props }, text);
const canvas = (size, props = {}) => h("canvas", { width: size, height: size, ...props });

function unitName(net, row, unit) {
  if (row === 0) return INPUTS[unit];
  return row > net.depth ? OUTPUTS[unit] : `layer ${row}, unit ${unit}`;
}

function linkName(net, [k, i, j]) { return `${unitName(net, k, i)} \u2192 ${unitName(net, k + 1, j)}`; }

// The picture of one net, what it was, what changed, and how much.
class Panel {
  constructor(side) {
    this.side = side;
    const name = side.net.name;
    this.big = canvas(FINE_SIZE, { role: "img", "aria-label": `Picture drawn by ${name}`, class: "big" });
    this.was = canvas(LIVE_SIZE, { role: "img", "aria-label": `Original picture of ${name}` });
    this.diff = canvas(LIVE_SIZE, { role: "img", "aria-label": `Where the picture of ${name} changed` });
    this.small = canvas(LIVE_SIZE);
    this.pixels = new ImageData(LIVE_SIZE, LIVE_SIZE);
    this.rmse = h("output");
    this.share = h("output");
    this.element = h("section", { class: "panel", "data-side": side.number, "aria-label": name },
      h("h3", {}, name),
      h("div", { class: "pictures" }, this.big, h("div", { class: "minis" },
        h("div", {}, this.was, h("span", {}, "original")), h("div", {}, this.diff, h("span", {}, "change"))),
      h("div", { class: "numbers" },
        h("div", { title: "Root mean square difference from the original picture, colors from 0 to 1" },
          this.rmse, h("span", {}, "change (RMSE)")),
        h("div", { title: "0.5: the two halves change independently; 1: they change as one" },
          this.share, h("span", {}, "symmetric share S")))));
    spread(side.base, this.pixels.data);
    this.was.getContext("2d").putImageData(this.pixels, 0, 0);
  }

  draw() {
    const { side, big, pixels } = this;
    spread(side.rgb, pixels.data);
    this.small.getContext("2d").putImageData(pixels, 0, 0);
    const context = big.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(this.small, 0, 0, FINE_SIZE, FINE_SIZE);
    this.drawChange();
    this.rmse.textContent = number(side.effect.rmse);
    this.share.textContent = side.effect.rmse > 1e-3 ? number(side.effect.share, 2) : "\u2013";
  }

  drawChange() {
    const { rgb, base } = this.side, n = rgb.length / 3, mean = new Float32Array(n);
    let most = 1e-3;
    for (let p = 0; p < n; p++) {
      mean[p] = rgb[3 * p] - base[3 * p] + rgb[3 * p + 1] - base[3 * p + 1] + rgb[3 * p + 2] - base[3 * p + 2];
      most = Math.max(most, Math.abs(mean[p]));
    }
    for (let p = 0; p < n; p++) tint(this.pixels.data, p, mean[p] / most);
    this.diff.getContext("2d").putImageData(this.pixels, 0, 0);
  }
}

// Every unit's map, one row a layer: a grid with one stop for the Tab key and arrows inside.
class Maps {
  constructor(side, onpick) {
    this.side = side;
    const { net } = side;
    this.cells = net.widths.map((width, row) => Array.from({ length: width }, (_, unit) => this.cell(row, unit)));
    const rows = this.cells.map((cells, row) => h("div", { role: "row", class: "row" },
      h("span", { role: "rowheader", class: "side" }, row === 0 ? "in" : row > net.depth ? "out" : String(row)), ...cells));
    const heads = net.blocks.map(([kind, count]) =>
      h("span", { style: `grid-column: span ${count}`, title: kind }, count > 1 ? kind : kind.slice(0, 3)));
    this.grid = h("div", {
      role: "grid", class: "grid", "aria-label": `Feature maps of ${net.name}`,
      style: `--units: ${Math.max(...net.widths)}`,
      onclick: event => { const at = this.place(event.target); if (at) onpick(...at); },
      onkeydown: event => this.key(event, onpick),
    }, h("div", { class: "row heads", "aria-hidden": "true" }, h("span", { class: "side" }), ...heads), ...rows);
    this.element = h("div", { class: "scroll" }, this.grid);
    this.context = canvas(LIVE_SIZE).getContext("2d");
    this.pixels = new ImageData(THUMB, THUMB);
  }

  cell(row, unit) {
    const { net } = this.side, copied = net.copyOf(row, unit);
    const at = `${row}.${unit}`, title = unitName(net, row, unit);
    const made = canvas(THUMB, { role: "gridcell", tabindex: -1, "data-at": at, title });
    made.classList.toggle("copy", copied >= 0);
    made.classList.toggle("new", copied < 0 && row > 0);
    return made;
  }

  describe(row, unit) {
    const { net } = this.side, copied = net.copyOf(row, unit), kind = net.kind(row, unit);
    const words = [unitName(net, row, unit)];
    if (row > 0 && row <= net.depth) words.push(kind);
    if (this.cells[row][unit].classList.contains("dead")) words.push("constant: dead");
    else if (copied >= 0) words.push(`carried copy of ${unitName(net, row - 1, copied)}`);
    else if (row > 0) words.push("new here");
    return words.join(" \u00b7 ");
  }

  place(target) {
    const at = target.dataset && target.dataset.at;
    return at ? at.split(".").map(Number) : null;
  }

  key(event, onpick) {
    const at = this.place(event.target);
    if (!at || event.altKey || event.ctrlKey || event.metaKey) return;
    let [row, unit] = at;
    const last = this.cells[row].length - 1;
    if (event.key === "ArrowLeft") unit = Math.max(0, unit - 1);
    else if (event.key === "ArrowRight") unit = Math.min(last, unit + 1);
    else if (event.key === "ArrowUp") row = Math.max(0, row - 1);
    else if (event.key === "ArrowDown") row = Math.min(this.cells.length - 1, row + 1);
    else if (event.key === "Home") unit = 0;
    else if (event.key === "End") unit = last;
    else if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    unit = Math.min(unit, this.cells[row].length - 1);
    onpick(row, unit);
    this.cells[row][unit].focus();
  }

  select([row, unit]) {
    if (this.selected) {
      this.selected.setAttribute("tabindex", -1);
      this.selected.removeAttribute("aria-selected");
    }
    this.selected = this.cells[row][unit];
    this.selected.setAttribute("tabindex", 0);
    this.selected.setAttribute("aria-selected", "true");
  }

  // Draws the maps that changed, a layer at a time.
  *draw() {
    for (let row = 0; row < this.cells.length; row++) {
      const stale = this.side.stale[row];
      if (!stale.includes(1)) continue;
      for (let unit = 0; unit < stale.length; unit++) if (stale[unit]) this.thumb(row, unit);
      stale.fill(0);
      yield;
    }
  }

  thumb(row, unit) {
    const map = this.side.live.rows[row][unit], cell = this.cells[row][unit], context = cell.getContext("2d");
    const dead = row > 0 && isConstant(map);
    cell.classList.toggle("dead", dead);
    cell.setAttribute("aria-label", this.describe(row, unit));
    if (dead) {
      context.clearRect(0, 0, THUMB, THUMB);
      return;
    }
    for (let p = 0; p < THUMB * THUMB; p++) {
      const at = 2 * Math.floor(p / THUMB) * LIVE_SIZE + 2 * (p % THUMB);
      tint(this.pixels.data, p, (map[at] + map[at + 1] + map[at + LIVE_SIZE] + map[at + LIVE_SIZE + 1]) / 4);
    }
    context.putImageData(this.pixels, 0, 0);
  }
}

// A slider of one weight. Its own value is the change, so that 0 is the original weight exactly.
class Slider {
  constructor(app, side, link, props = {}) {
    Object.assign(this, { app, side, link });
    this.input = h("input", {
      type: "range", step: "any", ...props,
      oninput: event => app.move(side, this.link, this.was() + Number(this.input.value), event),
      ondblclick: () => app.reset(side, this.link),
      onkeydown: event => this.key(event),
    });
    this.show();
  }

  was() { return this.side.originalOf(this.link); }

  // Chromium moves a slider without steps by a hundredth of its range; other browsers by 1. Here: the same in all.
  key(event) {
    const small = (this.input.max - this.input.min) / 100;
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "r" || event.key === "R") {
      event.stopPropagation(); // This weight, whichever is picked.
      this.app.reset(this.side, this.link);
    }
    if (!(event.key in by)) return;
    event.preventDefault();
    let to = Number(this.input.value) + small * by[event.key];
    if (Math.abs(to) < small / 1e3) to = 0;
    to = Math.min(Number(this.input.max), Math.max(Number(this.input.min), to));
    this.input.value = to; // At once: the next key may come before the next frame.
    this.app.move(this.side, this.link, this.was() + to, event);
  }

  show() {
    const was = this.was(), [low, high] = this.app.range(was), value = this.side.valueOf(this.link);
    this.input.min = low - was;
    this.input.max = high - was;
    this.input.value = value - was;
    this.input.style.setProperty("--was", `${100 * (was - low) / (high - low)}%`);
    this.input.setAttribute("aria-valuetext", `${number(value)}, originally ${number(was)}`);
  }
}

// The unit that is picked: its map, and the weights into and out of it as sliders.
class UnitPanel {
  constructor(app, side, maps) {
    Object.assign(this, { app, side, maps, rows: new Map(), all: false });
    this.map = canvas(LIVE_SIZE, { "aria-hidden": "true" });
    this.title = h("h4");
    this.lists = h("div", { class: "lists" });
    this.element = h("div", { class: "unit" }, h("div", { class: "who" }, this.map, this.title), this.lists);
  }

  show() {
    const { side } = this, [row, unit] = side.unit;
    this.rows.clear();
    this.all = this.shown === keyOf(side.unit) && this.all;
    this.shown = keyOf(side.unit);
    this.lists.replaceChildren(
      ...this.list("Weights into it", side.net.linksInto(row, unit)),
      ...this.list("Weights out of it", side.net.linksOutOf(row, unit)));
    this.refresh();
  }

  list(title, links) {
    if (!links.length) return [];
    const { net } = this.side, size = link => Math.abs(net.weight(link));
    const copies = link => net.copyOf(link[0] + 1, link[2]) === link[1];
    const rank = link => (net.links && net.isTrue(link) ? 3 : size(link) === 0 ? 0 : copies(link) ? 1 : 2);
    const sorted = [...links].sort((a, b) => rank(b) - rank(a) || size(b) - size(a));
    const first = sorted.filter(link => rank(link) > 0 || this.side.edits.has(keyOf(link))).slice(0, SHOWN);
    const shown = this.all ? sorted : first, hidden = links.length - shown.length;
    const picked = links.find(link => keyOf(link) === keyOf(this.side.link));
    if (picked && !shown.includes(picked)) shown.unshift(picked);
    const zeros = sorted.filter(link => size(link) === 0).length;
    const more = hidden <= 0 ? null : button(`show all ${links.length}${zeros ? ` (${zeros} of them 0)` : ""}`, () => {
      this.all = true;
      this.show();
      this.drawMap();
    }, { class: "quiet" });
    return [h("h5", {}, title), ...shown.map(link => this.row(link)), ...(more ? [more] : [])];
  }

  row(link) {
    const { app, side } = this, { net } = side, [row] = side.unit, into = link[0] + 1 === row;
    const [otherRow, other] = into ? [link[0], link[1]] : [link[0] + 1, link[2]];
    const label = net.labels.get(keyOf(link)), name = unitName(net, otherRow, other);
    const mini = canvas(THUMB, { "aria-hidden": "true" });
    const slider = new Slider(app, side, link, { "aria-label": `${label ? `${label}: ` : ""}${linkName(net, link)}` });
    const value = h("span", { class: "value" });
    const copied = net.copyOf(link[0] + 1, link[2]) === link[1];
    const words = h("span", { class: "name" }, label ? h("strong", {}, label) : "", `${into ? "from" : "to"} ${name}`,
      copied ? h("small", {}, "carries a copy") : "");
    const go = { class: "go", "aria-label": `Go to ${name}`, title: `Go to ${name}` };
    const element = h("div", { class: "weight" },
      button(mini, () => app.choose(side, otherRow, other), go),
      words, slider.input, value,
      button("\u21ba", () => app.reset(side, link), { class: "undo", "aria-label": "Reset this weight", title: "Reset (R)" }));
    this.rows.set(keyOf(link), { slider, value, element, mini, its: this.maps.cells[otherRow][other] });
    return element;
  }

  refresh() {
    for (const [key, { slider, value, element }] of this.rows) {
      slider.show();
      value.textContent = number(this.side.valueOf(slider.link), 2);
      element.classList.toggle("moved", this.side.edits.has(key));
      element.classList.toggle("picked", this.side.link !== null && keyOf(this.side.link) === key);
    }
  }

  drawMap() {
    const [row, unit] = this.side.unit, map = this.side.live.rows[row][unit];
    const pixels = new ImageData(LIVE_SIZE, LIVE_SIZE);
    for (let p = 0; p < map.length; p++) tint(pixels.data, p, map[p]);
    this.map.getContext("2d").putImageData(pixels, 0, 0);
    this.title.textContent = this.maps.describe(row, unit);
    for (const { mini, its } of this.rows.values()) {
      mini.getContext("2d").clearRect(0, 0, THUMB, THUMB);
      mini.getContext("2d").drawImage(its, 0, 0);
    }
  }
}
