/** How the model learns from what was accepted: a line of the panel, with a button to begin or to stop. */
import { make } from './dom.js';
import { describe, text } from './messages.js';

/** @typedef {import('./api.js').TrainingState} TrainingState */

const ASK_MS = 4000;

export class Training {
  /**
   * @param {import('./api.js').Api} api
   * @param {(words: string, kind: 'info' | 'error') => void} say
   */
  constructor(api, say) {
    this.api = api;
    this.say = say;
    /** @type {TrainingState | null} */
    this.state = null;
    this.caption = make('div', { class: 'imos-caption', data: { imos: 'training-text' }, aria: { live: 'polite' } });
    this.bar = make('progress', { max: 1, value: 0, data: { imos: 'training-progress' } });
    this.button = make('button', { type: 'button', data: { imos: 'train' }, on: { click: () => this.#press() } });
    this.element = make('div', { class: 'imos-training' }, this.caption, this.bar, this.button);
    this.#show();
    this.timer = setInterval(() => this.#ask(), ASK_MS);
    this.#ask();
  }

  stop() {
    clearInterval(this.timer);
  }

  async #ask() {
    if (document.hidden) return;
    try {
      this.#take(await this.api.training());
    } catch {
      // The server is away: the next answer counts.
    }
  }

  async #press() {
    this.button.disabled = true;
    try {
      this.#take(await this.api.train(this.state?.running ? 'stop' : 'begin'));
    } catch (error) {
      this.say(describe(error), 'error');
    }
    this.button.disabled = false;
  }

  #take(/** @type {TrainingState} */ state) {
    const ended = this.state?.running && !state.running;
    this.state = state;
    this.#show();
    if (ended && state.reason) this.say(state.reason, state.stage === 'failed' ? 'error' : 'info');
  }

  #show() {
    const { state } = this;
    const isRunning = Boolean(state?.running);
    this.button.textContent = isRunning ? 'Stop' : 'Update model';
    this.button.title = isRunning ? text.stopTraining : text.beginTraining;
    this.button.disabled = !state;
    this.bar.hidden = !isRunning;
    if (state?.steps && state.stage === 'training') this.bar.value = state.step / state.steps;
    else this.bar.removeAttribute('value');
    this.caption.textContent = state ? text.training(state) : '';
    this.caption.title = state?.reason ?? '';
  }
}
