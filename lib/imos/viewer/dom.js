/** Small pieces of the panel. */

/**
 * Make an element.
 *
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} properties `class`, `data`, `aria`, `on`, and properties of the element
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  const { class: name, data, aria, on, ...rest } = properties;
  if (name) element.className = name;
  Object.assign(element, rest);
  for (const [key, value] of Object.entries(data ?? {})) element.dataset[key] = value;
  for (const [key, value] of Object.entries(aria ?? {})) element.setAttribute(`aria-${key}`, value);
  for (const [type, listener] of Object.entries(on ?? {})) element.addEventListener(type, listener);
  element.append(...children);
  return element;
}

const PATHS = {
  brush: 'M18.4 2.6a2.1 2.1 0 0 1 3 3L12.5 15 9 11.5zM8 13l3 3c0 3.5-2.6 5.5-8 5 1.6-1.2 1.7-2.6 2-4.5C5.3 14.3 6.4 13 8 13z',
  eraser: 'M15.5 3.5l5 5a1.7 1.7 0 0 1 0 2.4L12.4 19H20v2H7l-3.5-3.5a1.7 1.7 0 0 1 0-2.4L13.1 3.5a1.7 1.7 0 0 1 2.4 0zM8.5 10.9l-3.6 3.6a1 1 0 0 0 0 1.4L8 19h1.6l3.7-3.3z',
  pointer: 'M5 2l14 9-6 1.5 3.5 7-3 1.5-3.5-7L5 18z',
  lock: 'M7 10V7a5 5 0 0 1 10 0v3h1a1 1 0 0 1 1 1v9a1 1 0 0 1-1 1H6a1 1 0 0 1-1-1v-9a1 1 0 0 1 1-1zm2 0h6V7a3 3 0 0 0-6 0z',
  unlock: 'M7 10V7a5 5 0 0 1 9.6-2l-1.8.8A3 3 0 0 0 9 7v3h9a1 1 0 0 1 1 1v9a1 1 0 0 1-1 1H6a1 1 0 0 1-1-1v-9a1 1 0 0 1 1-1zm0 2v7h10v-7z',
  eye: 'M12 5c5 0 8.5 3.8 10 7-1.5 3.2-5 7-10 7S3.5 15.2 2 12c1.5-3.2 5-7 10-7zm0 3a4 4 0 1 0 0 8 4 4 0 0 0 0-8z',
  hidden: 'M3.5 2l18 18-1.5 1.5-3.4-3.4A10 10 0 0 1 12 19c-5 0-8.5-3.8-10-7a14 14 0 0 1 4-4.9L2 3.5zM12 5c5 0 8.5 3.8 10 7a14 14 0 0 1-2.7 3.8L9.7 5.3A9 9 0 0 1 12 5z',
  pencil: 'M16.5 3l4.5 4.5L8.5 20 3 21l1-5.5z',
  remove: 'M6.4 5L12 10.6 17.6 5 19 6.4 13.4 12l5.6 5.6-1.4 1.4-5.6-5.6L6.4 19 5 17.6l5.6-5.6L5 6.4z',
  plus: 'M11 4h2v7h7v2h-7v7h-2v-7H4v-2h7z',
  undo: 'M9 5v4h5.5a5.5 5.5 0 0 1 0 11H8v-2h6.5a3.5 3.5 0 0 0 0-7H9v4L3 10z',
  redo: 'M15 5v4H9.5a5.5 5.5 0 0 0 0 11H16v-2H9.5a3.5 3.5 0 0 1 0-7H15v4l6-5z',
};

/** @returns {SVGSVGElement} an icon in the colour of the text around it */
export function icon(/** @type {keyof typeof PATHS} */ name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  path.setAttribute('d', PATHS[name]);
  path.setAttribute('fill', 'currentColor');
  path.setAttribute('fill-rule', 'evenodd');
  svg.append(path);
  return svg;
}
