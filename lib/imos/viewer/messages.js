/**
 * Every sentence the panel says, in one place.
 *
 * What the server says about an error comes first: it knows what is wrong with this image. The sentences here are for
 * what only the viewer can know.
 */

/** An error whose text is meant for the user as it is. */
export class Said extends Error {}

export const text = {
  noStudy: 'Open a series of a study: iMOS works on the series of the selected view.',
  opening: 'Opening the series…',
  notAnImage: 'This series has no images that can be painted on. Select a view with a CT, MR or similar series.',
  tooManyLabels: 'This label map has values above 255, which OHIF cannot show. Open it in 3D Slicer.',
  otherGrid:
    'The labels on the server belong to another set of images of this series. Reload the page; if that does not help,' +
    ' press Reset.',
  badAnswer: 'The server sent labels that cannot be read. Reload the page.',
  offline: 'The server does not answer. Your strokes are kept in this browser; try again when it is back.',
  lostRun: 'The connection was lost while the run was going on. Reload the page to see how far it came.',
  nothingPainted: 'Paint a segment on one slice first, then press Propagate.',
  selectedNotPainted: (/** @type {string} */ name) =>
    `“${name}” is not painted on any slice. Paint it on one slice, or propagate all segments.`,
  limitsOrder: 'The first slice lies behind the last one. Swap or clear the limits.',
  locked: (/** @type {string} */ names) =>
    `${names} ${names.includes(', ') ? 'are' : 'is'} locked and was not changed. Unlock it in the list to paint there.`,
  tilted: (/** @type {number} */ degrees) =>
    `This view is tilted by ${degrees}° against the slices of the series, so the stroke would cross several slices.` +
    ' It was taken back. Press “Align views”, then paint.',
  noViewOfPlane: (/** @type {string} */ plane) =>
    `No view shows the ${plane} plane. Choose the layout “MPR” and click again.`,
  noLabelmap: 'The segmentation of this series was removed. Reload the page to bring it back.',
  running: 'A run is going on. Wait for it or press Cancel.',
  running409: 'A run for this series is going on already, perhaps in another window. Wait for it, then try again.',
  propagated: (/** @type {string} */ seconds) => `Done in ${seconds} s.`,
  cancelled: 'Cancelled. Everything is as before the run; what you painted is still there.',
  undone: (/** @type {string} */ what) => `Undone: ${what}.`,
  redone: (/** @type {string} */ what) => `Done again: ${what}.`,
  reset: 'All segments of this series are empty again. Undo brings them back.',
  confirmReset: 'Empty all segments of this series? Undo brings them back.',
  accepted: 'Accepted and stored with the study.',
  acceptedTraining: 'Accepted and stored with the study. The model learns from it in the background.',
  nothingToAccept: 'There is nothing to accept yet. Paint a segment and press Propagate first.',
  beginTraining: 'Learn from the accepted segments now; a version that is not better is not used',
  stopTraining: 'Stop learning; the model in use stays as it is',
  training: (/** @type {import('./api.js').TrainingState} */ { running, stage, step, steps, in_use, new_labels, auto_train }) => {
    if (running) {
      if (stage === 'training' && steps) return `Learning: step ${step} of ${steps}`;
      return stage === 'judging' ? 'Judging what was learned' : 'Preparing to learn';
    }
    const model = in_use === 'base' ? 'Model as shipped' : `Model ${in_use}`;
    const after = auto_train ? ` of ${auto_train}` : '';
    return `${model}; ${new_labels}${after} newly accepted`;
  },
  choosing: 'Choosing the next study…',
  noNext: 'All done: every other study has accepted segments, or somebody else has it open.',
  notDicom: (/** @type {string} */ image) =>
    `The next image, “${image}”, is no DICOM series, so OHIF cannot show it. Open it in 3D Slicer.`,
  noSuggestion: (/** @type {string} */ name) => `No slice of “${name}” needs painting more than another.`,
  waiting: 'Press “Brush” to work with iMOS here. Until then this view belongs to OHIF’s own MONAI Label panel.',
  elsewhere: 'This series was opened in another window of this browser; your work is there.',
  shown: 'These segments were stored with the study before.',
  restored: 'Your unsent strokes were brought back.',
  tooManySegments: 'A series can have 255 segments in OHIF.',
  nameTaken: 'Another segment has this name already.',
};

/**
 * The sentence for an error.
 *
 * @param {unknown} error
 * @returns {string}
 */
export function describe(error) {
  if (error instanceof Said) return error.message;
  if (error instanceof TypeError && /fetch|network|load failed/i.test(error.message)) return text.offline;
  console.error('iMOS', error);
  return `Something went wrong in the viewer: ${error instanceof Error ? error.message : String(error)}`;
}
