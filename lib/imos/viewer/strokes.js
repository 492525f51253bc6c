/**
 * What the hand changed: every stroke as the voxels it changed, and the slices it touched.
 *
 * OHIF's tools write into the label map and say only that something changed. After each stroke the label map is compared
 * with what it was before. So every tool of OHIF counts (brush, eraser, scissors, threshold), in every plane, and every
 * stroke can be undone.
 *
 * @typedef {{axis: number, indices: number[], at: Uint32Array, before: Uint8Array, after: Uint8Array,
 *   sent: string | null}} Stroke `sent`: the run that took it along
 */

/** @typedef {import('./labelmap.js').Labelmap} Labelmap */

/**
 * Compare the label map with what it was; changes of locked segments are taken back.
 *
 * @param {Labelmap} labelmap
 * @param {Uint8Array} known what it was; brought up to date
 * @param {Set<number>} locked values that must not change
 * @param {number | null} axis across the view that was painted in; null: the axis along which the stroke is thinnest
 * @returns {{stroke: Stroke | null, refused: number[]}} the values that were locked
 */
export function takeStroke(labelmap, known, locked, axis) {
  /** @type {number[]} */
  const at = [];
  /** @type {number[]} */
  const after = [];
  const refused = new Set();
  for (let k = 0; k < labelmap.images.length; k++) {
    const live = labelmap.slice(k);
    const offset = k * labelmap.area;
    for (let n = 0; n < live.length; n++) {
      const was = known[offset + n];
      if (live[n] === was) continue;
      const value = [was, live[n]].find((one) => locked.has(one));
      if (value !== undefined) {
        refused.add(value);
        live[n] = was;
      } else {
        at.push(offset + n);
        after.push(live[n]);
      }
    }
  }
  if (refused.size) labelmap.show();
  if (!at.length) return { stroke: null, refused: [...refused] };
  const before = at.map((place) => known[place]);
  at.forEach((place, n) => (known[place] = after[n]));
  const touched = slicesTouched(labelmap, at);
  const thinnest = touched.reduce((best, one, a) => (one.length < touched[best].length ? a : best), 2);
  const across = axis ?? thinnest;
  const stroke = {
    axis: across,
    indices: touched[across],
    at: Uint32Array.from(at),
    before: Uint8Array.from(before),
    after: Uint8Array.from(after),
    sent: null,
  };
  return { stroke, refused: [...refused] };
}

/**
 * Slices along each of the three axes.
 *
 * @param {Labelmap} labelmap
 * @param {ArrayLike<number>} at
 * @returns {number[][]}
 */
function slicesTouched(labelmap, at) {
  const seen = labelmap.grid.size.map((n) => new Uint8Array(n));
  for (let n = 0; n < at.length; n++) {
    for (let axis = 0; axis < 3; axis++) seen[axis][indexAlong(labelmap, at[n], axis)] = 1;
  }
  return seen.map((flags) => [...flags.keys()].filter((index) => flags[index]));
}

function indexAlong(/** @type {Labelmap} */ labelmap, /** @type {number} */ place, /** @type {number} */ axis) {
  return Math.floor(place / labelmap.stride(axis)) % labelmap.grid.size[axis];
}

/**
 * Slices touched by hand and the objects each speaks for, as the server wants them.
 *
 * What was painted counts, and what was erased. An object that another one was painted over counts only where it had
 * been painted itself: elsewhere its outline on the slice was not the hand's.
 *
 * @param {Labelmap} labelmap
 * @param {Stroke[]} strokes
 * @param {(value: number, axis: number, index: number) => boolean} wasPainted
 * @returns {import('./api.js').Edit[]}
 */
export function editsOf(labelmap, strokes, wasPainted) {
  /** @type {Map<string, {axis: number, index: number, values: Set<number>}>} */
  const edits = new Map();
  for (const { axis, at, before, after } of strokes) {
    for (let n = 0; n < at.length; n++) {
      const index = indexAlong(labelmap, at[n], axis);
      const key = `${axis}:${index}`;
      const edit = edits.get(key) ?? { axis, index, values: new Set() };
      edits.set(key, edit);
      if (after[n]) edit.values.add(after[n]);
      const covered = before[n];
      if (covered && (!after[n] || edit.values.has(covered) || wasPainted(covered, axis, index))) {
        edit.values.add(covered);
      }
    }
  }
  return [...edits.values()].map((edit) => ({ ...edit, values: [...edit.values].sort((a, b) => a - b) }));
}

/** Put a stroke into the label map (again), or take it out of it; `known` follows. */
export function applyStroke(
  /** @type {Labelmap} */ labelmap,
  /** @type {Uint8Array} */ known,
  /** @type {Stroke} */ stroke,
  /** @type {'before' | 'after'} */ side,
) {
  const values = stroke[side];
  labelmap.put(stroke.at, values);
  stroke.at.forEach((place, n) => (known[place] = values[n]));
}
