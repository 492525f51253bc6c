/**
 * One series being worked on: the label map in OHIF, the state on the server, and what passes between the two.
 *
 * Nothing here draws. The panel listens to `change` and asks.
 */
import { Said, describe, text } from './messages.js';
import { planeName, reorder } from './geometry.js';
import { readNrrd, writeNrrd } from './nrrd.js';
import { Labelmap, putSlice } from './labelmap.js';
import { applyStroke, editsOf, takeStroke } from './strokes.js';
import { drafts } from './drafts.js';
import { Segments } from './segments.js';
import { inOrderOf } from './slices.js';
import { TILT_DEGREES, Views } from './views.js';
import { Windows } from './windows.js';

/**
 * @typedef {import('./api.js').State} State
 * @typedef {import('./strokes.js').Stroke} Stroke
 * @typedef {{text: string, kind: 'info' | 'good' | 'error', action?: {label: string, run: () => void}}} Message
 * @typedef {{id: string, done: number, total: number, seconds: number, object: number | null,
 *   cancelling: boolean}} Run
 */

const LARGEST_VALUE = 255;
const DRAW_MS = 150;
/** Which study comes next: one that looks unlike those done, or of whose propagation the model is unsure. */
const STRATEGY = 'diverse';

export class Workspace extends EventTarget {
  /**
   * @param {any} services OHIF's
   * @param {import('./api.js').Api} api
   * @param {{waits?: boolean}} how `waits`: nothing is made before the user begins, since another panel works here
   */
  constructor(services, api, { waits = false } = {}) {
    super();
    this.services = services;
    this.api = api;
    this.waits = waits;
    this.windows = new Windows(api.client, (image) => this.#taken(image));
    this.views = new Views(services);
    /** @type {any} the set of images worked on */
    this.displaySet = null;
    /** @type {Labelmap | null} */
    this.labelmap = null;
    /** @type {Segments | null} */
    this.segments = null;
    /** @type {State | null} */
    this.state = null;
    /** @type {Run | null} */
    this.run = null;
    /** @type {boolean} a request is under way that the user waits for */
    this.busy = false;
    /** @type {Message} */
    this.message = { text: text.noStudy, kind: 'info' };
    /** @type {Stroke[]} not yet part of a finished run, oldest first */
    this.strokes = [];
    /** @type {Stroke[]} taken back, newest last */
    this.redone = [];
    /** @type {Uint8Array} what the label map held when we last looked */
    this.known = new Uint8Array(0);
    this.opening = '';
    /** Another window opened the image while this one was opening it. */
    this.isTaken = false;
    /** Buttons held down in a view: a stroke is being drawn. */
    this.drawing = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.pendingDraw = undefined;
  }

  // What the panel asks

  get ready() {
    return Boolean(this.labelmap && this.state && !this.opening);
  }

  /** Whether a series is there that nobody has begun to work on here. */
  get isWaiting() {
    return this.waits && Boolean(this.displaySet) && !this.labelmap && !this.opening;
  }

  /** @returns {string} the image's id on the server */
  get image() {
    return this.displaySet?.SeriesInstanceUID ?? '';
  }

  /** @returns {string[]} the views that show the series */
  get viewportIds() {
    return this.displaySet ? this.views.showing(this.displaySet.displaySetInstanceUID) : [];
  }

  /** @returns {string | null} what Undo would take back */
  get undoName() {
    const stroke = this.#openStrokes.at(-1);
    if (stroke) return this.#strokeName(stroke);
    const step = this.state?.undo[0];
    return step ? this.#inViewersNumbers(step) : null;
  }

  /** @returns {string | null} */
  get redoName() {
    const stroke = this.redone.at(-1);
    if (stroke) return this.#strokeName(stroke);
    const step = this.#openStrokes.length ? null : this.state?.redo[0];
    return step ? this.#inViewersNumbers(step) : null;
  }

  /** Slices of an object that are known by hand, the unsent strokes included. */
  slicesOf(/** @type {number} */ value) {
    const said = this.state?.slices[value];
    const edits = this.labelmap ? editsOf(this.labelmap, this.strokes, this.#wasPainted) : [];
    const own = edits.filter((edit) => edit.values.includes(value));
    const axis = said?.axis ?? own[0]?.axis ?? 2;
    const fresh = own.filter((edit) => edit.axis === axis).map((edit) => edit.index);
    return {
      axis,
      painted: new Set([...(said?.painted ?? []), ...fresh]),
      propagated: new Set(said?.propagated ?? []),
      accepted: new Set((said?.accepted ?? []).filter((index) => !fresh.includes(index))),
      absent: new Set((said?.absent ?? []).filter((index) => !fresh.includes(index))),
      confidence: this.state?.confidence[value] ?? {},
      // Painted since: what would help most now, only the next run can tell.
      suggested: fresh.includes(this.state?.suggested[value] ?? -1) ? null : (this.state?.suggested[value] ?? null),
    };
  }

  /** The number, from 1, under which OHIF shows a slice. */
  numberOf(/** @type {number} */ axis, /** @type {number} */ index) {
    return this.isTurned(axis) ? (this.labelmap?.grid.size[axis] ?? 0) - index : index + 1;
  }

  /** Whether OHIF counts the slices along an axis the other way round than the label map does. */
  isTurned(/** @type {number} */ axis) {
    return this.labelmap ? this.views.isTurned(this.labelmap, this.displaySet, axis, this.viewportIds) : false;
  }

  // Opening

  /** Work on the series of the active view, if it is another one; and show the label map in all views of it. */
  async follow() {
    const displaySet = this.views.displaySet(this.views.activeId);
    if (!displaySet || !this.views.port(this.views.activeId)) return;
    const uid = displaySet.displaySetInstanceUID;
    if (uid === this.opening) return;
    if (uid === this.displaySet?.displaySetInstanceUID) {
      if (this.ready) await this.#showInAllViews();
    } else if (this.waits) {
      Object.assign(this, { displaySet, labelmap: null, segments: null, state: null, run: null, strokes: [], redone: [] });
      this.say(text.waiting);
    } else await this.#openOrSay(displaySet);
  }

  /** Work on the series that waits. */
  async begin() {
    if (this.isWaiting) await this.#openOrSay(this.displaySet);
  }

  /** Another window of this browser has opened an image. */
  #taken(/** @type {string} */ image) {
    if (image !== this.image) return;
    if (this.opening) this.isTaken = true;
    const { labelmap } = this;
    if (this.opening || !labelmap) return;
    this.drawing = 0;
    this.collect(null);
    Object.assign(this, { labelmap: null, segments: null, state: null, run: null, strokes: [], redone: [] });
    // Nothing is left here that could be painted on and would not be kept.
    this.services.segmentationService.remove(labelmap.id);
    this.say(text.elsewhere, 'info', { label: 'Work here', run: () => this.#openOrSay(this.displaySet) });
  }

  /** No more of this workspace. */
  close() {
    this.windows.close();
  }

  async #openOrSay(/** @type {any} */ displaySet) {
    try {
      await this.#open(displaySet);
    } catch (error) {
      this.say(describe(error), 'error', { label: 'Try again', run: () => this.#openOrSay(displaySet) });
    }
  }

  async #open(/** @type {any} */ displaySet) {
    this.opening = displaySet.displaySetInstanceUID;
    Object.assign(this, { displaySet, labelmap: null, segments: null, state: null, run: null, strokes: [], redone: [] });
    this.say(text.opening);
    this.isTaken = false;
    this.windows.take(this.image);
    try {
      const [said, info] = await Promise.all([this.api.state(this.image), this.api.info()]);
      const draft = await drafts.load(this.api.client, this.image);
      if (this.opening !== displaySet.displaySetInstanceUID) return;
      const listed = said.revision ? said.objects : withLabels(said.objects, info.labels);
      const objects = draft?.objects.length ? draft.objects : listed.length ? listed : info.labels;
      const labelmap = await this.#makeLabelmap(displaySet, objects);
      const state = inOrderOf(said, labelmap.grid);
      this.labelmap = labelmap;
      this.state = state;
      this.known = labelmap.read();
      const words = [];
      if (state.revision > 0 || state.objects.length) await this.#fetchLabels();
      if (!state.revision && state.objects.length) words.push(text.shown);
      if (!state.revision) words.push(...state.notices);
      if (draft && this.#restore(draft)) words.push(text.restored);
      await this.#showInAllViews();
      this.opening = '';
      this.say(words.join(' '));
      if (this.isTaken) this.#taken(this.image);
      else if (state.running) this.#followRun(state.running);
    } catch (error) {
      this.opening = '';
      this.labelmap = null;
      throw error;
    }
  }

  async #makeLabelmap(/** @type {any} */ displaySet, /** @type {{value: number, name: string}[]} */ objects) {
    const service = this.services.segmentationService;
    const id = `imos-${displaySet.displaySetInstanceUID}`;
    const wanted = (objects.length ? objects : [{ value: 1, name: 'Segment 1' }]).filter((one) => one.value <= LARGEST_VALUE);
    if (!service.getSegmentation(id)) {
      const segments = Object.fromEntries(
        wanted.map(({ value, name }, n) => [value, { segmentIndex: value, label: name, active: n === 0 }]),
      );
      await service.createLabelmapForDisplaySet(displaySet, { segmentationId: id, label: 'iMOS', segments });
      standBehind(service, id);
    }
    this.segments = new Segments(this.services, id, () => this.viewportIds);
    const labelmap = new Labelmap(service.getSegmentation(id));
    await this.#showInAllViews(labelmap);
    const full = wanted.map((one) => ({ color: null, locked: false, ...one }));
    this.segments.set(full);
    if (this.segments.selected === null) this.segments.select(full[0].value);
    return labelmap;
  }

  async #showInAllViews(labelmap = this.labelmap) {
    const service = this.services.segmentationService;
    if (!labelmap || !service.getSegmentation(labelmap.id)) return;
    let added = false;
    for (const viewportId of this.viewportIds) {
      if (service.getSegmentationRepresentations(viewportId, { segmentationId: labelmap.id }).length) continue;
      await service.addSegmentationRepresentation(viewportId, { segmentationId: labelmap.id, type: 'Labelmap' });
      added = true;
    }
    if (added) {
      this.segments?.repaint();
      this.changed();
    }
  }

  /** @returns {boolean} whether there were strokes to bring back */
  #restore(/** @type {import('./drafts.js').Draft} */ draft) {
    const { labelmap, state } = this;
    if (!labelmap || !state || String(draft.size) !== String(labelmap.grid.size)) return false;
    const isOpen = (/** @type {Stroke} */ stroke) =>
      !stroke.sent || stroke.sent === state.running || state.revision === draft.revision;
    const strokes = draft.strokes.filter(isOpen);
    for (const stroke of strokes) {
      if (stroke.sent !== state.running) stroke.sent = null;
      applyStroke(labelmap, this.known, stroke, 'after');
    }
    this.strokes = strokes;
    labelmap.show();
    return strokes.some((stroke) => !stroke.sent);
  }

  // Strokes

  /** @returns {Stroke[]} strokes that no run has taken along */
  get #openStrokes() {
    return this.strokes.filter((stroke) => !stroke.sent);
  }

  #wasPainted = (/** @type {number} */ value, /** @type {number} */ axis, /** @type {number} */ index) => {
    const said = this.state?.slices[value];
    return Boolean(said && said.axis === axis && (said.painted.includes(index) || said.accepted.includes(index)));
  };

  #strokeName(/** @type {Stroke} */ stroke) {
    const numbers = stroke.indices.map((index) => this.numberOf(stroke.axis, index)).sort((a, b) => a - b);
    const where = numbers.length > 1 ? `slices ${numbers[0]}–${numbers.at(-1)}` : `slice ${numbers[0]}`;
    const what = stroke.after.some(Boolean) ? 'painting' : 'erasing';
    return `${what} on ${planeName(/** @type {Labelmap} */ (this.labelmap).grid, stroke.axis)} ${where}`;
  }

  /**
   * Look what a stroke changed.
   *
   * @param {string | null} viewportId the view that was painted in
   */
  collect(viewportId) {
    const { labelmap, segments } = this;
    if (!labelmap || !segments || this.opening || this.drawing) return;
    const looks = viewportId ? this.views.looksAlong(viewportId, labelmap.grid) : null;
    const { stroke, refused } = takeStroke(labelmap, this.known, segments.locked, looks?.axis ?? null);
    if (refused.length) this.say(text.locked(refused.map((value) => segments.name(value)).join(', ')), 'error');
    if (!stroke) return;
    if (looks && looks.degrees > TILT_DEGREES && stroke.indices.length > 1) {
      applyStroke(labelmap, this.known, stroke, 'before');
      labelmap.show();
      const align = { label: 'Align views', run: () => this.alignViews() };
      this.say(text.tilted(Math.round(looks.degrees)), 'error', align);
      return;
    }
    this.strokes.push(stroke);
    this.redone = [];
    if (!refused.length) this.say('');
    this.saveDraft();
    this.changed();
  }

  alignViews() {
    if (this.labelmap) this.views.align(this.labelmap.grid, this.viewportIds);
    this.say('');
  }

  /** Keep what the server does not have yet. */
  saveDraft() {
    const { labelmap, state, segments } = this;
    if (!labelmap || !state || !segments) return;
    const objects = segments.list;
    const isNew = JSON.stringify(objects) !== JSON.stringify(state.objects);
    if (!this.strokes.length && !isNew) drafts.remove(this.api.client, this.image);
    else {
      const { revision } = state;
      const draft = { revision, size: labelmap.grid.size, strokes: this.strokes, objects: isNew ? objects : [] };
      drafts.save(this.api.client, this.image, draft);
    }
  }

  // Runs

  /**
   * @param {{onlySelected: boolean, direction: 'both' | 'up' | 'down', first: number | null, last: number | null}} how
   *   numbers as OHIF shows them
   */
  async propagate(how) {
    await this.#guard(async () => {
      if (!this.ready || !this.labelmap || !this.segments || !this.state) throw new Said(this.message.text || text.noStudy);
      if (this.run) throw new Said(text.running);
      if (!this.services.segmentationService.getSegmentation(this.labelmap?.id)) throw new Said(text.noLabelmap);
      this.collect(null);
      const { labelmap, segments } = this;
      const selected = segments.selected;
      const edits = editsOf(labelmap, this.strokes, this.#wasPainted);
      const painted = (/** @type {number} */ value) => {
        const slices = this.slicesOf(value);
        return slices.painted.size + slices.accepted.size > 0;
      };
      if (!segments.list.some(({ value }) => painted(value))) throw new Said(text.nothingPainted);
      if (how.onlySelected && selected && !painted(selected)) {
        throw new Said(text.selectedNotPainted(segments.name(selected)));
      }
      const { direction, first, last } = this.#inGrid(how, this.slicesOf(selected ?? 1).axis);
      const label = writeNrrd(labelmap.grid, this.known);
      const params = {
        objects: segments.list,
        edits,
        selected: how.onlySelected && selected ? [selected] : null,
        direction,
        first,
        last,
      };
      await this.#beSeen();
      const id = await this.api.startRun(this.image, label, params).catch((error) => this.#refused(error));
      for (const stroke of this.strokes) stroke.sent = id;
      this.redone = [];
      this.saveDraft();
      this.say('');
      this.#followRun(id);
    });
  }

  /**
   * What others stored is not part of this client's work before it sends something; the server may have forgotten since
   * that it is what the user sees. Who began with nothing goes on so, whatever was stored meanwhile.
   */
  async #beSeen() {
    if (this.state && !this.state.revision && this.state.objects.length) await this.api.state(this.image);
  }

  /**
   * A run that was refused may have left what was painted on the server.
   *
   * @returns {Promise<never>}
   */
  async #refused(/** @type {unknown} */ error) {
    const state = error instanceof Said ? await this.api.state(this.image) : this.state;
    if (state && this.state && state.revision > this.state.revision) {
      this.strokes = [];
      this.redone = [];
      await this.#adopt(state);
    }
    throw error instanceof Said ? new Said(this.#inViewersNumbers(error.message)) : error;
  }

  /** The server counts slices as the label map does; say them as OHIF shows them. */
  #inViewersNumbers(/** @type {string} */ words) {
    const named = this.segments?.list.find(({ name }) => words.includes(name));
    const axis = (named && this.state?.slices[named.value]?.axis) ?? 2;
    return words.replace(/\bslice (\d+)\b/g, (_, index) => `slice ${this.numberOf(axis, Number(index))}`);
  }

  /** Directions and limits as the user sees slices, in the label map's order. */
  #inGrid(
    /** @type {{direction: 'both' | 'up' | 'down', first: number | null, last: number | null}} */ how,
    /** @type {number} */ axis,
  ) {
    const n = this.labelmap?.grid.size[axis] ?? 1;
    const turned = this.isTurned(axis);
    const index = (/** @type {number | null} */ number) =>
      number === null ? null : Math.min(Math.max(turned ? n - number : number - 1, 0), n - 1);
    if (how.first !== null && how.last !== null && how.first > how.last) throw new Said(text.limitsOrder);
    const [first, last] = turned ? [how.last, how.first] : [how.first, how.last];
    /** @type {'both' | 'forward' | 'backward'} */
    const direction = how.direction === 'both' ? 'both' : (how.direction === 'up') === turned ? 'backward' : 'forward';
    return { direction, first: index(first), last: index(last) };
  }

  async #followRun(/** @type {string} */ id) {
    const { labelmap } = this;
    if (!labelmap) return;
    this.run = { id, done: 0, total: 0, seconds: 0, object: null, cancelling: false };
    this.changed();
    const before = this.known.slice();
    const started = performance.now();
    const isHere = () => this.labelmap === labelmap && this.run?.id === id;
    try {
      for await (const { type, data } of this.api.events(id)) {
        if (!isHere()) return;
        if (type === 'progress') Object.assign(/** @type {Run} */ (this.run), data);
        else if (type === 'slice') this.#preview(data);
        else if (type === 'done') {
          const seconds = ((performance.now() - started) / 1000).toFixed(1);
          await this.#endRun(data, text.propagated(seconds), 'good');
        } else if (type === 'cancelled') await this.#endRun(data, text.cancelled, 'info');
        else if (type === 'failed') await this.#endRun(await this.api.state(this.image), data.detail, 'error');
        this.changed();
      }
    } catch (error) {
      if (!isHere()) return;
      this.run = null;
      this.#takeBack(before, id);
      this.say(describe(error), 'error');
    }
  }

  /** The server keeps what was painted for a run, however the run ended. */
  async #endRun(/** @type {State} */ state, /** @type {string} */ words, /** @type {Message['kind']} */ kind) {
    this.strokes = this.#openStrokes;
    await this.#adopt(state);
    this.run = null;
    this.say(this.#inViewersNumbers(words), kind);
  }

  /** The label map as it was before a run, with the strokes made since. */
  #takeBack(/** @type {Uint8Array} */ before, /** @type {string} */ id) {
    const { labelmap } = this;
    if (!labelmap) return;
    labelmap.write(before);
    this.known = before;
    for (const stroke of this.#openStrokes) applyStroke(labelmap, this.known, stroke, 'after');
    for (const stroke of this.strokes) if (stroke.sent === id) stroke.sent = null;
    labelmap.show();
  }

  #preview(/** @type {import('./api.js').SliceEvent} */ event) {
    const { labelmap, segments } = this;
    if (!labelmap || !segments) return;
    const locked = segments.locked;
    const fresh = new Set(this.#openStrokes.flatMap((stroke) => [...stroke.at]));
    const isFixed = (/** @type {number} */ at, /** @type {number} */ now) => locked.has(now) || fresh.has(at);
    if (!locked.has(event.object)) putSlice(labelmap, event, isFixed, this.known);
    const slices = this.state?.slices[event.object];
    if (this.state && slices && !slices.painted.includes(event.index) && !slices.accepted.includes(event.index)) {
      if (!slices.propagated.includes(event.index)) slices.propagated.push(event.index);
      (this.state.confidence[event.object] ??= {})[event.index] = event.confidence;
    } else if (this.state && !slices) {
      const own = { axis: event.axis, painted: [], propagated: [event.index], accepted: [], absent: [] };
      this.state.slices[event.object] = own;
      this.state.confidence[event.object] = { [event.index]: event.confidence };
    }
    this.#draw();
  }

  /** Drawing costs more than writing: a few times a second is enough. */
  #draw() {
    this.pendingDraw ??= setTimeout(() => {
      this.pendingDraw = undefined;
      this.labelmap?.show();
      this.changed();
    }, DRAW_MS);
  }

  async cancel() {
    const { run } = this;
    if (!run) return;
    run.cancelling = true;
    this.changed();
    await this.#guard(() => this.api.cancel(run.id));
  }

  // History

  async undo() {
    const stroke = this.#openStrokes.at(-1);
    if (!stroke) return this.#history('undo');
    this.#move(stroke, 'before');
    this.strokes = this.strokes.filter((other) => other !== stroke);
    this.redone.push(stroke);
    this.saveDraft();
    this.say(text.undone(this.#strokeName(stroke)));
  }

  async redo() {
    const stroke = this.redone.pop();
    if (!stroke) return this.#history('redo');
    this.#move(stroke, 'after');
    this.strokes.push(stroke);
    this.saveDraft();
    this.say(text.redone(this.#strokeName(stroke)));
  }

  #move(/** @type {Stroke} */ stroke, /** @type {'before' | 'after'} */ side) {
    if (!this.labelmap) return;
    applyStroke(this.labelmap, this.known, stroke, side);
    this.labelmap.show();
  }

  async reset() {
    this.strokes = [];
    this.redone = [];
    await this.#history('reset');
  }

  async #history(/** @type {'undo' | 'redo' | 'reset'} */ what) {
    if (!this.ready) return;
    if (this.run) return this.say(text.running, 'error');
    const name = what === 'undo' ? this.undoName : what === 'redo' ? this.redoName : '';
    if (name === null) return;
    await this.#guard(async () => {
      const redone = this.redone;
      await this.#adopt(await this.api.history(this.image, what));
      this.redone = redone;
      this.say(what === 'undo' ? text.undone(name) : what === 'redo' ? text.redone(name) : text.reset);
    });
  }

  /** Take the server's word for everything but the strokes it does not have. */
  async #adopt(/** @type {State} */ state) {
    if (!this.labelmap) return;
    this.state = inOrderOf(state, this.labelmap.grid);
    await this.#fetchLabels();
    this.saveDraft();
  }

  async #fetchLabels() {
    const { labelmap, segments } = this;
    if (!labelmap || !segments) return;
    const answer = await readNrrd(await this.api.labels(this.image));
    const voxels = reorder(answer, labelmap.grid);
    if (voxels instanceof Uint16Array && voxels.some((value) => value > LARGEST_VALUE)) throw new Said(text.tooManyLabels);
    if (this.labelmap !== labelmap) return;
    this.known = Uint8Array.from(voxels);
    const listed = new Set(segments.list.map((segment) => segment.value));
    for (const object of this.state?.objects ?? []) {
      if (!listed.has(object.value) && object.value <= LARGEST_VALUE) segments.set([...segments.list, object]);
    }
    labelmap.write(this.known);
    for (const stroke of this.#openStrokes) applyStroke(labelmap, this.known, stroke, 'after');
    labelmap.show();
  }

  // The end of a study

  async accept() {
    await this.#guard(async () => {
      const { labelmap, segments } = this;
      if (!this.ready || !labelmap || !segments) return;
      if (this.run) throw new Said(text.running);
      if (!this.services.segmentationService.getSegmentation(this.labelmap?.id)) throw new Said(text.noLabelmap);
      this.collect(null);
      if (!this.known.some(Boolean)) throw new Said(text.nothingToAccept);
      const edits = editsOf(labelmap, this.strokes, this.#wasPainted);
      const label = writeNrrd(labelmap.grid, this.known);
      const params = { objects: segments.list, edits, objects_accepted: null };
      await this.#beSeen();
      const answer = await this.api.accept(this.image, label, params);
      this.strokes = [];
      this.redone = [];
      await this.#adopt(answer);
      this.say(answer.training === 'scheduled' ? text.acceptedTraining : text.accepted, 'good');
    });
  }

  async nextStudy() {
    await this.#guard(async () => {
      this.say(text.choosing);
      // The server may choose the study that is open here, when it has no accepted segments yet.
      const chosen = await this.api.next({ strategy: STRATEGY });
      const isOther = chosen && ![chosen.image, chosen.series].includes(this.image);
      const next = isOther || !this.image ? chosen : await this.api.next({ after: this.image });
      if (!next || next.series === this.image) return this.say(text.noNext, 'good');
      if (!next.study) throw new Said(text.notDicom(next.image));
      const address = new URL(window.location.href);
      const query = { StudyInstanceUIDs: next.study, initialSeriesInstanceUID: next.series };
      address.search = new URLSearchParams(query).toString();
      window.location.assign(address);
    });
  }

  // Looking

  async jump(/** @type {number} */ axis, /** @type {number} */ index) {
    const { labelmap } = this;
    if (!labelmap) return;
    const found = await this.views.jump(labelmap, axis, index, this.viewportIds);
    if (!found) this.say(text.noViewOfPlane(planeName(labelmap.grid, axis)), 'error');
  }

  async jumpToSuggested() {
    const { segments } = this;
    const value = segments?.selected;
    if (!segments || !value) return;
    const { axis, suggested } = this.slicesOf(value);
    if (suggested === null) this.say(text.noSuggestion(segments.name(value)));
    else await this.jump(axis, suggested);
  }

  /** @returns {number | null} the slice on view along an axis */
  shown(/** @type {number} */ axis) {
    return this.labelmap ? this.views.sliceShown(this.labelmap, axis, this.viewportIds) : null;
  }

  // Saying

  say(/** @type {string} */ words, /** @type {Message['kind']} */ kind = 'info', /** @type {Message['action']} */ action = undefined) {
    this.message = { text: words, kind, action };
    this.changed();
  }

  changed() {
    this.dispatchEvent(new Event('change'));
  }

  async #guard(/** @type {() => Promise<unknown>} */ work) {
    this.busy = true;
    this.changed();
    try {
      await work();
    } catch (error) {
      this.say(describe(error), 'error');
    } finally {
      this.busy = false;
      this.changed();
    }
  }
}

/**
 * What is stored with the study, and behind it the labels that the server was started with.
 *
 * @param {import('./api.js').SegmentObject[]} objects
 * @param {{value: number, name: string}[]} labels
 * @returns {{value: number, name: string}[]}
 */
function withLabels(objects, labels) {
  /** @type {{value: number, name: string}[]} */
  const list = [...objects];
  for (const label of labels) {
    if (list.some(({ name }) => name === label.name)) continue;
    const taken = new Set([...list, ...labels].map(({ value }) => value));
    const isTaken = list.some(({ value }) => value === label.value);
    list.push(isTaken ? { ...label, value: Math.max(...taken) + 1 } : label);
  }
  return list;
}

/**
 * OHIF's own MONAI Label panel reads `config` of whatever label map is the first. It shall find its own there.
 *
 * @param {any} service OHIF's
 * @param {string} id of our label map
 */
function standBehind(service, id) {
  const config = () => service.getSegmentation('1')?.config ?? { segments: {} };
  Object.defineProperty(service.getSegmentation(id), 'config', { get: config, configurable: true });
}
