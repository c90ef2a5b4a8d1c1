// One net on the page: its weights as they stand, the one that is picked, and the pictures they give.

const LIVE_SIZE = 64; // Pictures while a slider moves, feature maps, and every number shown.
const FINE_SIZE = 256; // The picture once the slider rests.
const COARSE_SIZE = 32; // Where the step of equal effect is looked for first.
const BAND = 1024; // Pixels of the fine picture worked on at a time, so that a slider never waits long.
const REACH = 8; // Largest change of a weight tried when looking for an equal effect.
const STEPS = 24; // Steps tried up to REACH, closer together near 0.

class Side {
  constructor(net, number, options) {
    this.net = net;
    this.number = number;
    this.original = net.kernels;
    this.weights = net.kernels.map(kernel => kernel.slice());
    this.edits = new Map();
    const points = [LIVE_SIZE ** 2, LIVE_SIZE ** 2, COARSE_SIZE ** 2, COARSE_SIZE ** 2, BAND];
    const arena = new Arena(points.reduce((sum, n) => sum + Sheet.floats(net, n), 0), options);
    this.live = new Sheet(net, net.inputs(LIVE_SIZE), arena);
    this.trial = new Sheet(net, net.inputs(LIVE_SIZE), arena);
    this.coarse = new Sheet(net, net.inputs(COARSE_SIZE), arena);
    this.coarseTrial = new Sheet(net, net.inputs(COARSE_SIZE), arena);
    this.band = new Sheet(net, net.inputs(FINE_SIZE, 0, BAND), arena);
    this.live.run(this.weights);
    this.coarse.run(this.weights);
    this.rgb = this.live.paint();
    this.base = this.rgb.slice();
    this.coarseBase = this.coarse.paint();
    this.trialRgb = new Float32Array(this.rgb.length);
    this.coarseRgb = new Float32Array(this.coarseBase.length);
    this.coarseBehind = false;
    this.stale = net.widths.map(width => new Uint8Array(width).fill(1));
    this.coarseGrained = true; // The picture shown is not yet the fine one.
    this.effect = { rmse: 0, share: NaN };
    this.matched = null;
    this.curves = {};
    this.link = null;
    this.unit = null;
  }

  valueOf(link) { return this.weights[link[0]][this.net.index(link)]; }
  originalOf(link) { return this.original[link[0]][this.net.index(link)]; }
  delta() { return this.valueOf(this.link) - this.originalOf(this.link); }

  pick(link, unit = [link[0] + 1, link[2]]) {
    this.link = link;
    this.unit = unit;
    this.matched = null;
    this.curves = {};
  }

  // Sets one weight and draws what follows from it.
  set(link, value) {
    const [k, , j] = link;
    this.put(link, value);
    const anew = atOnce(this.live.update(this.weights, k, j));
    anew.forEach((row, l) => row.forEach((one, u) => { if (one) this.stale[l][u] = 1; }));
    this.coarseBehind = true;
    if (!this.link || keyOf(link) !== keyOf(this.link)) this.curves = {};
    this.redraw();
  }

  put(link, value) {
    this.weights[link[0]][this.net.index(link)] = value;
    if (this.valueOf(link) === this.originalOf(link)) this.edits.delete(keyOf(link));
    else this.edits.set(keyOf(link), link);
  }

  redraw() {
    this.coarseGrained = true;
    this.live.paint(this.rgb);
    this.effect = compare(this.rgb, this.base, LIVE_SIZE);
  }

  restore() {
    for (const link of [...this.edits.values()]) this.set(link, this.originalOf(link));
    this.matched = null;
  }

  // The picture with the picked weight at another value, all else as it stands.
  *tryValue(value, { coarse = false } = {}) {
    const [trial, sheet, rgb] = coarse ? [this.coarseTrial, this.coarse, this.coarseRgb]
      : [this.trial, this.live, this.trialRgb];
    const [k, , j] = this.link, weights = this.weights.slice();
    weights[k] = weights[k].slice();
    weights[k][this.net.index(this.link)] = value;
    yield* trial.update(weights, k, j, sheet);
    return trial.paint(rgb);
  }

  *effectOf(step, { coarse = false } = {}) {
    const rgb = yield* this.tryValue(this.originalOf(this.link) + step, { coarse });
    return coarse ? compare(rgb, this.coarseBase, COARSE_SIZE).rmse : compare(rgb, this.base, LIVE_SIZE).rmse;
  }

  // How the effect grows with a step of the picked weight in one direction: steps and their RMSE, coarsely.
  *measure(sign) {
    if (this.curves[sign]) return;
    if (this.coarseBehind) this.coarse.run(this.weights);
    this.coarseBehind = false;
    const curve = [];
    for (let n = 0; n <= STEPS; n++) {
      const step = sign * REACH * (n / STEPS) ** 2;
      curve.push([step, yield* this.effectOf(step, { coarse: true })]);
    }
    this.curves[sign] = curve;
  }

  // The smallest step whose effect reaches the target, and the bracket it lies in: in the given direction if there is
  // one, else in the other; where none does, the step of the largest effect.
  match(target, sign) {
    for (const curve of [this.curves[sign], this.curves[-sign]]) {
      const n = curve.findIndex(([, rmse]) => rmse >= target);
      if (n === 0) return { step: 0, bracket: null, reached: true };
      if (n > 0) {
        const [[low, less], [high, more]] = [curve[n - 1], curve[n]];
        return { step: low + (high - low) * (target - less) / (more - less), bracket: [low, high], reached: true };
      }
    }
    const best = [...this.curves[sign], ...this.curves[-sign]].reduce((a, b) => (b[1] > a[1] ? b : a));
    return { step: best[0], bracket: null, reached: false };
  }

  // The same step to three figures, by bisection on the pictures themselves.
  *refine(target, [low, high]) {
    for (let n = 0; n < 9; n++) {
      const middle = (low + high) / 2;
      if ((yield* this.effectOf(middle)) < target) low = middle;
      else high = middle;
    }
    return (low + high) / 2;
  }

  // The picture at full size, a band at a time.
  *fine(pixels) {
    for (let first = 0; first < FINE_SIZE ** 2; first += BAND) {
      this.band.feed(this.net.inputs(FINE_SIZE, first, first + BAND));
      this.band.run(this.weights);
      spread(this.band.paint(), pixels.data, first);
      yield;
    }
    this.coarseGrained = false;
  }
}

// Colours in [0, 1] into the bytes of a picture, from a pixel on.
function spread(rgb, bytes, first = 0) {
  for (let p = 0; p < rgb.length / 3; p++) {
    for (let c = 0; c < 3; c++) bytes[4 * (first + p) + c] = Math.round(255 * rgb[3 * p + c]);
    bytes[4 * (first + p) + 3] = 255;
  }
}
