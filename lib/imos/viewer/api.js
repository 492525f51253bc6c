/**
 * The server's requests under /imos/v1.
 *
 * @typedef {{value: number, name: string, color: number[] | null, locked: boolean}} SegmentObject
 * @typedef {{axis: number, index: number, values: number[]}} Edit
 * @typedef {{axis: number, painted: number[], propagated: number[], accepted: number[], absent: number[]}} Slices
 * @typedef {import('./geometry.js').Vector} Vector
 * @typedef {{image: string, client: string, revision: number, running: string | null,
 *   grid: {size: Vector, spacing: Vector, origin: Vector, directions: [Vector, Vector, Vector]}, objects: SegmentObject[],
 *   slices: Record<string, Slices>, confidence: Record<string, Record<string, number>>,
 *   suggested: Record<string, number>, undo: string[], redo: string[], accepted: boolean, unsaved: boolean}} State
 * @typedef {{objects: SegmentObject[], edits: Edit[], selected: number[] | null,
 *   direction: 'both' | 'forward' | 'backward', first: number | null, last: number | null}} RunParameters
 * @typedef {{done: number, total: number, object: number, seconds: number}} Progress
 * @typedef {{object: number, axis: number, index: number, confidence: number, top: number, left: number,
 *   rows: number, columns: number, bits: string}} SliceEvent
 * @typedef {{type: string, data: any}} ServerEvent
 * @typedef {{running: boolean, stage: string, step: number, steps: number, version: string, reason: string,
 *   in_use: string, new_labels: number, auto_train: number}} TrainingState
 */
import { Said, text } from './messages.js';

const CLIENT_KEY = 'imos.client';
const RETRIES = 5;

/** The name under which this browser's work is kept on the server. */
export function clientId() {
  let id = localStorage.getItem(CLIENT_KEY);
  if (!id || !/^[A-Za-z0-9._-]{1,64}$/.test(id)) {
    id = `ohif-${[...crypto.getRandomValues(new Uint8Array(8))].map((n) => n.toString(16).padStart(2, '0')).join('')}`;
    localStorage.setItem(CLIENT_KEY, id);
  }
  return id;
}

export class Api {
  /**
   * @param {string} base address of the server, with the last slash
   * @param {() => Record<string, string>} headers for a login, if OHIF has one
   */
  constructor(base, headers = () => ({})) {
    this.base = base;
    this.headers = headers;
    this.client = clientId();
  }

  /** @returns {Promise<{version: string, labels: {value: number, name: string}[]}>} */
  async info() {
    return (await this.#ask('info')).json();
  }

  /** @returns {Promise<State>} */
  async state(/** @type {string} */ image) {
    return (await this.#ask(this.#image(image, 'state'))).json();
  }

  /** @returns {Promise<ArrayBuffer>} the label map as NRRD */
  async labels(/** @type {string} */ image) {
    return (await this.#ask(this.#image(image, 'labels'))).arrayBuffer();
  }

  /**
   * @param {string} image
   * @param {Blob} label
   * @param {RunParameters} params
   * @returns {Promise<string>} id of the run
   */
  async startRun(image, label, params) {
    const answer = await this.#ask(this.#image(image, 'runs'), { method: 'POST', body: form(label, params) });
    return (await answer.json()).run;
  }

  /**
   * @param {string} image
   * @param {Blob} label
   * @param {{objects: SegmentObject[], edits: Edit[], objects_accepted: number[] | null}} params
   * @returns {Promise<State & {label: string, training: string}>}
   */
  async accept(image, label, params) {
    return (await this.#ask(this.#image(image, 'accept'), { method: 'POST', body: form(label, params) })).json();
  }

  /**
   * @param {string} image
   * @param {'undo' | 'redo' | 'reset'} what
   * @returns {Promise<State>}
   */
  async history(image, what) {
    return (await this.#ask(this.#image(image, what), { method: 'POST' })).json();
  }

  async cancel(/** @type {string} */ run) {
    await this.#ask(`runs/${encodeURIComponent(run)}`, { method: 'DELETE' });
  }

  /** @returns {Promise<TrainingState>} how the learning goes */
  async training() {
    return (await this.#ask('training')).json();
  }

  /** @returns {Promise<TrainingState>} */
  async train(/** @type {'begin' | 'stop'} */ what) {
    return (await this.#ask(`training/${what}`, { method: 'POST' })).json();
  }

  /**
   * @param {{strategy: string} | {after: string}} how the server's choice, or the one behind an image
   * @returns {Promise<{image: string, study: string, series: string} | null>} null when nothing is left
   */
  async next(how) {
    const answer = await this.#fetch(`next?${new URLSearchParams({ client: this.client, ...how })}`);
    if (answer.status === 404) return null;
    return (await checked(answer)).json();
  }

  /**
   * What happens in a run, until it ends. A connection that breaks is taken up where it broke.
   *
   * @param {string} run
   * @returns {AsyncGenerator<ServerEvent>}
   */
  async *events(run) {
    let last = '';
    for (let failures = 0; failures <= RETRIES; ) {
      try {
        const headers = { Accept: 'text/event-stream', ...(last ? { 'Last-Event-ID': last } : {}) };
        const answer = await checked(await this.#fetch(`runs/${encodeURIComponent(run)}/events`, { headers }));
        for await (const event of parse(/** @type {ReadableStream<Uint8Array>} */ (answer.body))) {
          failures = 0;
          last = event.id || last;
          yield { type: event.type, data: JSON.parse(event.data) };
          if (['done', 'failed', 'cancelled'].includes(event.type)) return;
        }
      } catch (error) {
        if (error instanceof Said) throw error;
      }
      failures += 1;
      await new Promise((resolve) => setTimeout(resolve, 400 * failures));
    }
    throw new Said(text.lostRun);
  }

  /** @returns {string} */
  #image(/** @type {string} */ image, /** @type {string} */ what) {
    return `images/${encodeURIComponent(image)}/${what}?${new URLSearchParams({ client: this.client })}`;
  }

  async #ask(/** @type {string} */ path, /** @type {RequestInit} */ options = {}) {
    return checked(await this.#fetch(path, options));
  }

  #fetch(/** @type {string} */ path, /** @type {RequestInit} */ options = {}) {
    const headers = { ...this.headers(), ...options.headers };
    return fetch(`${this.base}imos/v1/${path}`, { cache: 'no-store', ...options, headers });
  }
}

/** @returns {FormData} */
function form(/** @type {Blob} */ label, /** @type {object} */ params) {
  const body = new FormData();
  body.append('params', JSON.stringify(params));
  body.append('label', label, 'label.nrrd');
  return body;
}

/**
 * @param {Response} answer
 * @returns {Promise<Response>}
 */
async function checked(answer) {
  if (answer.ok) return answer;
  const body = await answer.text();
  let detail = '';
  try {
    detail = JSON.parse(body).detail;
  } catch {
    // A proxy's page, or a bare “Internal Server Error”.
  }
  if (typeof detail === 'string' && detail) throw new Said(detail);
  if (answer.status === 409) throw new Said(text.running409);
  throw new Said(`The server answered ${answer.status} ${answer.statusText}. Its log says why; your strokes are kept.`);
}

/**
 * Server-sent events of a stream.
 *
 * @param {ReadableStream<Uint8Array>} stream
 * @returns {AsyncGenerator<{type: string, data: string, id: string}>}
 */
async function* parse(stream) {
  const reader = stream.pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      const blocks = rest.split(/\r?\n\r?\n/);
      rest = blocks.pop() ?? '';
      for (const block of blocks) {
        const event = { type: 'message', data: '', id: '' };
        for (const line of block.split(/\r?\n/)) {
          const [, field, content] = /^(\w+): ?(.*)$/.exec(line) ?? [];
          if (field === 'event') event.type = content;
          else if (field === 'id') event.id = content;
          else if (field === 'data') event.data += event.data ? `\n${content}` : content;
        }
        if (event.data) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
