/**
 * What the server knows about slices, in the order of OHIF's label map.
 *
 * The server counts along the label map that it got last. Before it got one, for a label that somebody else stored, it
 * counts along the image's own axes, which may be other ones.
 */
import { axesIn, scale } from './geometry.js';

/** @typedef {import('./geometry.js').Grid} Grid */
/** @typedef {import('./api.js').State} State */

/**
 * @param {State} state
 * @param {Grid} target
 * @returns {State} the same in the order of the target
 */
export function inOrderOf(state, target) {
  const { size, spacing, origin, directions } = state.grid;
  const step = (/** @type {number} */ axis) => scale(directions[axis], spacing[axis]);
  /** @type {Grid} */
  const grid = { size, origin, directions: [step(0), step(1), step(2)] };
  const axes = axesIn(grid, target);
  if (axes.every(({ from, turned }, axis) => from === axis && !turned)) return state;

  /** @type {State['slices']} */
  const slices = {};
  /** @type {State['confidence']} */
  const confidence = {};
  /** @type {State['suggested']} */
  const suggested = {};
  for (const [value, said] of Object.entries(state.slices)) {
    const axis = axes.findIndex(({ from }) => from === said.axis);
    const place = (/** @type {number} */ index) => (axes[axis].turned ? target.size[axis] - 1 - index : index);
    const all = (/** @type {number[]} */ indices) => indices.map(place).sort((a, b) => a - b);
    const { painted, propagated, accepted, absent } = said;
    slices[value] = {
      axis,
      painted: all(painted),
      propagated: all(propagated),
      accepted: all(accepted),
      absent: all(absent),
    };
    const sure = Object.entries(state.confidence[value] ?? {});
    confidence[value] = Object.fromEntries(sure.map(([index, one]) => [place(Number(index)), one]));
    if (state.suggested[value] !== undefined) suggested[value] = place(state.suggested[value]);
  }
  return { ...state, slices, confidence, suggested };
}
