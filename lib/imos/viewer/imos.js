/**
 * iMOS in OHIF: an extension that OHIF import()s at run time (app-config.js names it).
 *
 * It adds the panel “iMOS” to the right side of every mode. OHIF's services come in `onModeEnter`; Cornerstone is on
 * `window`, where OHIF's cornerstone extension puts it.
 */
import { Api } from './api.js';
import { Panel } from './panel.js';
import { Workspace } from './workspace.js';

const ID = '@imos/extension';
const PANEL = `${ID}.panelModule.imos`;
/** The mode in which the panel is opened at once, and the one with a panel of its own for the same things. */
const OWN_MODE = /\/segmentation\b/;
const STOCK_MODE = /\/monai-label\b/;
const SETTLE_MS = 60;
const BASE = new URL('../../', import.meta.url).href;

/** @type {Workspace | null} */
let workspace = null;
/** @type {(() => void)[]} */
let leaving = [];

/** @param {any} servicesManager OHIF's */
function enter({ services }) {
  leave();
  const { viewportGridService, cornerstoneViewportService, segmentationService, panelService } = services;
  const login = () => services.userAuthenticationService?.getAuthorizationHeader?.() ?? {};
  const here = new Workspace(services, new Api(BASE, login), { waits: STOCK_MODE.test(window.location.pathname) });
  workspace = here;
  // For whoever looks with the browser's console, and for the tests.
  /** @type {any} */ (window).imos = { workspace: here };

  const later = debounce(() => here.follow(), SETTLE_MS);
  const grid = viewportGridService.EVENTS;
  for (const event of [grid.ACTIVE_VIEWPORT_ID_CHANGED, grid.GRID_STATE_CHANGED, grid.VIEWPORTS_READY].filter(Boolean)) {
    leaving.push(viewportGridService.subscribe(event, later).unsubscribe);
  }
  const shown = cornerstoneViewportService.EVENTS.VIEWPORT_DATA_CHANGED;
  leaving.push(cornerstoneViewportService.subscribe(shown, later).unsubscribe);
  if (OWN_MODE.test(window.location.pathname)) {
    // Not before the first image: until then OHIF opens the mode's own panels.
    const { unsubscribe } = cornerstoneViewportService.subscribe(shown, () => {
      unsubscribe();
      setTimeout(() => panelService.activatePanel(PANEL, true), SETTLE_MS);
    });
    leaving.push(unsubscribe);
  }

  const { SEGMENTATION_MODIFIED, SEGMENTATION_REPRESENTATION_MODIFIED, SEGMENTATION_DATA_MODIFIED } = segmentationService.EVENTS;
  for (const event of [SEGMENTATION_MODIFIED, SEGMENTATION_REPRESENTATION_MODIFIED]) {
    leaving.push(segmentationService.subscribe(event, () => here.changed()).unsubscribe);
  }
  leaving.push(...watchStrokes(here, segmentationService, SEGMENTATION_DATA_MODIFIED));

  if (!panelService.getPanels('right').some((/** @type {any} */ panel) => panel.id === PANEL)) {
    panelService.addPanel('right', PANEL);
  }
  later();
}

/**
 * A stroke is over when the button is up again; what changes the label map without the mouse counts when it has settled.
 *
 * @param {Workspace} here
 * @param {any} segmentationService
 * @param {string} dataModified
 * @returns {(() => void)[]}
 */
function watchStrokes(here, segmentationService, dataModified) {
  /** @type {string | null} */
  let view = null;
  const settle = debounce(() => {
    here.collect(view);
    if (!here.drawing) view = null;
  }, SETTLE_MS);
  const down = (/** @type {PointerEvent} */ event) => {
    const under = here.views.under(event.target);
    if (!under) return;
    view = under;
    here.drawing += 1;
  };
  const up = () => {
    if (!here.drawing) return;
    here.drawing = 0;
    settle();
  };
  window.addEventListener('pointerdown', down, true);
  for (const type of ['pointerup', 'pointercancel', 'blur']) window.addEventListener(type, up, true);
  return [
    segmentationService.subscribe(dataModified, settle).unsubscribe,
    () => {
      window.removeEventListener('pointerdown', down, true);
      for (const type of ['pointerup', 'pointercancel', 'blur']) window.removeEventListener(type, up, true);
    },
  ];
}

function leave() {
  for (const stop of leaving.splice(0)) stop();
  workspace?.close();
  workspace = null;
}

function debounce(/** @type {() => void} */ run, /** @type {number} */ ms) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(run, ms);
  };
}

// OHIF's panels are React components, and OHIF gives extensions no React: the one element is made by hand, and what is in
// it is plain DOM. This form is React 18's.
const mounted = new WeakSet();
/** @type {Panel | null} */
let panel = null;

function mount(/** @type {HTMLElement | null} */ root) {
  if (!root) {
    panel?.stop();
    panel = null;
  } else if (workspace && !mounted.has(root)) {
    mounted.add(root);
    panel?.stop();
    panel = new Panel(root, workspace);
  }
}

function PanelComponent() {
  return { $$typeof: Symbol.for('react.element'), type: 'div', key: null, ref: mount, props: {}, _owner: null, _store: {} };
}

function addStyle() {
  const href = new URL('style.css', import.meta.url).href;
  if (document.querySelector(`link[href="${href}"]`)) return;
  document.head.append(Object.assign(document.createElement('link'), { rel: 'stylesheet', href }));
}

export default {
  id: ID,
  preRegistration: addStyle,
  onModeEnter: (/** @type {{servicesManager: any}} */ { servicesManager }) => enter(servicesManager),
  onModeExit: leave,
  getPanelModule: () => [
    { name: 'imos', iconName: 'tab-roi-threshold', iconLabel: 'iMOS', label: 'iMOS', component: PanelComponent },
  ],
};
