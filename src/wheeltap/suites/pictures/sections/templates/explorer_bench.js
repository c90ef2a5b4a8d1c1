// The controls of one net: the picked weight with its sweep, the named weights, the maps and the picked unit.

const STRIP = [0, 0.25, 0.5, 0.75, 1]; // Where in the slider's range the five small pictures are taken.

class Bench {
  constructor(app, side) {
    Object.assign(this, { app, side });
    this.maps = new Maps(side, (row, unit) => app.choose(side, row, unit));
    this.unit = new UnitPanel(app, side, this.maps);
    this.stripKey = "";
    const { net } = side, name = net.name, own = this.newUnits();
    const about = `${net.depth} layers of ${net.kinds.length} units; inputs on top, hue, saturation and brightness below. `
      + `${own} unit${own === 1 ? " makes a map of its" : "s make a map of their"} own (framed); pale ones carry a copy on.`;
    this.element = h("section", { class: "bench", "data-side": side.number, "aria-label": `Controls of ${name}` },
      h("h3", { class: "again" }, name), this.weightBox(), this.named(),
      h("h4", {}, "Feature maps"), h("p", { class: "small" }, about),
      this.maps.element, this.unit.element);
  }

  newUnits() {
    const { net, live } = this.side;
    const rows = Array.from({ length: net.depth }, (_, n) => n + 1);
    const own = (row, unit) => net.copyOf(row, unit) < 0 && !isConstant(live.rows[row][unit]);
    return rows.reduce((count, row) => count + net.kinds.filter((_, unit) => own(row, unit)).length, 0);
  }

  weightBox() {
    const { app, side } = this;
    this.title = h("h4");
    this.sub = h("p", { class: "small" });
    this.slider = new Slider(app, side, side.link, { "aria-label": "Picked weight" });
    this.exact = h("input", {
      type: "number", step: "0.05", "aria-label": "Value of the picked weight",
      oninput: event => {
        const value = this.exact.valueAsNumber;
        if (Number.isFinite(value)) app.move(side, side.link, value, event);
      },
    });
    this.note = h("p", { class: "small note" });
    this.strip = STRIP.map(at => {
      const picture = canvas(LIVE_SIZE, { "aria-hidden": "true" }), caption = h("span");
      const element = button("", event => app.move(side, side.link, this.stripValue(at), event));
      element.append(picture, caption);
      return { at, picture, caption, element };
    });
    this.restore = button("Undo all", () => app.restore(side), { disabled: true });
    const pictures = { class: "strip", role: "group", "aria-label": "The picture at five values of this weight" };
    return h("div", { class: "box" }, this.title, this.sub,
      h("div", { class: "drag" }, this.slider.input, this.exact),
      h("div", pictures, ...this.strip.map(one => one.element)),
      this.note,
      h("div", { class: "buttons" },
        button("Reset weight (R)", () => app.reset(side, side.link)), this.restore,
        button("Surprise me", () => app.surprise(side))));
  }

  named() {
    const { app, side } = this, { net } = side;
    this.names = new Map();
    for (const [key, label] of net.labels) {
      const link = key.split(",").map(Number);
      this.names.set(key, button(label, () => app.pick(side, link), { title: linkName(net, link) }));
    }
    const none = h("p", { class: "small" }, "No weight of this net has a name.");
    const chips = this.names.size ? this.names.values() : [none];
    return h("div", { class: "named" }, h("h4", {}, "Named weights"), h("div", { class: "chips" }, ...chips));
  }

  // After another weight or unit was picked.
  show({ anew = true } = {}) {
    const { side } = this, { net, link } = side, label = net.labels.get(keyOf(link));
    this.title.textContent = label || linkName(net, link);
    const place = `(${link[0]}, ${link[1]}\u2192${link[2]})`, was = `originally ${number(side.originalOf(link))}`;
    this.sub.textContent = `${label ? `${linkName(net, link)} ` : ""}${place}, ${was}`;
    this.slider.link = link;
    this.slider.input.setAttribute("aria-label", label || linkName(net, link));
    for (const [key, chip] of this.names) chip.setAttribute("aria-pressed", String(key === keyOf(link)));
    this.maps.select(side.unit);
    if (anew) this.unit.show();
    this.unit.drawMap();
    this.refresh();
  }

  // After a weight moved.
  refresh() {
    const { side } = this, value = side.valueOf(side.link);
    this.slider.show();
    if (this.exact.getRootNode().activeElement !== this.exact) this.exact.value = value.toFixed(3);
    this.restore.disabled = side.edits.size === 0;
    this.note.textContent = this.noteText();
    this.unit.refresh();
    for (const one of this.strip) {
      const its = this.stripValue(one.at);
      one.element.classList.toggle("here", Math.abs(its - value) < 1e-6);
    }
  }

  noteText() {
    const { matched, edits, link } = this.side, others = [...edits.keys()].filter(key => key !== keyOf(link)).length;
    const words = [];
    if (matched) {
      const step = `step ${matched.step >= 0 ? "+" : ""}${number(matched.step)}`;
      words.push(matched.reached ? `Follows at equal effect: ${step}.`
        : `Cannot reach that effect; its largest is at ${step}: try another weight.`);
    }
    if (others) words.push(`${others} other weight${others > 1 ? "s are" : " is"} moved as well.`);
    return words.join(" ");
  }

  stripValue(at) {
    const was = this.side.originalOf(this.side.link), [low, high] = this.app.range(was);
    return at === 0.5 && low + high === 2 * was ? was : low + at * (high - low);
  }

  // The five small pictures, where anything they depend on has changed.
  *drawStrip() {
    const { side } = this, others = [...side.edits.keys()].filter(key => key !== keyOf(side.link));
    const settings = others.map(other => `${other}=${side.valueOf(side.edits.get(other))}`);
    const key = [keyOf(side.link), this.app.reach, ...settings].join(" ");
    if (key === this.stripKey) return;
    for (const one of this.strip) {
      const value = this.stripValue(one.at), pixels = new ImageData(LIVE_SIZE, LIVE_SIZE);
      spread(yield* side.tryValue(value), pixels.data);
      one.picture.getContext("2d").putImageData(pixels, 0, 0);
      one.caption.textContent = number(value, 2);
      one.element.setAttribute("aria-label", `Set this weight to ${number(value, 2)}`);
    }
    this.stripKey = key;
    this.refresh();
  }
}
