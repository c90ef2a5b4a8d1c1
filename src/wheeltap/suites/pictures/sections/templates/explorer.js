// The explorer: one state, one frame at a time for what moves, and spare time for what can wait.

const PAUSE = 150; // Milliseconds without a move before the finer work starts.
const SLICE = 6; // Milliseconds of it at a time.

class Explorer {
  constructor(host, data) {
    this.host = host;
    this.reach = "1";
    this.matching = false;
    this.keeping = false;
    this.frame = 0;
    this.round = 0;
    this.moved = null;
    this.sides = data.nets.map((net, number) => new Side(new Net(net), number, data));
    this.sides.forEach(side => side.pick(this.start(side)));
    this.addressed = data.addressed;
    if (this.addressed) this.recall();
    this.panels = this.sides.map(side => new Panel(side));
    this.benches = this.sides.map(side => new Bench(this, side));
    this.build();
    this.panels.forEach(panel => panel.draw());
    this.benches.forEach(bench => bench.show());
    this.rest(0);
  }

  // The first named weight; else the largest true link into the middle of the net.
  start(side) {
    const { net } = side, named = net.labels.keys().next();
    if (!named.done) return named.value.split(",").map(Number);
    const all = net.allTrue(), middle = all.filter(([k]) => k === Math.floor(net.depth / 2));
    const from = middle.length ? middle : all.length ? all : [[0, 0, 0]];
    return from.reduce((a, b) => (Math.abs(net.weight(b)) > Math.abs(net.weight(a)) ? b : a));
  }

  build() {
    const reach = h("select", { onchange: () => { this.reach = reach.value; this.changed(); } },
      ...[["0.25", "\u00b10.25 around it"], ["1", "\u00b11 around it"], ["3", "\u00b13 around it"], ["absolute", "\u22123 to 3"]]
        .map(([value, text]) => h("option", { value, selected: value === this.reach }, text)));
    const match = h("input", { type: "checkbox", onchange: () => { this.matching = match.checked; this.rematch(); } });
    match.checked = this.matching;
    const others = this.sides.length > 2 ? "others" : "other";
    const keep = h("input", { type: "checkbox", onchange: () => { this.keeping = keep.checked; } });
    this.status = h("p", { class: "unseen", role: "status" });
    this.root = h("div", { class: "explorer", onkeydown: event => this.key(event) },
      h("div", { class: "shared" },
        h("label", {}, "Slider range ", reach),
        this.sides.length === 1 ? null
          : h("label", { title: "The picked weight of each other net is moved by the step that changes its picture as much" },
            match, ` Sweep the ${others} at equal effect`),
        h("label", { title: "Otherwise, picking another weight puts the last one back" }, keep, " Keep earlier moves")),
      h("div", { class: "stage" }, ...this.panels.map(panel => panel.element)),
      h("div", { class: "benches" }, ...this.benches.map(bench => bench.element)),
      this.legend(), this.status);
    this.host.shadowRoot.append(this.root);
  }

  legend() {
    const sign = name => h("span", { class: name, "aria-hidden": "true" });
    return h("p", { class: "small legend" }, "Maps: \u22121 ", sign("ramp"), " 1, red to blue. ",
      sign("key new"), " makes a map of its own ", sign("key copy"), " carries a copy ", sign("key dead"), " constant, so dead. ",
      "A cache unit has no activation: it is there to carry a value up. The change is drawn in the same colors "
      + "(red darker, blue brighter), scaled to its largest. The size of the change is the root mean square over pixels and "
      + "colors, which go from 0 to 1; S is the share of its energy that is the same left and right: 0.5 where the two halves "
      + "change independently, 1 where they change as one. Keys: arrows move between maps and along a slider; R, or a double "
      + "click on its slider, puts a weight back.");
  }

  range(was) {
    if (this.reach !== "absolute") return [was - Number(this.reach), was + Number(this.reach)];
    const end = Math.max(3, Math.abs(was));
    return [-end, end];
  }

  key(event) {
    if (event.key !== "r" && event.key !== "R" || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.target.tagName === "SELECT") return; // There a letter looks for an entry.
    const inside = event.target.closest("[data-side]");
    const side = inside ? this.sides[Number(inside.dataset.side)] : this.driver || this.sides[0];
    this.reset(side, side.link);
  }

  // Picks a weight, and the unit it leads to where none is named. What was moved before goes back, unless it is to stay.
  pick(side, link, unit = [link[0] + 1, link[2]]) {
    const moves = keyOf(side.link) !== keyOf(link), turns = keyOf(side.unit) !== keyOf(unit);
    if (!moves && !turns) return;
    if (moves && this.moved && this.moved.side === side) this.moved = null; // Not drawn yet, and no longer wanted.
    if (moves && !this.keeping && side.edits.size) {
      side.restore();
      this.panels[side.number].draw();
    }
    if (moves) side.pick(link, unit);
    else side.unit = unit;
    this.benches[side.number].show({ anew: turns });
    this.rest();
  }

  choose(side, row, unit) { this.pick(side, side.link, [row, unit]); }

  surprise(side) {
    const all = side.net.allTrue();
    if (all.length) this.pick(side, all[Math.floor(Math.random() * all.length)]);
  }

  reset(side, link) { this.move(side, link, side.originalOf(link)); }

  restore(side) {
    side.restore();
    this.after(side);
    this.driver = side;
    this.rest();
  }

  // A weight is moved: drawn at once, or in the next frame where this one has drawn already, whatever came in between.
  move(side, link, value, event = null) {
    this.pick(side, link, side.unit);
    side.matched = null;
    this.round++;
    this.moved = { side, link, value, since: event ? event.timeStamp : performance.now() };
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (this.moved) this.draw();
    });
    this.draw();
  }

  draw() {
    const { side, link, value, since } = this.moved;
    this.moved = null;
    this.driver = side;
    side.set(link, value);
    this.after(side);
    this.host.dispatchEvent(new CustomEvent("wheeltap:drawn", { detail: { side: side.number, ms: performance.now() - since } }));
    if (this.matching) this.followers(side).forEach(other => this.follow(other));
    this.rest();
  }

  after(side) {
    this.panels[side.number].draw();
    this.benches[side.number].refresh();
  }

  followers(side) { return this.sides.filter(other => other !== side); }

  // Moves the picked weight of another net by the step that changes its picture as much.
  follow(other) {
    const sign = Math.sign(this.driver.delta());
    if (sign === 0) this.step(other, { step: 0, reached: true });
    else if (other.curves[sign] && other.curves[-sign]) this.step(other, other.match(this.driver.effect.rmse, sign));
  }

  step(other, found) {
    other.set(other.link, other.originalOf(other.link) + found.step);
    other.matched = found.step === 0 && this.driver.delta() === 0 ? null : found;
    this.after(other);
  }

  rematch() {
    if (!this.matching) this.sides.forEach(side => { side.matched = null; });
    this.driver = this.driver || this.sides[0];
    this.changed();
  }

  changed() {
    this.benches.forEach(bench => bench.refresh());
    this.rest();
  }

  // Once nothing has moved for a while: equal effects to the figure, fine pictures, maps, strips. A move stops it.
  rest(pause = PAUSE) {
    const round = ++this.round, work = this.finer();
    this.host.dataset.state = "working";
    const slice = () => {
      if (round !== this.round) return;
      const until = performance.now() + SLICE;
      let done = false;
      while (!done && performance.now() < until) done = work.next().done;
      if (!done) setTimeout(slice);
      else this.finish();
    };
    setTimeout(slice, pause);
  }

  *finer() {
    if (this.matching) yield* this.even();
    for (const side of this.sides) {
      const bench = this.benches[side.number];
      yield* bench.maps.draw();
      bench.unit.drawMap();
      yield* bench.drawStrip();
    }
    for (const side of this.sides) {
      if (!side.coarseGrained) continue;
      const pixels = new ImageData(FINE_SIZE, FINE_SIZE);
      yield* side.fine(pixels);
      this.panels[side.number].big.getContext("2d").putImageData(pixels, 0, 0);
    }
  }

  *even() {
    const sign = Math.sign(this.driver.delta()), target = this.driver.effect.rmse;
    for (const other of this.followers(this.driver)) {
      yield* other.measure(1);
      yield* other.measure(-1);
      const found = sign === 0 ? null : other.match(target, sign);
      if (!found) this.follow(other);
      else {
        if (found.bracket) found.step = yield* other.refine(target, found.bracket);
        this.step(other, found);
      }
    }
  }

  finish() {
    this.host.dataset.state = "settled";
    const told = side => `${side.net.name}: change ${number(side.effect.rmse)}, symmetric share ${number(side.effect.share, 2)}`;
    this.status.textContent = this.sides.map(told).join("; ");
    if (this.addressed) this.remember();
    this.host.dispatchEvent(new CustomEvent("wheeltap:settled"));
  }

  // The state as part of the address, so that a link brings the same view back.
  remember() {
    const dotted = link => link.join(".");
    const each = this.sides.map(side => [dotted(side.link), dotted(side.unit),
      ...[...side.edits.values()].map(link => `${dotted(link)}:${Number(side.valueOf(link).toPrecision(6))}`)].join(","));
    const text = `#sweep=${each.join(";")}&range=${this.reach}${this.matching ? "&equal" : ""}`;
    try {
      history.replaceState(null, "", text);
    } catch {
      this.addressed = false; // A page without an address of its own keeps no state.
    }
  }

  recall() {
    const found = /^#sweep=([^&]*)&range=(0\.25|1|3|absolute)(&equal)?$/.exec(location.hash);
    if (!found) return;
    this.reach = found[2];
    this.matching = Boolean(found[3]) && this.sides.length > 1;
    this.driver = this.sides[0];
    found[1].split(";").slice(0, this.sides.length).forEach((text, number) => {
      const side = this.sides[number], [link, unit, ...edits] = text.split(",");
      const [picked, chosen] = [link, unit || ""].map(one => one.split(".").map(Number));
      const there = chosen.length === 2 && side.net.widths[chosen[0]] > chosen[1];
      if (picked.length === 3 && side.net.has(picked)) side.pick(picked, there ? chosen : undefined);
      for (const edit of edits) {
        const [where, value] = edit.split(":"), moved = where.split(".").map(Number);
        if (moved.length === 3 && side.net.has(moved) && Number.isFinite(Number(value))) side.set(moved, Number(value));
      }
    });
  }
}

const host = document.currentScript.closest(".wheeltap-explorer");
const shadow = host.attachShadow({ mode: "open" });
shadow.append(host.querySelector("template").content.cloneNode(true));
host.explorer = new Explorer(host, JSON.parse(host.querySelector("script[type='application/json']").textContent));
