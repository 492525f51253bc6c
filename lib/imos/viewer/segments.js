/**
 * The segments of the series, as OHIF's segmentation service keeps them: name, colour, lock, which one is selected.
 *
 * OHIF's own segmentation panel shows and changes the same ones.
 */

/** @typedef {import('./api.js').SegmentObject} SegmentObject */

export class Segments {
  /**
   * @param {any} services OHIF's
   * @param {string} segmentationId
   * @param {() => string[]} viewportIds the views that show the series
   */
  constructor(services, segmentationId, viewportIds) {
    this.service = services.segmentationService;
    this.id = segmentationId;
    this.viewportIds = viewportIds;
    /** @type {Map<number, number[]>} colours said before a view was there to keep them */
    this.colours = new Map();
  }

  /** @returns {any[]} */
  get #all() {
    const segmentation = this.service.getSegmentation(this.id);
    return Object.values(segmentation?.segments ?? {}).filter(Boolean);
  }

  /** @returns {SegmentObject[]} by value */
  get list() {
    return this.#all
      .map((segment) => ({
        value: segment.segmentIndex,
        name: segment.label,
        color: this.colour(segment.segmentIndex),
        locked: Boolean(segment.locked),
      }))
      .sort((a, b) => a.value - b.value);
  }

  /** @returns {Set<number>} */
  get locked() {
    return new Set(this.#all.filter((segment) => segment.locked).map((segment) => segment.segmentIndex));
  }

  /** @returns {number | null} */
  get selected() {
    return this.#all.find((segment) => segment.active)?.segmentIndex ?? null;
  }

  name(/** @type {number} */ value) {
    return this.#all.find((segment) => segment.segmentIndex === value)?.label ?? `Segment ${value}`;
  }

  /** @returns {number[] | null} red, green, blue */
  colour(/** @type {number} */ value) {
    const [view] = this.#drawnIn();
    const colour = view && this.service.getSegmentColor(view, this.id, value);
    return colour ? [...colour].slice(0, 3).map(Math.round) : (this.colours.get(value) ?? null);
  }

  /** Make the list hold these, and only these. */
  set(/** @type {SegmentObject[]} */ objects) {
    const wanted = new Set(objects.map((object) => object.value));
    for (const object of objects) this.#put(object);
    for (const { value } of this.list) if (!wanted.has(value)) this.remove(value);
  }

  #put(/** @type {SegmentObject} */ { value, name, color, locked }) {
    const known = this.#all.find((segment) => segment.segmentIndex === value);
    const selected = this.selected;
    if (!known) this.service.addSegment(this.id, { segmentIndex: value, label: name, locked });
    else if (known.label !== name) this.service.setSegmentLabel(this.id, value, name);
    if (!known && selected) this.select(selected);
    if (Boolean(known?.locked) !== Boolean(locked)) this.lock(value, locked);
    if (color) this.paint(value, color);
  }

  /** @returns {number} value of the new segment */
  add() {
    const values = this.list.map((segment) => segment.value);
    const value = Math.max(0, ...values) + 1;
    this.service.addSegment(this.id, { segmentIndex: value, label: `Segment ${value}` });
    this.select(value);
    return value;
  }

  remove(/** @type {number} */ value) {
    this.service.removeSegment(this.id, value);
  }

  select(/** @type {number} */ value) {
    this.service.setActiveSegment(this.id, value);
  }

  /** The brush paints into these segments, whatever other label maps the views show. */
  activate() {
    for (const view of this.#drawnIn()) this.service.setActiveSegmentation(view, this.id);
  }

  rename(/** @type {number} */ value, /** @type {string} */ name) {
    this.service.setSegmentLabel(this.id, value, name);
  }

  lock(/** @type {number} */ value, /** @type {boolean} */ locked) {
    this.service.setSegmentLocked(this.id, value, locked);
  }

  paint(/** @type {number} */ value, /** @type {number[]} */ colour) {
    this.colours.set(value, colour);
    for (const view of this.#drawnIn()) this.service.setSegmentColor(view, this.id, value, [...colour, 255]);
  }

  /** A view that came later has OHIF's colours; give it ours. */
  repaint() {
    for (const [value, colour] of this.colours) this.paint(value, colour);
  }

  show(/** @type {number} */ value, /** @type {boolean} */ visible) {
    for (const view of this.#drawnIn()) this.service.setSegmentVisibility(view, this.id, value, visible);
  }

  isShown(/** @type {number} */ value) {
    const [view] = this.#drawnIn();
    const [drawn] = view ? this.service.getSegmentationRepresentations(view, { segmentationId: this.id }) : [];
    return drawn?.segments?.[value]?.visible !== false;
  }

  /** @returns {string[]} */
  #drawnIn() {
    return this.viewportIds().filter(
      (id) => this.service.getSegmentationRepresentations(id, { segmentationId: this.id }).length,
    );
  }
}
