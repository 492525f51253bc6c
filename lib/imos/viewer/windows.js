/**
 * Windows: in one browser a series is worked on in one window at a time, the one that opened it last.
 *
 * All windows of a browser share one client on the server and one draft of each series; two that paint on the same
 * series would write over each other. Another browser is another client and needs no such care.
 */

const CHANNEL = 'imos.windows';

export class Windows {
  /**
   * @param {string} client
   * @param {(image: string) => void} taken called when another window has opened an image
   */
  constructor(client, taken) {
    this.client = client;
    this.channel = new BroadcastChannel(CHANNEL);
    this.channel.onmessage = ({ data }) => {
      if (data.client === client) taken(data.image);
    };
  }

  /** Say that an image is worked on here from now on. */
  take(/** @type {string} */ image) {
    this.channel.postMessage({ client: this.client, image });
  }

  close() {
    this.channel.close();
  }
}
