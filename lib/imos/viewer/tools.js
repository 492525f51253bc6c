/** Brush and eraser: OHIF's own tools, switched on for the left mouse button. */

// Read when used: OHIF may import this module before its cornerstone extension has put it on the window.
const cornerstoneTools = () => /** @type {any} */ (window).cornerstoneTools;
const TOOLS = { brush: 'CircularBrush', eraser: 'CircularEraser' };
const STRATEGIES = { brush: 'FILL_INSIDE_CIRCLE', eraser: 'ERASE_INSIDE_CIRCLE' };

/** @typedef {'brush' | 'eraser' | null} Tool null: what OHIF's toolbar has active */

/**
 * @param {any} services OHIF's
 * @param {string[]} viewportIds
 * @param {Tool} tool
 * @param {number} radius mm
 */
export function useTool(services, viewportIds, tool, radius) {
  for (const group of groups(services, viewportIds)) {
    for (const name of ['brush', 'eraser']) ensure(group, /** @type {'brush' | 'eraser'} */ (name));
    const wanted = tool ? TOOLS[tool] : group.hasTool('WindowLevel') ? 'WindowLevel' : null;
    const now = group.getActivePrimaryMouseButtonTool?.();
    if (wanted === null || now === wanted) continue;
    if (now) group.setToolPassive(now);
    group.setToolActive(wanted, { bindings: [{ mouseButton: cornerstoneTools().Enums.MouseBindings.Primary }] });
  }
  if (tool) setRadius(services, viewportIds, radius);
}

/** The radius in mm, for brush and eraser. */
export function setRadius(/** @type {any} */ services, /** @type {string[]} */ viewportIds, /** @type {number} */ radius) {
  for (const group of groups(services, viewportIds)) {
    for (const name of Object.values(TOOLS)) {
      if (!group.hasTool(name)) continue;
      cornerstoneTools().utilities.segmentation.setBrushSizeForToolGroup(group.id, radius, name);
    }
  }
}

/** @returns {Tool} which of the two is active now, as OHIF's toolbar may have changed it */
export function toolInUse(/** @type {any} */ services, /** @type {string | null} */ viewportId) {
  const name = viewportId && services.toolGroupService.getToolGroupForViewport(viewportId)?.getActivePrimaryMouseButtonTool?.();
  if (name === TOOLS.brush) return 'brush';
  return name === TOOLS.eraser ? 'eraser' : null;
}

/** @returns {Set<any>} */
function groups(/** @type {any} */ services, /** @type {string[]} */ viewportIds) {
  const found = viewportIds.map((id) => services.toolGroupService.getToolGroupForViewport(id));
  return new Set(found.filter(Boolean));
}

/** The basic viewer's tool groups come without a brush. */
function ensure(/** @type {any} */ group, /** @type {'brush' | 'eraser'} */ tool) {
  if (!group.hasTool(TOOLS[tool])) group.addToolInstance(TOOLS[tool], 'Brush', { activeStrategy: STRATEGIES[tool] });
}
