/**
 * OHIF's label map of a series as one volume, sorted by place in the patient.
 *
 * OHIF keeps one label image for every image of the series, in the order in which it shows them; slice k here is the
 * k-th along the normal of the images, whichever order the series has.
 */
import { cross, dot, scale, subtract, vector } from './geometry.js';
import { Said, text } from './messages.js';

/** @typedef {import('./geometry.js').Grid} Grid */
/** @typedef {import('./geometry.js').Vector} Vector */

// Read when used: OHIF may import this module before its cornerstone extension has put them on the window.
const cornerstone = () => /** @type {any} */ (window).cornerstone;
const cornerstoneTools = () => /** @type {any} */ (window).cornerstoneTools;

export class Labelmap {
  /** @param {any} segmentation what OHIF's segmentation service holds */
  constructor(segmentation) {
    const ids = segmentation.representationData.Labelmap?.imageIds ?? [];
    const images = ids.map((/** @type {string} */ id) => {
      const image = cornerstone().cache.getImage(id);
      const plane = image && cornerstone().metaData.get('imagePlaneModule', image.referencedImageId);
      if (!plane?.rowCosines || !plane.imagePositionPatient) throw new Said(text.notAnImage);
      return { image, plane };
    });
    if (!images.length) throw new Said(text.notAnImage);
    const { rowCosines, columnCosines, columns, rows, columnPixelSpacing, rowPixelSpacing } = images[0].plane;
    const [row, column] = [vector(rowCosines), vector(columnCosines)];
    const normal = cross(row, column);
    const place = (/** @type {any} */ one) => dot(vector(one.plane.imagePositionPatient), normal);
    images.sort((/** @type {any} */ a, /** @type {any} */ b) => place(a) - place(b));
    const [first, last] = [images[0], images.at(-1)].map((one) => vector(one.plane.imagePositionPatient));
    const step = images.length > 1 ? scale(subtract(last, first), 1 / (images.length - 1)) : normal;

    /** @type {string} */
    this.id = segmentation.segmentationId;
    /** @type {Grid} */
    this.grid = {
      size: [columns, rows, images.length],
      origin: first,
      directions: [scale(row, columnPixelSpacing), scale(column, rowPixelSpacing), step],
    };
    /** @type {string[]} the image under each slice */
    this.imageIds = images.map((/** @type {any} */ one) => one.image.referencedImageId);
    this.images = images.map((/** @type {any} */ one) => one.image);
  }

  /** Voxels of a slice, and of all slices. */
  get area() {
    return this.grid.size[0] * this.grid.size[1];
  }

  get count() {
    return this.area * this.grid.size[2];
  }

  /** @returns {Uint8Array} the live voxels of one slice: writing here writes into OHIF */
  slice(/** @type {number} */ k) {
    return this.images[k].voxelManager.getScalarData();
  }

  /** @returns {Uint8Array} a copy of all voxels, i fastest */
  read() {
    const voxels = new Uint8Array(this.count);
    for (let k = 0; k < this.images.length; k++) voxels.set(this.slice(k), k * this.area);
    return voxels;
  }

  write(/** @type {Uint8Array} */ voxels) {
    for (let k = 0; k < this.images.length; k++) {
      this.slice(k).set(voxels.subarray(k * this.area, (k + 1) * this.area));
    }
    this.show();
  }

  /**
   * Set single voxels.
   *
   * @param {ArrayLike<number>} at positions in the volume
   * @param {ArrayLike<number>} values
   */
  put(at, values) {
    for (let n = 0; n < at.length; n++) {
      const k = Math.floor(at[n] / this.area);
      this.slice(k)[at[n] - k * this.area] = values[n];
    }
  }

  /** Let OHIF draw what was written. */
  show() {
    cornerstoneTools().segmentation.triggerSegmentationEvents.triggerSegmentationDataModified(this.id);
  }

  /** How far apart two voxels of an axis are in the volume. */
  stride(/** @type {number} */ axis) {
    return [1, this.grid.size[0], this.area][axis];
  }
}

/**
 * Put one propagated slice of one object into a volume.
 *
 * Voxels of other objects that must not change (locked, or painted a moment ago) are left.
 *
 * @param {Labelmap} labelmap
 * @param {import('./api.js').SliceEvent} event
 * @param {(at: number, now: number) => boolean} isFixed
 * @param {Uint8Array} voxels changed in place, and in OHIF
 */
export function putSlice(labelmap, event, isFixed, voxels) {
  const [a, b] = [0, 1, 2].filter((axis) => axis !== event.axis);
  const [rows, columns] = [labelmap.grid.size[a], labelmap.grid.size[b]];
  const bits = Uint8Array.from(atob(event.bits), (letter) => letter.charCodeAt(0));
  const isSet = (/** @type {number} */ row, /** @type {number} */ column) => {
    const [r, c] = [row - event.top, column - event.left];
    if (r < 0 || c < 0 || r >= event.rows || c >= event.columns) return false;
    const bit = r * event.columns + c;
    return ((bits[bit >> 3] >> (7 - (bit & 7))) & 1) === 1;
  };
  const start = event.index * labelmap.stride(event.axis);
  /** @type {number[]} */
  const places = [];
  /** @type {number[]} */
  const values = [];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const at = start + row * labelmap.stride(a) + column * labelmap.stride(b);
      const now = voxels[at];
      const wanted = isSet(row, column) ? event.object : now === event.object ? 0 : now;
      if (wanted === now || isFixed(at, now)) continue;
      voxels[at] = wanted;
      places.push(at);
      values.push(wanted);
    }
  }
  labelmap.put(places, values);
}
