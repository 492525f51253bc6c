/**
 * Keys of the panel. They come before OHIF's own: a key that does something here does nothing else. Keys typed into a
 * field are left alone.
 */

/**
 * @typedef {{keys: string, does: string, match: (event: KeyboardEvent) => boolean, act: string}} Shortcut
 *   `act`: name of the panel's action
 */

const plain = (/** @type {string} */ key) => (/** @type {KeyboardEvent} */ event) =>
  event.key.toLowerCase() === key && !event.ctrlKey && !event.metaKey && !event.altKey && !event.shiftKey;
const control = (/** @type {string} */ key, shift = false) => (/** @type {KeyboardEvent} */ event) =>
  event.key.toLowerCase() === key && (event.ctrlKey || event.metaKey) && event.shiftKey === shift && !event.altKey;
const typed = (/** @type {string} */ key) => (/** @type {KeyboardEvent} */ event) =>
  event.key === key && !event.ctrlKey && !event.metaKey;

/** @type {Shortcut[]} */
export const shortcuts = [
  { keys: 'B', does: 'Brush', match: plain('b'), act: 'brush' },
  { keys: 'E', does: 'Eraser', match: plain('e'), act: 'eraser' },
  { keys: 'X', does: 'Neither: the left button is OHIF’s again', match: plain('x'), act: 'noTool' },
  { keys: '[', does: 'Smaller brush', match: typed('['), act: 'smaller' },
  { keys: ']', does: 'Larger brush', match: typed(']'), act: 'larger' },
  { keys: 'W', does: 'Next segment', match: plain('w'), act: 'nextSegment' },
  { keys: 'Q', does: 'Previous segment', match: plain('q'), act: 'previousSegment' },
  { keys: 'K', does: 'Lock or unlock the selected segment', match: plain('k'), act: 'lock' },
  { keys: 'P', does: 'Propagate', match: plain('p'), act: 'propagate' },
  { keys: 'Esc', does: 'Cancel the run', match: plain('escape'), act: 'cancel' },
  { keys: 'N', does: 'Go to the next slice to paint', match: plain('n'), act: 'suggested' },
  { keys: 'Ctrl+Z', does: 'Undo', match: control('z'), act: 'undo' },
  {
    keys: 'Ctrl+Y, Ctrl+Shift+Z',
    does: 'Redo',
    match: (event) => control('y')(event) || control('z', true)(event),
    act: 'redo',
  },
  { keys: 'Ctrl+Enter', does: 'Accept all', match: control('enter'), act: 'accept' },
  { keys: '?', does: 'Show or hide this list', match: typed('?'), act: 'help' },
];

/**
 * Listen to the keys; returns what stops it.
 *
 * @param {(act: string) => boolean} act says whether there was something to do
 * @returns {() => void}
 */
export function listen(act) {
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const target = /** @type {HTMLElement | null} */ (event.target);
    if (target?.closest('input:not([type=range]), select, textarea, [contenteditable], [role=dialog]')) return;
    const shortcut = shortcuts.find(({ match }) => match(event));
    if (!shortcut || !act(shortcut.act)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  };
  window.addEventListener('keydown', onKey, true);
  return () => window.removeEventListener('keydown', onKey, true);
}
