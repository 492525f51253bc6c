/**
 * The confidence strip: one bar for every slice of the selected segment.
 *
 * How sure the model is, is said by the height and the colour of a bar; what is known by hand looks different in shape,
 * not in colour alone: painted slices are full and white on top, accepted ones full with a notch, absent ones a low dash.
 */
import { make } from './dom.js';

/** @typedef {import('./workspace.js').Workspace} Workspace */

const HEIGHT = 56;
const BASE = HEIGHT - 8;
const TOP = 10;

const COLOURS = {
  painted: '#5acce6',
  accepted: '#3fa66b',
  absent: '#5b6b99',
  cursor: '#ffffff',
  suggested: '#ffd166',
  empty: '#1b2b57',
};

/** Low confidence is orange and high is blue: a scale that does not need red and green to be told apart. */
export function confidenceColour(/** @type {number} */ confidence) {
  const stops = [
    [0.4, [214, 96, 58]],
    [0.65, [226, 164, 74]],
    [0.85, [110, 145, 205]],
    [1, [61, 121, 216]],
  ];
  const at = stops.findIndex(([level]) => confidence <= Number(level));
  if (at <= 0) return `rgb(${(at < 0 ? stops.at(-1) : stops[0])?.[1]})`;
  const [[low, from], [high, to]] = /** @type {[number, number[]][]} */ (stops.slice(at - 1, at + 1));
  const share = (confidence - low) / (high - low);
  return `rgb(${from.map((part, n) => Math.round(part + share * (to[n] - part)))})`;
}

export class Strip {
  /** @param {Workspace} workspace */
  constructor(workspace) {
    this.workspace = workspace;
    this.canvas = make('canvas', {
      class: 'imos-strip-canvas',
      tabIndex: 0,
      height: HEIGHT,
      data: { imos: 'strip' },
      on: {
        click: (/** @type {MouseEvent} */ event) => this.#jump(this.#indexAt(event)),
        mousemove: (/** @type {MouseEvent} */ event) => this.#hover(this.#indexAt(event)),
        mouseleave: () => this.#hover(null),
        keydown: (/** @type {KeyboardEvent} */ event) => this.#key(event),
      },
    });
    this.canvas.setAttribute('role', 'slider');
    this.caption = make('div', { class: 'imos-caption', data: { imos: 'caption' } });
    const key = (/** @type {string} */ kind, /** @type {string} */ words) =>
      make('span', {}, make('i', { class: `imos-key imos-key-${kind}` }), words);
    this.element = make(
      'div',
      { class: 'imos-strip' },
      this.canvas,
      this.caption,
      make(
        'div',
        { class: 'imos-legend' },
        key('painted', 'painted'),
        key('accepted', 'accepted'),
        key('absent', 'not there'),
        key('suggested', 'paint next'),
        key('propagated', 'propagated: unsure to sure'),
      ),
    );
    /** @type {number | null} */
    this.pointed = null;
    this.drawn = '';
  }

  /** @returns {ReturnType<Workspace['slicesOf']> & {value: number, count: number, turned: boolean} | null} */
  get #slices() {
    const { segments, labelmap, ready } = this.workspace;
    const value = segments?.selected;
    if (!ready || !labelmap || !value) return null;
    const slices = this.workspace.slicesOf(value);
    const turned = this.workspace.isTurned(slices.axis);
    return { ...slices, value, turned, count: labelmap.grid.size[slices.axis] };
  }

  /** Bars are drawn in the order in which OHIF counts the slices. */
  #flip(/** @type {number} */ index, /** @type {NonNullable<Strip['slices']>} */ { count, turned }) {
    return turned ? count - 1 - index : index;
  }

  #indexAt(/** @type {MouseEvent} */ event) {
    const slices = this.#slices;
    if (!slices) return null;
    const { left, width } = this.canvas.getBoundingClientRect();
    const at = Math.floor(((event.clientX - left) / width) * slices.count);
    return this.#flip(Math.min(Math.max(at, 0), slices.count - 1), slices);
  }

  #jump(/** @type {number | null} */ index) {
    const slices = this.#slices;
    if (slices && index !== null) this.workspace.jump(slices.axis, index);
  }

  #hover(/** @type {number | null} */ index) {
    this.pointed = index;
    this.draw();
  }

  #key(/** @type {KeyboardEvent} */ event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const slices = this.#slices;
    const shown = slices && this.workspace.shown(slices.axis);
    if (!step || !slices || shown === null) return;
    event.preventDefault();
    event.stopPropagation();
    const index = shown + (slices.turned ? -step : step);
    if (index >= 0 && index < slices.count) this.#jump(index);
  }

  #describe(/** @type {NonNullable<Strip['slices']>} */ slices, /** @type {number} */ index) {
    const number = this.workspace.numberOf(slices.axis, index);
    const confidence = slices.confidence[index];
    const how = slices.painted.has(index)
      ? 'painted'
      : slices.accepted.has(index)
        ? 'accepted'
        : slices.absent.has(index)
          ? 'not there'
          : slices.propagated.has(index)
            ? `propagated${confidence === undefined ? '' : `, confidence ${Math.round(confidence * 100)} %`}`
            : 'nothing known';
    return `Slice ${number}: ${how}${slices.suggested === index ? ', best to paint next' : ''}`;
  }

  /** What `#slices` gives; named for the types above. */
  get slices() {
    return this.#slices;
  }

  /** Draw if anything changed. */
  draw() {
    const slices = this.#slices;
    const shown = slices ? this.workspace.shown(slices.axis) : null;
    const width = this.canvas.clientWidth;
    const ratio = window.devicePixelRatio || 1;
    const sets = slices && ['painted', 'propagated', 'accepted', 'absent'].map((name) => [.../** @type {any} */ (slices)[name]]);
    const state = JSON.stringify([slices?.value, sets, slices?.confidence, slices?.suggested, slices?.turned, shown, this.pointed, width, ratio]);
    if (state === this.drawn) return;
    this.drawn = state;
    this.canvas.width = Math.max(1, Math.round(width * ratio));
    this.canvas.height = HEIGHT * ratio;
    const context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext('2d'));
    context.scale(ratio, ratio);
    const named = this.pointed ?? shown;
    this.caption.textContent = slices && named !== null ? this.#describe(slices, named) : '';
    if (!slices) return;
    this.canvas.setAttribute('aria-label', `Slices of ${this.workspace.segments?.name(slices.value)}`);
    this.canvas.setAttribute('aria-valuetext', this.caption.textContent);
    const step = width / slices.count;
    const gap = step >= 4 ? 1 : 0;
    for (let index = 0; index < slices.count; index++) {
      const x = this.#flip(index, slices) * step;
      this.#bar(context, slices, index, x, Math.max(step - gap, 0.5));
    }
    // Painted slices are few and matter most: never thinner than can be seen, and on top of their neighbours.
    for (const index of slices.painted) {
      const wide = Math.max(step - gap, 3);
      const x = (this.#flip(index, slices) + 0.5) * step - wide / 2;
      context.fillStyle = COLOURS.painted;
      context.fillRect(x, TOP, wide, BASE - TOP);
      context.fillStyle = '#ffffff';
      context.fillRect(x, TOP, wide, 5);
    }
    const centre = (/** @type {number} */ index) => (this.#flip(index, slices) + 0.5) * step;
    if (slices.suggested !== null) triangle(context, COLOURS.suggested, centre(slices.suggested), 0, 8);
    if (shown !== null) {
      context.fillStyle = 'rgb(255 255 255 / 45%)';
      context.fillRect(centre(shown) - 0.5, 0, 1, BASE);
      triangle(context, COLOURS.cursor, centre(shown), HEIGHT, BASE + 1);
    }
  }

  #bar(
    /** @type {CanvasRenderingContext2D} */ context,
    /** @type {NonNullable<Strip['slices']>} */ slices,
    /** @type {number} */ index,
    /** @type {number} */ x,
    /** @type {number} */ width,
  ) {
    const fill = (/** @type {string} */ colour, /** @type {number} */ top, /** @type {number} */ height) => {
      context.fillStyle = colour;
      context.fillRect(x, top, width, height);
    };
    fill(COLOURS.empty, BASE - 2, 2);
    if (slices.accepted.has(index)) {
      fill(COLOURS.accepted, TOP, BASE - TOP);
      fill('#0b1a42', BASE - 12, 3);
    } else if (slices.absent.has(index)) {
      fill(COLOURS.absent, BASE - 5, 3);
    } else if (slices.propagated.has(index)) {
      const confidence = slices.confidence[index] ?? 0.5;
      const height = Math.max(4, confidence * (BASE - TOP));
      fill(confidenceColour(confidence), BASE - height, height);
    }
  }
}

/** A triangle that stands on `base` and points to `tip`. */
function triangle(
  /** @type {CanvasRenderingContext2D} */ context,
  /** @type {string} */ colour,
  /** @type {number} */ x,
  /** @type {number} */ base,
  /** @type {number} */ tip,
) {
  context.fillStyle = colour;
  context.beginPath();
  context.moveTo(x - 5, base);
  context.lineTo(x + 5, base);
  context.lineTo(x, tip);
  context.fill();
}
