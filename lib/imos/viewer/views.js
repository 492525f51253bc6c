/**
 * OHIF's views: which series they show, along which axis they look, on which slice they are; and how to jump.
 *
 * A stack view shows the images of the series; a volume view (MPR) shows any plane of them.
 */
import { add, axisAlong, dot, norm, scale, sliceAt, subtract, vector, worldOf } from './geometry.js';

/** @typedef {import('./geometry.js').Grid} Grid */
/** @typedef {import('./labelmap.js').Labelmap} Labelmap */
/** Views tilted more than this cut several slices. */
export const TILT_DEGREES = 1.5;

export class Views {
  /** @param {any} services OHIF's */
  constructor(services) {
    this.services = services;
  }

  /** @returns {string | null} */
  get activeId() {
    return this.services.viewportGridService.getState().activeViewportId ?? null;
  }

  /** The set of images in a view; null when it is empty or shows something that is no stack of images. */
  displaySet(/** @type {string | null} */ id) {
    const view = this.services.viewportGridService.getState().viewports.get(id);
    const sets = (view?.displaySetInstanceUIDs ?? []).map((/** @type {string} */ uid) =>
      this.services.displaySetService.getDisplaySetByUID(uid),
    );
    const isImages = (/** @type {any} */ set) => set?.imageIds?.length && !['SEG', 'RTSTRUCT', 'SR'].includes(set.Modality);
    return sets.find(isImages) ?? null;
  }

  /** @returns {string[]} the views that show a set of images */
  showing(/** @type {string} */ displaySetUid) {
    const { viewports } = this.services.viewportGridService.getState();
    return [...viewports.keys()].filter((id) => this.displaySet(id)?.displaySetInstanceUID === displaySetUid);
  }

  /** Cornerstone's side of a view; null while it is being made, and for 3-D views. */
  port(/** @type {string | null} */ id) {
    const port = id && this.services.cornerstoneViewportService.getCornerstoneViewport(id);
    return port && port.type !== 'volume3d' && port.getImageIds?.().length ? port : null;
  }

  /** @returns {string | null} the view that an element of the page belongs to */
  under(/** @type {EventTarget | null} */ target) {
    const { viewports } = this.services.viewportGridService.getState();
    return [...viewports.keys()].find((id) => this.port(id)?.element.contains(target)) ?? null;
  }

  isStack(/** @type {any} */ port) {
    return port.type === 'stack';
  }

  /**
   * @param {string | null} id
   * @param {Grid} grid
   * @returns {{axis: number, degrees: number} | null}
   */
  looksAlong(id, grid) {
    const port = this.port(id);
    if (!port) return null;
    return this.isStack(port) ? { axis: 2, degrees: 0 } : axisAlong(grid, vector(port.getCamera().viewPlaneNormal));
  }

  /**
   * The slice that is shown along an axis, in the active view if that one looks along it.
   *
   * @param {Labelmap} labelmap
   * @param {number} axis
   * @param {string[]} ids
   * @returns {number | null}
   */
  sliceShown(labelmap, axis, ids) {
    const id = this.#looking(labelmap, axis, ids);
    const port = this.port(id);
    if (!port) return null;
    if (this.isStack(port)) return labelmap.imageIds.indexOf(port.getCurrentImageId());
    const index = sliceAt(labelmap.grid, axis, vector(port.getCamera().focalPoint));
    return Math.min(Math.max(index, 0), labelmap.grid.size[axis] - 1);
  }

  /**
   * Show a slice.
   *
   * @param {Labelmap} labelmap
   * @param {number} axis
   * @param {number} index
   * @param {string[]} ids
   * @returns {Promise<boolean>} false when no view shows this plane
   */
  async jump(labelmap, axis, index, ids) {
    const id = this.#looking(labelmap, axis, ids);
    const port = this.port(id);
    if (!port) return false;
    if (this.isStack(port)) {
      await port.setImageIdIndex(port.getImageIds().indexOf(labelmap.imageIds[index]));
    } else {
      const place = /** @type {import('./geometry.js').Vector} */ (labelmap.grid.size.map((n) => (n - 1) / 2));
      place[axis] = index;
      port.jumpToWorld(worldOf(labelmap.grid, place));
    }
    port.render();
    return true;
  }

  /** Turn tilted volume views so that each looks straight along the nearest axis of the images. */
  align(/** @type {Grid} */ grid, /** @type {string[]} */ ids) {
    const straight = (/** @type {import('./geometry.js').Vector} */ along) => {
      const step = grid.directions[axisAlong(grid, along).axis];
      return scale(step, Math.sign(dot(step, along)) / norm(step));
    };
    for (const id of ids) {
      const port = this.port(id);
      if (!port || this.isStack(port)) continue;
      const { viewPlaneNormal, viewUp, focalPoint, position } = port.getCamera();
      const [normal, up] = [viewPlaneNormal, viewUp].map((along) => straight(vector(along)));
      const away = norm(subtract(vector(position), vector(focalPoint)));
      port.setCamera({ viewPlaneNormal: normal, viewUp: up });
      port.setCamera({ focalPoint, position: add(vector(focalPoint), scale(normal, away)), viewUp: up });
      port.render();
    }
  }

  /**
   * Whether OHIF counts the slices along an axis the other way round than the label map does.
   *
   * A stack counts its images in their own order, an MPR view along its normal. Where no view looks along the axis, the
   * stack's order says it.
   *
   * @param {Labelmap} labelmap
   * @param {any} displaySet
   * @param {number} axis
   * @param {string[]} ids
   */
  isTurned(labelmap, displaySet, axis, ids) {
    const port = this.port(this.#looking(labelmap, axis, ids));
    if (port && !this.isStack(port)) return dot(labelmap.grid.directions[axis], vector(port.getCamera().viewPlaneNormal)) < 0;
    const { imageIds } = labelmap;
    return axis === 2 && displaySet.imageIds.indexOf(imageIds.at(-1)) < displaySet.imageIds.indexOf(imageIds[0]);
  }

  /** @returns {string | null} */
  #looking(/** @type {Labelmap} */ labelmap, /** @type {number} */ axis, /** @type {string[]} */ ids) {
    const active = this.activeId;
    const ordered = [...ids].sort((a, b) => Number(b === active) - Number(a === active));
    return ordered.find((id) => this.looksAlong(id, labelmap.grid)?.axis === axis) ?? null;
  }
}
