/**
 * Strokes and segment names that the server does not have yet, kept in the browser (IndexedDB) so that a reload, a crash
 * or a closed window loses nothing. Where the browser forbids storage, there are simply no drafts.
 *
 * @typedef {{revision: number, size: number[], strokes: import('./strokes.js').Stroke[],
 *   objects: import('./api.js').SegmentObject[]}} Draft
 */

const STORE = 'drafts';

/** @returns {Promise<IDBDatabase>} */
function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open('imos', 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/**
 * @template T
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest<T>} ask
 * @returns {Promise<T | undefined>}
 */
async function within(mode, ask) {
  let database;
  try {
    database = await open();
    const transaction = database.transaction(STORE, mode);
    const request = ask(transaction.objectStore(STORE));
    await new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(undefined);
      transaction.onerror = () => reject(transaction.error);
    });
    return request.result;
  } catch (error) {
    console.warn('iMOS: strokes are not kept in this browser', error);
    return undefined;
  } finally {
    database?.close();
  }
}

const key = (/** @type {string} */ client, /** @type {string} */ image) => `${client}/${image}`;

export const drafts = {
  /** @returns {Promise<Draft | undefined>} */
  load: (/** @type {string} */ client, /** @type {string} */ image) =>
    within('readonly', (store) => store.get(key(client, image))),

  save: (/** @type {string} */ client, /** @type {string} */ image, /** @type {Draft} */ draft) =>
    within('readwrite', (store) => store.put(draft, key(client, image))),

  remove: (/** @type {string} */ client, /** @type {string} */ image) =>
    within('readwrite', (store) => store.delete(key(client, image))),
};
