/**
 * Vectors and label map grids.
 *
 * A grid says where voxel (i, j, k) lies in the patient: `origin + i·directions[0] + j·directions[1] + k·directions[2]`
 * in mm, in DICOM's left-posterior-superior axes. `directions` include the spacing.
 *
 * @typedef {[number, number, number]} Vector
 * @typedef {{size: Vector, origin: Vector, directions: [Vector, Vector, Vector]}} Grid
 */
import { Said, text } from './messages.js';

/** @returns {Vector} */
export const vector = (/** @type {ArrayLike<number>} */ a) => [a[0], a[1], a[2]];
/** @returns {Vector} */
export const subtract = (/** @type {Vector} */ a, /** @type {Vector} */ b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
/** @returns {Vector} */
export const add = (/** @type {Vector} */ a, /** @type {Vector} */ b) => [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
/** @returns {Vector} */
export const scale = (/** @type {Vector} */ a, /** @type {number} */ s) => [a[0] * s, a[1] * s, a[2] * s];
export const dot = (/** @type {Vector} */ a, /** @type {Vector} */ b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
export const norm = (/** @type {Vector} */ a) => Math.hypot(...a);
/** @returns {Vector} */
export const cross = (/** @type {Vector} */ a, /** @type {Vector} */ b) => [
  a[1] * b[2] - a[2] * b[1],
  a[2] * b[0] - a[0] * b[2],
  a[0] * b[1] - a[1] * b[0],
];

/**
 * Where a voxel lies in the patient.
 *
 * @param {Grid} grid
 * @param {Vector} index
 * @returns {Vector}
 */
export function worldOf(grid, index) {
  const at = (/** @type {number} */ x) => index.reduce((sum, n, a) => sum + n * grid.directions[a][x], grid.origin[x]);
  return [at(0), at(1), at(2)];
}

/**
 * Which slice along an axis a point of the patient lies on. The axes of label maps are at right angles.
 *
 * @param {Grid} grid
 * @param {number} axis
 * @param {Vector} point
 */
export function sliceAt(grid, axis, point) {
  const step = grid.directions[axis];
  return Math.round(dot(subtract(point, grid.origin), step) / dot(step, step));
}

/**
 * The grid axis that a view looks along, and how far it is off.
 *
 * @param {Grid} grid
 * @param {Vector} normal unit vector
 * @returns {{axis: number, degrees: number}}
 */
export function axisAlong(grid, normal) {
  const cosines = grid.directions.map((step) => Math.abs(dot(step, normal)) / norm(step));
  const axis = cosines.indexOf(Math.max(...cosines));
  return { axis, degrees: (Math.acos(Math.min(1, cosines[axis])) * 180) / Math.PI };
}

/**
 * How the plane across an axis is called.
 *
 * @param {Grid} grid
 * @param {number} axis
 */
export function planeName(grid, axis) {
  const step = grid.directions[axis].map(Math.abs);
  return ['sagittal', 'coronal', 'axial'][step.indexOf(Math.max(...step))];
}

/**
 * How the axes of one grid run in another one that has the same voxels with axes swapped or turned round.
 *
 * @param {Grid} grid
 * @param {Grid} target
 * @returns {{from: number, turned: boolean}[]} for each axis of the target: the grid's axis along it, and whether that
 *   one runs the other way
 */
export function axesIn(grid, target) {
  const used = new Set();
  return target.directions.map((direction, axis) => {
    const { axis: from, degrees } = axisAlong(grid, scale(direction, 1 / norm(direction)));
    if (degrees > 2 || used.has(from) || grid.size[from] !== target.size[axis]) throw new Said(text.otherGrid);
    used.add(from);
    const turned = dot(grid.directions[from], direction) < 0;
    if (sliceAt(grid, from, target.origin) !== (turned ? grid.size[from] - 1 : 0)) throw new Said(text.otherGrid);
    return { from, turned };
  });
}

/**
 * Voxels of one grid in the order of another one that has the same voxels with axes swapped or turned round.
 *
 * @template {Uint8Array | Uint16Array} T
 * @param {{grid: Grid, voxels: T}} source
 * @param {Grid} target
 * @returns {T}
 */
export function reorder({ grid, voxels }, target) {
  const strides = [1, grid.size[0], grid.size[0] * grid.size[1]];
  const steps = [0, 0, 0];
  let start = 0;
  for (const [axis, { from, turned }] of axesIn(grid, target).entries()) {
    start += turned ? (grid.size[from] - 1) * strides[from] : 0;
    steps[axis] = turned ? -strides[from] : strides[from];
  }
  const [columns, rows, slices] = target.size;
  const out = /** @type {T} */ (voxels.slice());
  let to = 0;
  for (let k = 0; k < slices; k++) {
    for (let j = 0; j < rows; j++) {
      let at = start + k * steps[2] + j * steps[1];
      for (let i = 0; i < columns; i++, at += steps[0]) out[to++] = voxels[at];
    }
  }
  return out;
}
