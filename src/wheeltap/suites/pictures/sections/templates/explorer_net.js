// A layered picture-producing net: its kernels, what its units are, and what it draws.
// Row 0 holds the inputs, rows 1 to L the hidden units, row L+1 hue, saturation and brightness. Kernel k leads from row k to k+1.

const INPUTS = ["x", "y", "distance from the centre", "constant 1"];
const OUTPUTS = ["hue", "saturation", "brightness"];
const LIVE = 1e-4; // Standard deviation below which a map counts as constant.

// Tables stand in for Math.exp and Math.sin, which cost ten times as much; they agree to 1e-8.
const DECAY = Float64Array.from({ length: 64 * 40 + 1 }, (_, n) => Math.exp(-n / 64));
const TURN = 1024 / (2 * Math.PI);
const SINE = Float64Array.from({ length: 1024 }, (_, n) => Math.sin(n / TURN));

function decay(t) { // exp(-t) for t >= 0
  if (!(t < 40)) return 0;
  const n = Math.floor(64 * t), r = t - n / 64;
  return DECAY[n] * (1 - r * (1 - r * (1 / 2 - r / 6)));
}

function sine(t) {
  const n = Math.round(t * TURN), r = t - n / TURN;
  return SINE[n & 1023] * (1 - r * r / 2) + SINE[(n + 256) & 1023] * (r - r * r * r / 6);
}

function squash(t) { // 2 / (1 + exp(-t)) - 1
  const e = decay(Math.abs(t)), s = (1 - e) / (1 + e);
  return t < 0 ? -s : s;
}

// Each works in place. One loop per kind, so that the engine compiles each for itself.
const ACTIVATIONS = {
  cache() {},
  identity() {},
  sin(a) { for (let p = 0; p < a.length; p++) a[p] = sine(a[p]); },
  cos(a) { for (let p = 0; p < a.length; p++) a[p] = sine(a[p] + Math.PI / 2); },
  tanh(a) { for (let p = 0; p < a.length; p++) a[p] = squash(2 * a[p]); },
  sigmoid(a) { for (let p = 0; p < a.length; p++) a[p] = squash(a[p]); },
  gaussian(a) { for (let p = 0; p < a.length; p++) a[p] = 2 * decay(a[p] * a[p]) - 1; },
  relu(a) { for (let p = 0; p < a.length; p++) if (a[p] < 0) a[p] = 0; },
  abs(a) { for (let p = 0; p < a.length; p++) a[p] = Math.abs(a[p]); },
};

function floats(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let n = 0; n < text.length; n++) bytes[n] = text.charCodeAt(n);
  return new Float32Array(bytes.buffer);
}

const keyOf = link => link.join(",");

class Net {
  constructor(data) {
    this.name = data.name;
    this.depth = data.depth;
    this.blocks = data.blocks;
    this.kinds = data.blocks.flatMap(([kind, count]) => Array(count).fill(kind));
    this.fold = data.fold;
    this.widths = [4, ...Array(data.depth).fill(this.kinds.length), 3];
    this.kernels = data.kernels.map(floats);
    this.labels = new Map(Object.entries(data.labels));
    this.links = data.links.length ? new Set(data.links.map(keyOf)) : null;
  }

  index([k, i, j]) { return i * this.widths[k + 1] + j; }
  weight(link) { return this.kernels[link[0]][this.index(link)]; }
  kind(row, unit) { return row === 0 ? "input" : row > this.depth ? "output" : this.kinds[unit]; }
  isTrue(link) { return this.links ? this.links.has(keyOf(link)) : this.weight(link) !== 0; }

  has([k, i, j]) {
    return k >= 0 && k <= this.depth && i >= 0 && i < this.widths[k] && j >= 0 && j < this.widths[k + 1];
  }

  linksInto(row, unit) {
    return row ? Array.from({ length: this.widths[row - 1] }, (_, i) => [row - 1, i, unit]) : [];
  }

  linksOutOf(row, unit) {
    return row > this.depth ? [] : Array.from({ length: this.widths[row + 1] }, (_, j) => [row, unit, j]);
  }

  // The unit below of which this one is a mere copy (weight 1, nothing else, no activation), or -1.
  copyOf(row, unit) {
    if (row === 0 || !["cache", "identity", "output"].includes(this.kind(row, unit))) return -1;
    const fed = this.linksInto(row, unit).filter(link => this.weight(link) !== 0);
    return fed.length === 1 && this.weight(fed[0]) === 1 ? fed[0][1] : -1;
  }

  allTrue() {
    if (this.links) return [...this.links].map(key => key.split(",").map(Number));
    const found = [];
    for (let k = 0; k <= this.depth; k++) {
      for (let i = 0; i < this.widths[k]; i++) {
        for (let j = 0; j < this.widths[k + 1]; j++) if (this.weight([k, i, j]) !== 0) found.push([k, i, j]);
      }
    }
    return found;
  }

  // The inputs at pixels first to last of a square picture, rows from the top: y = -1 is the top row.
  inputs(size, first = 0, last = size * size) {
    const rows = Array.from({ length: 4 }, () => new Float32Array(last - first));
    for (let p = first; p < last; p++) {
      const x = -1 + 2 * (p % size) / (size - 1), y = -1 + 2 * Math.floor(p / size) / (size - 1);
      rows[0][p - first] = this.fold === "abs-x" ? Math.abs(x) : x;
      rows[1][p - first] = y;
      rows[2][p - first] = 1.4 * Math.sqrt(x * x + y * y);
      rows[3][p - first] = 1;
    }
    return rows;
  }
}

// The activations of a net at a set of points, kept so that a changed weight costs only what depends on it.
class Sheet {
  constructor(net, inputs, arena) {
    const points = inputs[0].length;
    this.net = net;
    this.arena = arena;
    this.own = net.widths.map(width => Array.from({ length: width }, () => arena.take(points)));
    this.rows = this.own.map(row => row.slice());
    this.zero = arena.take(points);
    this.feed(inputs);
  }

  // Values that a sheet takes of an arena.
  static floats(net, points) { return points * (1 + net.widths.reduce((a, b) => a + b)); }

  feed(inputs) { inputs.forEach((values, i) => this.own[0][i].set(values)); }

  run(weights) {
    for (let k = 0; k <= this.net.depth; k++) this.compute(weights, k, [...Array(this.net.widths[k + 1]).keys()]);
  }

  // After a change of weights into unit j of row k+1. What does not depend on it is read from `base`.
  // Returns, for each row, which units were computed anew; pauses after each row, where others may want to go first.
  *update(weights, k, j, base = this) {
    const { widths, depth } = this.net;
    if (base !== this) this.rows = base.rows.map(row => row.slice());
    let dirty = new Uint8Array(widths[k + 1]);
    dirty[j] = 1;
    const all = widths.map(width => new Uint8Array(width));
    for (let q = k; q <= depth; q++) {
      if (q > k) dirty = this.dependents(weights[q], dirty, widths[q + 1]);
      all[q + 1] = dirty;
      this.compute(weights, q, [...dirty.keys()].filter(u => dirty[u]));
      yield;
    }
    return all;
  }

  dependents(kernel, dirty, width) {
    const next = new Uint8Array(width);
    for (let i = 0; i < dirty.length; i++) {
      if (dirty[i]) for (let j = 0; j < width; j++) if (kernel[i * width + j] !== 0) next[j] = 1;
    }
    return next;
  }

  compute(weights, k, units) {
    for (const unit of units) {
      this.rows[k + 1][unit] = this.own[k + 1][unit];
      this.sum(weights[k], k, unit);
      if (k < this.net.depth) ACTIVATIONS[this.net.kinds[unit]](this.own[k + 1][unit]);
    }
  }

  sum(kernel, k, j) {
    const width = this.net.widths[k + 1], below = this.rows[k], maps = [], weights = [], out = this.own[k + 1][j];
    for (let i = 0; i < below.length; i++) {
      const w = kernel[i * width + j];
      if (w !== 0) maps.push(below[i]), weights.push(w);
    }
    while (maps.length % 4) maps.push(this.zero), weights.push(0);
    out.fill(0);
    for (let m = 0; m < maps.length; m += 4) this.arena.add(out, maps, weights, m);
  }

  // Red, green and blue in [0, 1], pixel by pixel.
  paint(rgb = new Float32Array(3 * this.own[0][0].length)) {
    const [hue, saturation, brightness] = this.rows[this.net.depth + 1];
    for (let p = 0; p < hue.length; p++) {
      const h = 6 * (hue[p] - Math.floor(hue[p])), s = Math.min(1, Math.max(0, saturation[p]));
      const v = Math.min(1, Math.abs(brightness[p])), vs = v * s;
      for (let c = 0; c < 3; c++) {
        const turned = 5 - 2 * c + h, k = turned < 6 ? turned : turned - 6;
        rgb[3 * p + c] = v - vs * Math.min(1, Math.max(0, Math.min(k, 4 - k)));
      }
    }
    return rgb;
  }
}

// Runs to the end, without a pause, what could pause.
function atOnce(work) {
  let step = work.next();
  while (!step.done) step = work.next();
  return step.value;
}

// How far a picture is from the original, and which share of the change is the same on both sides of the vertical axis.
function compare(rgb, original, size) {
  let total = 0, even = 0;
  for (let r = 0; r < size; r++) {
    for (let c = 0; c < size; c++) {
      const here = 3 * (r * size + c), there = 3 * (r * size + size - 1 - c);
      for (let q = 0; q < 3; q++) {
        const d = rgb[here + q] - original[here + q], mean = (d + rgb[there + q] - original[there + q]) / 2;
        total += d * d;
        even += mean * mean;
      }
    }
  }
  return { rmse: Math.sqrt(total / rgb.length), share: total > 0 ? even / total : NaN };
}

// ColorBrewer's RdBu, safe for the colour-blind: red -1, near-white 0, blue +1, as in the paper's figures.
const DIVERGING = [[178, 24, 43], [239, 138, 98], [247, 247, 247], [103, 169, 207], [33, 102, 172]];
const PALETTE = Uint8Array.from({ length: 3 * 257 }, (_, n) => {
  const at = Math.floor(n / 3) / 64, low = Math.min(3, Math.floor(at));
  return Math.round(DIVERGING[low][n % 3] + (at - low) * (DIVERGING[low + 1][n % 3] - DIVERGING[low][n % 3]));
});

function tint(pixels, p, value) {
  const at = 3 * Math.round(128 * (1 + Math.min(1, Math.max(-1, value))));
  pixels[4 * p] = PALETTE[at];
  pixels[4 * p + 1] = PALETTE[at + 1];
  pixels[4 * p + 2] = PALETTE[at + 2];
  pixels[4 * p + 3] = 255;
}

function isConstant(map) {
  let sum = 0, squares = 0;
  for (let p = 0; p < map.length; p++) sum += map[p];
  const mean = sum / map.length;
  for (let p = 0; p < map.length; p++) squares += (map[p] - mean) ** 2;
  return Math.sqrt(squares / map.length) <= LIVE;
}
