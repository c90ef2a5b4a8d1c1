(() => {
"use strict";
const SVG = "http://www.w3.org/2000/svg", ROW = 46, STEP = 90, LEAST = 13, MOST = 12;

const make = (tag, attributes = {}, text = "", svg = false) => {
  const made = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
};
const shown = number => Math.abs(number) >= 0.001 || number === 0 ? number.toFixed(3) : number.toExponential(1);

class Graph {
  constructor(root) {
    this.root = root;
    this.data = JSON.parse(root.querySelector("script").textContent);
    this.nodes = this.data.nodes.map((node, at) => ({ at, ...node }));
    this.rows = [...new Set(this.nodes.map(node => node.row))].map(row => this.nodes.filter(node => node.row === row));
    this.edges = this.data.links.map(({ source, target, weight }) =>
      ({ source: this.nodes[source], target: this.nodes[target], weight, carried: Math.abs(weight) * this.nodes[source].spread }));
    this.strongest = Math.max(...this.nodes.flatMap(node => node.values.map(value => Math.abs(value - node.center))), 1e-12);
    this.most = Math.max(...this.edges.map(edge => edge.carried), 1e-30);
    this.links = this.data.faint.map(([source, target]) => ({ source: this.nodes[source], target: this.nodes[target] }));
    this.current = null; this.pinned = new Set(); this.view = 0;
    this.build();
    new ResizeObserver(() => this.draw()).observe(this.frame);
    this.draw();
  }

  build() {
    const bar = make("div", { class: "bar" }), label = make("label", {}, "Values on ");
    this.select = make("select");
    this.data.views.forEach((view, at) => this.select.append(make("option", { value: at }, view.name)));
    label.append(this.select);
    bar.append(...(this.data.views.length ? [label] : []), make("span", { class: "small" }, this.data.key));
    this.context = make("p", { class: "context" });
    this.frame = make("div", { class: "frame" });
    this.says = make("p", { class: "says", "aria-live": "polite" });
    this.svg = make("svg", {
      tabindex: 0, role: "application",
      "aria-label": `${this.data.title}: ${this.nodes.length} ${this.data.noun}s. Arrow keys move between them, Enter pins one, Escape lets go.`,
    }, "", true);
    this.frame.append(this.svg);
    this.root.append(bar, this.context, this.frame, this.says);
    this.select.addEventListener("change", () => { this.view = Number(this.select.value); this.draw(); });
    this.svg.addEventListener("keydown", event => this.key(event));
    this.svg.addEventListener("focus", () => { if (!this.current && this.svg.matches(":focus-visible")) this.go(this.nodes[0]); });
    this.svg.addEventListener("pointerover", event => { const node = this.under(event); if (node) this.go(node); });
    this.svg.addEventListener("click", event => { const node = this.under(event); if (node) this.pin(node); });
  }

  under(event) { return event.target.dataset.at === undefined ? null : this.nodes[Number(event.target.dataset.at)]; }

  // ---- moving

  key(event) {
    const row = this.rows.findIndex(nodes => nodes.includes(this.current ?? this.nodes[0])), nodes = this.rows[row];
    const at = nodes.indexOf(this.current ?? this.nodes[0]), near = other => this.rows[other]?.reduce((best, node) =>
      Math.abs(node.x - nodes[at].x) < Math.abs(best.x - nodes[at].x) ? node : best);
    const moves = {
      ArrowLeft: () => this.go(nodes[at - 1]), ArrowRight: () => this.go(nodes[at + 1]), Home: () => this.go(nodes[0]),
      End: () => this.go(nodes.at(-1)), ArrowUp: () => this.go(near(row - 1)), ArrowDown: () => this.go(near(row + 1)),
      Enter: () => this.pin(nodes[at]), " ": () => this.pin(nodes[at]),
      Escape: () => { this.pinned.clear(); this.current = null; this.light(); },
    };
    if (!moves[event.key]) return;
    event.preventDefault();
    moves[event.key]();
  }

  go(node) {
    if (!node) return;
    this.current = node;
    this.light();
    const y = node.y, { scrollTop, clientHeight } = this.frame;
    if (y < scrollTop + 20 || y > scrollTop + clientHeight - 20) this.frame.scrollTop = y - clientHeight / 2;
  }

  pin(node) {
    if (!this.pinned.delete(node)) this.pinned.add(node);
    this.go(node);
  }

  // ---- drawing

  place(width) {
    const narrow = width < 560, left = narrow ? 10 : 150, room = width - left - 12;
    let y = narrow ? 30 : 22;
    this.labels = [];
    for (const nodes of this.rows) {
      const step = Math.max(Math.min(STEP, room / nodes.length), LEAST), each = Math.max(Math.floor(room / step), 1);
      const lines = Math.ceil(nodes.length / each);
      this.labels.push({ text: `${this.data.rows[nodes[0].row]} (${nodes.length})`, x: narrow ? 4 : 0, y: narrow ? y - 14 : y + 4, rule: y });
      nodes.forEach((node, at) => {
        const line = Math.floor(at / each), count = line < lines - 1 ? each : nodes.length - each * (lines - 1);
        node.x = left + room / 2 + (at % each - (count - 1) / 2) * step;
        node.y = y + line * LEAST;
      });
      y += (lines - 1) * LEAST + ROW + (narrow ? 8 : 0);
    }
    return y - ROW / 2;
  }

  draw() {
    const width = this.frame.clientWidth;
    if (!width) return;
    const height = this.place(width);
    this.svg.setAttribute("width", width); this.svg.setAttribute("height", height);
    this.lines = make("g", {}, "", true);
    const curve = ({ source, target }) => {
      const middle = (source.y + target.y) / 2;
      return `M${source.x} ${source.y}C${source.x} ${middle} ${target.x} ${middle} ${target.x} ${target.y}`;
    };
    for (const link of this.links) this.lines.append(link.path = make("path", { class: "stream", d: curve(link) }, "", true));
    for (const edge of this.edges) this.lines.append(edge.path = make("path", {
      class: edge.weight < 0 ? "weight minus" : "weight", d: curve(edge), "stroke-width": 0.7 + 3.3 * edge.carried / this.most }, "", true));
    const marks = make("g", {}, "", true);
    for (const node of this.nodes) marks.append(this.mark(node));
    this.rings = make("g", {}, "", true);
    const rules = this.labels.map(({ rule }) => make("line", { class: "rule", x1: 0, x2: width, y1: rule, y2: rule }, "", true));
    const labels = this.labels.map(({ text, x, y }) => make("text", { class: "row", x, y }, text, true));
    this.svg.replaceChildren(...rules, this.lines, ...labels, marks, this.rings);
    this.context.textContent = this.data.views[this.view]?.says ?? "";
    this.light();
  }

  mark(node) {
    const off = node.values.map(value => value - node.center);
    const most = this.data.shared ? this.strongest : Math.max(...off.map(Math.abs), 1e-12);
    const share = (off[this.view] ?? 0) / most;
    const kind = Math.abs(share) < 0.02 ? "rest" : share < 0 ? "minus" : "plus";
    return make("circle", { class: kind, cx: node.x, cy: node.y, r: 2.5 + 3 * Math.abs(share), "data-at": node.at }, "", true);
  }

  light() {
    if (!this.lines) return;
    const lit = new Set([...this.pinned, ...(this.current ? [this.current] : [])]);
    this.lines.setAttribute("class", lit.size ? "chosen" : "");
    for (const line of [...this.edges, ...this.links])
      line.path.classList.toggle("lit", lit.has(line.source) || lit.has(line.target));
    this.rings.replaceChildren(...[...lit].map(node => make("circle", {
      class: this.pinned.has(node) ? "ring pin" : "ring", cx: node.x, cy: node.y, r: 9 }, "", true)));
    this.says.textContent = this.current ? this.words(this.current)
      : `Point at a ${this.data.noun}, or move to one with the arrow keys; Enter pins it.`;
  }

  words(node) {
    const listed = (title, edges, end) => edges.length ? ` ${title} ${edges.slice(0, MOST).map(edge =>
      `${edge[end].name} (${shown(edge.weight)})`).join(", ")}${edges.length > MOST ? ` and ${edges.length - MOST} more` : ""}.` : "";
    const others = [...this.pinned].filter(one => one !== node).map(one => one.name).join(", ");
    const numbers = { value: node.values[this.view] ?? node.center, center: node.center, spread: node.spread };
    return `${node.name}: ${this.data.says.replace(/{(\w+)}/g, (_, key) => shown(numbers[key]))}`
      + listed("Reads", this.edges.filter(edge => edge.target === node), "source")
      + listed("Is read by", this.edges.filter(edge => edge.source === node), "target") + (others ? ` Pinned: ${others}.` : "");
  }
}

for (const root of document.querySelectorAll(".graph")) new Graph(root);
})();
