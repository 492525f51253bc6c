/** Label maps as NRRD: written raw in left-posterior-superior space, read raw or gzip in any space. */
import { Said, text } from './messages.js';

/** @typedef {import('./geometry.js').Grid} Grid */
/** @typedef {import('./geometry.js').Vector} Vector */

const KINDS = { uint8: Uint8Array, uint16: Uint16Array };
/** @type {Record<string, keyof typeof KINDS>} */
const TYPES = {
  uint8: 'uint8',
  uint8_t: 'uint8',
  uchar: 'uint8',
  'unsigned char': 'uint8',
  uint16: 'uint16',
  uint16_t: 'uint16',
  ushort: 'uint16',
  'unsigned short': 'uint16',
};
/** @type {Record<string, Vector>} signs that turn a space into left-posterior-superior */
const SPACES = {
  'left-posterior-superior': [1, 1, 1],
  lps: [1, 1, 1],
  'right-anterior-superior': [-1, -1, 1],
  ras: [-1, -1, 1],
  'left-anterior-superior': [1, -1, 1],
  las: [1, -1, 1],
};

/**
 * @param {Grid} grid
 * @param {Uint8Array} voxels
 * @returns {Blob}
 */
export function writeNrrd(grid, voxels) {
  const vector = (/** @type {Vector} */ v) => `(${v.map((n) => n.toPrecision(15)).join(',')})`;
  const header = [
    'NRRD0004',
    'type: uint8',
    'dimension: 3',
    'space: left-posterior-superior',
    `sizes: ${grid.size.join(' ')}`,
    `space directions: ${grid.directions.map(vector).join(' ')}`,
    'kinds: domain domain domain',
    'encoding: raw',
    `space origin: ${vector(grid.origin)}`,
    '',
    '',
  ];
  return new Blob([header.join('\n'), /** @type {BlobPart} */ (voxels)], { type: 'application/octet-stream' });
}

/**
 * @param {ArrayBuffer} buffer
 * @returns {Promise<{grid: Grid, voxels: Uint8Array | Uint16Array}>}
 */
export async function readNrrd(buffer) {
  const bytes = new Uint8Array(buffer);
  const end = endOfHeader(bytes);
  const lines = new TextDecoder().decode(bytes.subarray(0, end)).split('\n');
  if (!lines[0].startsWith('NRRD')) throw new Said(text.badAnswer);
  /** @type {Record<string, string>} */
  const fields = {};
  for (const line of lines.slice(1)) {
    const [, name, value] = /^([^#:]+):=?\s*(.*?)\s*$/.exec(line) ?? [];
    if (name) fields[name.toLowerCase()] = value;
  }
  const type = TYPES[fields.type];
  const signs = SPACES[(fields.space ?? 'lps').toLowerCase()];
  const vectors = (/** @type {string} */ field) =>
    [...(fields[field] ?? '').matchAll(/\(([^)]*)\)/g)].map(
      (match) => /** @type {Vector} */ (match[1].split(',').map((n, axis) => Number(n) * (signs?.[axis] ?? NaN))),
    );
  const size = /** @type {Vector} */ ((fields.sizes ?? '').split(/\s+/).map(Number));
  const directions = vectors('space directions');
  const [origin] = vectors('space origin');
  if (!type || !signs || size.length !== 3 || directions.length !== 3 || !origin) throw new Said(text.badAnswer);

  let raw = bytes.subarray(end + 2);
  if (/^gz/.test(fields.encoding)) raw = await gunzip(raw);
  else if (fields.encoding !== 'raw') throw new Said(text.badAnswer);
  const count = size[0] * size[1] * size[2];
  if (raw.length < count * KINDS[type].BYTES_PER_ELEMENT) throw new Said(text.badAnswer);
  // A copy, because 16-bit voxels must start at an even byte.
  const voxels = new KINDS[type](raw.slice().buffer, 0, count);
  return { grid: { size, origin, directions: /** @type {Grid['directions']} */ (directions) }, voxels };
}

function endOfHeader(/** @type {Uint8Array} */ bytes) {
  for (let at = 0; at + 1 < bytes.length; at++) {
    if (bytes[at] === 10 && bytes[at + 1] === 10) return at;
  }
  throw new Said(text.badAnswer);
}

async function gunzip(/** @type {Uint8Array} */ bytes) {
  const stream = new Blob([/** @type {BlobPart} */ (bytes)]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
