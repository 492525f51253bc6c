/** The panel “iMOS”: plain elements that show the workspace and pass on what the user does. */
import { icon, make } from './dom.js';
import { text } from './messages.js';
import { listen, shortcuts } from './shortcuts.js';
import { Strip } from './strip.js';
import { setRadius, toolInUse, useTool } from './tools.js';
import { Training } from './training.js';

/** @typedef {import('./workspace.js').Workspace} Workspace */

const LOOK_MS = 200;
const RADIUS = { min: 1, max: 40, step: 1, key: 'imos.radius', standard: 8 };

const hex = (/** @type {number[] | null} */ colour) =>
  `#${(colour ?? [128, 128, 128]).map((part) => Math.round(part).toString(16).padStart(2, '0')).join('')}`;
const parts = (/** @type {string} */ colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

export class Panel {
  /**
   * @param {HTMLElement} root
   * @param {Workspace} workspace
   */
  constructor(root, workspace) {
    this.workspace = workspace;
    this.radius = Number(localStorage.getItem(RADIUS.key)) || RADIUS.standard;
    this.strip = new Strip(workspace);
    this.training = new Training(workspace.api, (words, kind) => workspace.say(words, kind));
    this.rows = '';
    this.#build(root);
    const update = () => this.update();
    workspace.addEventListener('change', update);
    const timer = setInterval(() => this.#look(), LOOK_MS);
    const deaf = listen((act) => this.#act(act));
    this.stop = () => {
      workspace.removeEventListener('change', update);
      clearInterval(timer);
      this.training.stop();
      deaf();
    };
    this.update();
  }

  // Building

  #build(/** @type {HTMLElement} */ root) {
    const act = (/** @type {string} */ name) => ({ click: () => this.#act(name) });
    const button = (/** @type {string} */ name, /** @type {string} */ title, /** @type {(Node | string)[]} */ content, more = {}) =>
      make('button', { type: 'button', title, data: { imos: name }, on: act(name), ...more }, ...content);

    this.tools = {
      brush: button('brush', 'Brush (B)', [icon('brush'), 'Brush']),
      eraser: button('eraser', 'Eraser (E)', [icon('eraser'), 'Eraser']),
      noTool: button('noTool', 'Neither: the left button is OHIF’s again (X)', [icon('pointer'), 'Off']),
    };
    this.size = make('input', {
      type: 'range',
      min: String(RADIUS.min),
      max: String(RADIUS.max),
      step: String(RADIUS.step),
      value: String(this.radius),
      data: { imos: 'radius' },
      aria: { label: 'Radius of brush and eraser in mm' },
      on: { input: () => this.#setRadius(Number(this.size.value)) },
    });
    this.sizeText = make('output', { class: 'imos-size' });

    this.list = make('ul', { class: 'imos-segments', data: { imos: 'segments' }, aria: { label: 'Segments' } });

    this.scope = select('scope', 'What to propagate', { all: 'All segments', selected: 'Selected segment' });
    this.direction = select('direction', 'Direction', { both: 'Both ways', up: 'To higher slices', down: 'To lower slices' });
    this.first = limit('first', 'First slice of the object; empty: no limit');
    this.last = limit('last', 'Last slice of the object; empty: no limit');
    const setHere = (/** @type {HTMLInputElement} */ field) => () => {
      const { workspace } = this;
      const { axis } = workspace.slicesOf(workspace.segments?.selected ?? 1);
      const shown = workspace.shown(axis);
      if (shown !== null) field.value = String(workspace.numberOf(axis, shown));
    };
    const here = (/** @type {HTMLInputElement} */ field) =>
      make('button', { type: 'button', class: 'imos-small', title: 'Take the slice on view', on: { click: setHere(field) } }, 'here');

    this.propagate = button('propagate', 'Carry the painted slices through the volume (P)', ['Propagate'], { class: 'imos-main' });
    this.cancel = button('cancel', 'Stop the run; everything is as before it (Esc)', ['Cancel']);
    this.bar = make('progress', { max: 1, value: 0, data: { imos: 'progress' } });
    this.progressText = make('div', { class: 'imos-caption', data: { imos: 'progress-text' } });
    this.running = make('div', { class: 'imos-running' }, this.bar, this.cancel, this.progressText);

    this.stripTitle = make('h3');
    this.suggested = button('suggested', 'Next slice to paint: the one whose painting helps most (N)', ['Next to paint'], {
      class: 'imos-small',
    });
    this.undo = button('undo', '', [icon('undo'), 'Undo']);
    this.redo = button('redo', '', [icon('redo'), 'Redo']);
    this.reset = button('reset', 'Empty all segments of this series', ['Reset']);
    this.accept = button('accept', 'Store all segments with the study (Ctrl+Enter)', ['Accept all'], { class: 'imos-good' });
    this.next = button('next', 'Open the next study that has no accepted segments', ['Next study']);
    this.message = make('div', { class: 'imos-message', data: { imos: 'message' }, aria: { live: 'polite' } });
    this.saved = make('span', { class: 'imos-saved', data: { imos: 'saved' } });
    this.series = make('span', { class: 'imos-series' });
    this.help = this.#helpList();

    const size = make('label', { class: 'imos-line' }, 'Radius', this.size, this.sizeText);
    const limits = make(
      'div',
      { class: 'imos-line imos-limits' },
      ...['Slices', this.first, here(this.first), 'to', this.last, here(this.last)],
    );
    root.className = 'imos';
    root.dataset.imos = 'panel';
    root.replaceChildren(
      make(
        'header',
        {},
        make('div', { class: 'imos-head' }, this.series, this.saved),
        button('help', 'Keyboard shortcuts (?)', ['?'], { class: 'imos-help-button' }),
      ),
      make(
        'div',
        { class: 'imos-body' },
        this.help,
        section('Paint', make('div', { class: 'imos-buttons' }, ...Object.values(this.tools)), size),
        section('Segments', this.list, button('add', 'Add a segment', [icon('plus'), 'Add segment'], { class: 'imos-plain' })),
        section('Propagate', make('div', { class: 'imos-pair' }, this.scope, this.direction), limits, this.propagate, this.running),
        make(
          'section',
          {},
          make('div', { class: 'imos-titled' }, this.stripTitle, this.suggested),
          this.strip.element,
        ),
        section('Model', this.training.element),
      ),
      make(
        'footer',
        {},
        this.message,
        make('div', { class: 'imos-buttons' }, this.undo, this.redo, this.reset),
        make('div', { class: 'imos-end' }, this.accept, this.next),
      ),
    );
  }

  #helpList() {
    const rows = shortcuts.map(({ keys, does }) =>
      make('tr', {}, make('td', {}, ...keys.split(', ').flatMap((one) => [make('kbd', {}, one), ' '])), make('td', {}, does)),
    );
    const table = make('table', {}, ...rows);
    return make('div', { class: 'imos-help', hidden: true, data: { imos: 'help-list' } }, make('strong', {}, 'Keyboard shortcuts'), table);
  }

  // Doing

  /** @returns {boolean} whether there was something to do */
  #act(/** @type {string} */ name) {
    const { workspace } = this;
    const free = workspace.ready && !workspace.busy;
    switch (name) {
      case 'brush':
      case 'eraser':
        return this.#use(name);
      case 'noTool':
        return this.#use(null);
      case 'smaller':
      case 'larger':
        return this.#setRadius(this.radius + (name === 'larger' ? RADIUS.step : -RADIUS.step));
      case 'nextSegment':
      case 'previousSegment':
        return this.#selectBy(name === 'nextSegment' ? 1 : -1);
      case 'lock':
        return this.#toggleLock(workspace.segments?.selected ?? null);
      case 'add':
        return free && this.#add();
      case 'propagate':
        if (free && !workspace.run) this.#propagate();
        return true;
      case 'cancel':
        if (!workspace.run) return false;
        workspace.cancel();
        return true;
      case 'suggested':
        workspace.jumpToSuggested();
        return true;
      case 'undo':
      case 'redo':
        if (free) workspace[name]();
        return true;
      case 'reset':
        if (free && window.confirm(text.confirmReset)) workspace.reset();
        return true;
      case 'accept':
        if (free) workspace.accept();
        return true;
      case 'next':
        workspace.nextStudy();
        return true;
      case 'help':
        this.help.hidden = !this.help.hidden;
        return true;
      default:
        return false;
    }
  }

  get tool() {
    return toolInUse(this.workspace.services, this.workspace.viewportIds[0] ?? null);
  }

  #use(/** @type {import('./tools.js').Tool} */ tool) {
    const { workspace } = this;
    if (workspace.isWaiting && tool) {
      workspace.begin().then(() => this.#use(tool));
      return true;
    }
    if (!workspace.ready) return true;
    if (tool) workspace.segments?.activate();
    useTool(workspace.services, workspace.viewportIds, tool, this.radius);
    this.#look();
    return true;
  }

  #setRadius(/** @type {number} */ radius) {
    this.radius = Math.min(Math.max(radius, RADIUS.min), RADIUS.max);
    localStorage.setItem(RADIUS.key, String(this.radius));
    setRadius(this.workspace.services, this.workspace.viewportIds, this.radius);
    this.update();
    return true;
  }

  #add() {
    const { segments } = this.workspace;
    if (!segments) return false;
    const values = segments.list.map((segment) => segment.value);
    if (values.includes(255)) this.workspace.say(text.tooManySegments, 'error');
    else this.#rename(segments.add());
    this.workspace.saveDraft();
    return true;
  }

  #selectBy(/** @type {number} */ step) {
    const { segments } = this.workspace;
    const values = segments?.list.map((segment) => segment.value) ?? [];
    if (!segments || !values.length) return true;
    const at = values.indexOf(segments.selected ?? values[0]);
    this.#select(values[(at + step + values.length) % values.length]);
    return true;
  }

  #select(/** @type {number} */ value) {
    this.workspace.segments?.select(value);
    this.update();
  }

  #toggleLock(/** @type {number | null} */ value) {
    const { segments } = this.workspace;
    if (!segments || value === null) return true;
    segments.lock(value, !segments.locked.has(value));
    this.workspace.saveDraft();
    this.update();
    return true;
  }

  #propagate() {
    const number = (/** @type {HTMLInputElement} */ field) => (field.value.trim() === '' ? null : Math.round(Number(field.value)));
    this.workspace.propagate({
      onlySelected: this.scope.value === 'selected',
      direction: /** @type {'both' | 'up' | 'down'} */ (this.direction.value),
      first: number(this.first),
      last: number(this.last),
    });
  }

  /** Turn a name into a field. */
  #rename(/** @type {number} */ value) {
    this.update();
    const row = this.list.querySelector(`[data-value="${value}"]`);
    const name = row?.querySelector('.imos-name');
    const { segments } = this.workspace;
    if (!name || !segments) return;
    const field = make('input', { class: 'imos-name', value: segments.name(value), maxLength: 64, aria: { label: 'Name of the segment' } });
    let over = false;
    const finish = (/** @type {boolean} */ keep) => {
      if (over) return;
      over = true;
      const wanted = field.value.trim();
      const taken = segments.list.some((other) => other.value !== value && other.name === wanted);
      if (keep && taken) this.workspace.say(text.nameTaken, 'error');
      else if (keep && wanted) segments.rename(value, wanted);
      this.workspace.saveDraft();
      this.rows = '';
      this.update();
    };
    field.addEventListener('blur', () => finish(true));
    field.addEventListener('keydown', (event) => {
      event.stopPropagation();
      if (event.key === 'Enter' || event.key === 'Escape') finish(event.key === 'Enter');
    });
    name.replaceWith(field);
    field.focus();
    field.select();
  }

  // Showing

  /** What changes without telling us: the slice on view, the tool of OHIF's toolbar. */
  #look() {
    const { tool } = this;
    for (const [name, button] of Object.entries(this.tools)) {
      button.setAttribute('aria-pressed', String(name === (tool ?? 'noTool')));
    }
    this.strip.draw();
  }

  update() {
    const { workspace } = this;
    const { run, state, segments, message, ready } = workspace;
    const free = ready && !workspace.busy && !run;
    this.series.textContent = workspace.displaySet ? seriesName(workspace.displaySet) : 'iMOS';
    const isUnsaved = Boolean(workspace.strokes.length || state?.unsaved);
    const isEmpty = !state || (!Object.keys(state.slices).length && !workspace.strokes.length);
    this.saved.textContent = isEmpty ? '' : isUnsaved ? 'not accepted yet' : state?.accepted ? 'accepted' : '';
    this.saved.dataset.state = isUnsaved ? 'open' : 'done';
    this.sizeText.textContent = `${this.radius} mm`;
    this.size.value = String(this.radius);

    this.propagate.disabled = !free;
    this.propagate.hidden = Boolean(run);
    this.running.hidden = !run;
    if (run) {
      if (run.total) this.bar.value = run.done / run.total;
      else this.bar.removeAttribute('value');
      this.cancel.disabled = run.cancelling;
      const name = run.object && segments ? `${segments.name(run.object)}, ` : '';
      const count = run.total ? `${run.done} of ${run.total} slices, ` : 'preparing, ';
      this.progressText.textContent = run.cancelling ? 'Stopping…' : `${name}${count}${run.seconds.toFixed(1)} s`;
    }
    const { undoName, redoName } = workspace;
    this.undo.disabled = !free || undoName === null;
    this.undo.title = undoName ? `Undo: ${undoName} (Ctrl+Z)` : 'Nothing to undo';
    this.redo.disabled = !free || redoName === null;
    this.redo.title = redoName ? `Redo: ${redoName} (Ctrl+Y)` : 'Nothing to redo';
    this.reset.disabled = !free;
    this.accept.disabled = !free;
    this.next.disabled = workspace.busy || Boolean(run);
    const selected = segments?.selected;
    this.stripTitle.textContent = ready && selected && segments ? `Slices of ${segments.name(selected)}` : 'Slices';
    const suggested = ready && selected ? workspace.slicesOf(selected) : null;
    this.suggested.disabled = suggested === null || suggested.suggested === null;
    this.suggested.textContent =
      suggested?.suggested == null
        ? 'Next to paint'
        : `Next to paint: ${workspace.numberOf(suggested.axis, suggested.suggested)}`;

    const { action } = message;
    this.message.replaceChildren(message.text);
    if (action) this.message.append(make('button', { type: 'button', class: 'imos-small', on: { click: action.run } }, action.label));
    this.message.dataset.kind = message.kind;
    this.message.hidden = !message.text;
    this.#updateRows();
    this.#look();
  }

  #updateRows() {
    const { segments, ready } = this.workspace;
    const list = ready && segments ? segments.list : [];
    const rows = JSON.stringify([list, segments?.selected, list.map(({ value }) => segments?.isShown(value))]);
    if (rows === this.rows || this.list.querySelector('input.imos-name')) return;
    this.rows = rows;
    this.list.replaceChildren(...list.map((segment) => this.#row(segment)));
  }

  #row(/** @type {import('./api.js').SegmentObject} */ { value, name, color, locked }) {
    const { workspace } = this;
    const segments = /** @type {import('./segments.js').Segments} */ (workspace.segments);
    const isShown = segments.isShown(value);
    const small = (/** @type {string} */ what, /** @type {string} */ title, /** @type {any} */ shape, /** @type {() => void} */ run, pressed = false) =>
      make(
        'button',
        { type: 'button', title, class: 'imos-icon', data: { imos: what }, aria: { pressed: String(pressed) }, on: { click: stopping(run) } },
        icon(shape),
      );
    const colour = make('input', {
      type: 'color',
      class: 'imos-colour',
      value: hex(color),
      title: 'Colour',
      on: {
        click: (/** @type {Event} */ event) => event.stopPropagation(),
        change: (/** @type {Event} */ event) => {
          segments.paint(value, parts(/** @type {HTMLInputElement} */ (event.target).value));
          workspace.saveDraft();
          this.update();
        },
      },
    });
    const label = make('span', { class: 'imos-name', title: 'Double click to rename', on: { dblclick: () => this.#rename(value) } }, name);
    return make(
      'li',
      {
        data: { value: String(value), selected: String(segments.selected === value) },
        aria: { current: String(segments.selected === value) },
        on: { click: () => this.#select(value) },
      },
      colour,
      label,
      small('rename', 'Rename', 'pencil', () => this.#rename(value)),
      small('show', isShown ? 'Hide' : 'Show', isShown ? 'eye' : 'hidden', () => {
        segments.show(value, !isShown);
        this.update();
      }),
      small('lock', locked ? 'Unlock' : 'Lock: nothing changes it', locked ? 'lock' : 'unlock', () => this.#toggleLock(value), locked),
    );
  }
}

function section(/** @type {string} */ title, /** @type {Node[]} */ ...children) {
  return make('section', {}, make('h3', {}, title), ...children);
}

function select(/** @type {string} */ name, /** @type {string} */ title, /** @type {Record<string, string>} */ choices) {
  const options = Object.entries(choices).map(([value, words]) => make('option', { value }, words));
  // The focus goes back to the page, so that the shortcuts work at once.
  const on = { change: (/** @type {Event} */ event) => /** @type {HTMLElement} */ (event.target).blur() };
  return make('select', { title, data: { imos: name }, aria: { label: title }, on }, ...options);
}

function limit(/** @type {string} */ name, /** @type {string} */ title) {
  const placeholder = name === 'first' ? 'first' : 'last';
  const on = { keydown: (/** @type {KeyboardEvent} */ event) => event.key === 'Enter' && /** @type {HTMLElement} */ (event.target).blur() };
  return make('input', { type: 'number', min: '1', placeholder, title, data: { imos: name }, aria: { label: title }, on });
}

function stopping(/** @type {() => void} */ run) {
  return (/** @type {Event} */ event) => {
    event.stopPropagation();
    run();
  };
}

function seriesName(/** @type {any} */ { SeriesDescription, SeriesNumber, Modality }) {
  return SeriesDescription || [Modality, SeriesNumber].filter((part) => part !== undefined).join(' ') || 'Series';
}
