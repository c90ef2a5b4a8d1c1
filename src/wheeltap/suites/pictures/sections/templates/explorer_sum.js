// Weighted sums of maps: nearly all of the time goes here. Four numbers at a time through a WebAssembly function of one
// loop, several times as fast as the plain loop that stands in where the browser has none or the page does not allow it.

// A count in WebAssembly's variable-length form, and a list with its length in front.
const leb = n => (n < 128 ? [n] : [n & 127 | 128, ...leb(n >> 7)]);
const sized = items => [...leb(items.length), ...items];
const section = (id, ...entries) => [id, ...sized([...leb(entries.length), ...entries.flat()])];

// (out, a, b, c, d: addresses, w0, w1, w2, w3: weights, end: address): out += w0 a + w1 b + w2 c + w3 d, up to end.
function sumModule() {
  const I32 = 0x7f, F32 = 0x7d, V128 = 0x7b, END = 0x0b;
  const get = n => [0x20, n], set = n => [0x21, n];
  const load = [0xfd, 0x00, 4, 0], store = [0xfd, 0x0b, 4, 0], splat = [0xfd, 0x13];
  const multiply = [0xfd, 0xe6, 0x01], add = [0xfd, 0xe4, 0x01];
  const [out, maps, weights, end, wide] = [0, [1, 2, 3, 4], [5, 6, 7, 8], 9, [10, 11, 12, 13]];
  const body = [
    1, 4, V128, // four locals: each weight four times
    ...weights.flatMap((w, n) => [...get(w), ...splat, ...set(wide[n])]),
    0x03, 0x40, // loop
    ...get(out), ...get(out), ...load,
    ...maps.flatMap((map, n) => [...get(map), ...load, ...get(wide[n]), ...multiply, ...add]),
    ...store,
    ...[out, ...maps].flatMap(at => [...get(at), 0x41, 16, 0x6a, ...set(at)]), // 16 bytes on
    ...get(out), ...get(end), 0x49, 0x0d, 0, END, // again while out < end
    END,
  ];
  return new Uint8Array([
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, [0x60, ...sized([I32, I32, I32, I32, I32, F32, F32, F32, F32, I32]), 0]),
    ...section(2, [1, 0x6d, 1, 0x6d, 2, 0, 1]), // imports memory m.m
    ...section(3, [0]),
    ...section(7, [1, 0x66, 0, 0]), // exports the function as f
    ...section(10, sized(body)),
  ]);
}

// Memory for a given number of maps' values, and sums over maps that lie in it.
class Arena {
  constructor(floats, { webassembly }) {
    this.next = 0;
    this.sum = null;
    if (!webassembly) return;
    try {
      this.memory = new WebAssembly.Memory({ initial: Math.ceil(floats / 16384) + 1 });
      this.sum = new WebAssembly.Instance(new WebAssembly.Module(sumModule()), { m: { m: this.memory } }).exports.f;
    } catch {
      this.sum = null;
    }
  }

  take(length) {
    if (!this.sum) return new Float32Array(length);
    const taken = new Float32Array(this.memory.buffer, this.next, length);
    this.next += 4 * length;
    return taken;
  }

  // Adds to `out` the maps m to m+3, times their weights.
  add(out, maps, weights, m) {
    const a = maps[m], b = maps[m + 1], c = maps[m + 2], d = maps[m + 3];
    const w0 = weights[m], w1 = weights[m + 1], w2 = weights[m + 2], w3 = weights[m + 3];
    if (this.sum) {
      const end = out.byteOffset + out.byteLength;
      this.sum(out.byteOffset, a.byteOffset, b.byteOffset, c.byteOffset, d.byteOffset, w0, w1, w2, w3, end);
    } else {
      for (let p = 0; p < out.length; p++) out[p] += w0 * a[p] + w1 * b[p] + w2 * c[p] + w3 * d[p];
    }
  }
}
