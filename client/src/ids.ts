/** Fills a list of bytes with random ones, as `crypto.getRandomValues` does. */
export type FillRandom = (bytes: Uint8Array<ArrayBuffer>) => void;

const HEX = Array.from({ length: 256 }, (_, n) => n.toString(16).padStart(2, "0"));

function format(bytes: Uint8Array): string {
  const hex = Array.from(bytes, (byte) => HEX[byte]).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

const fillRandom: FillRandom = (bytes) => crypto.getRandomValues(bytes);

/**
 * Makes uuids of version 7, each greater than the one before: within a millisecond, and where the clock steps back by
 * less than `slack` milliseconds, the twelve bits after the time count on.
 */
export function createIds(now: () => number, random = fillRandom, slack = 1000): () => string {
  let time = 0;
  let count = 0;
  const bytes = new Uint8Array(16);
  return () => {
    random(bytes);
    const present = Math.floor(now());
    // A clock that was set right by more than the slack is believed: ids of the future would be refused.
    if (present > time || present < time - slack) {
      time = present;
      count = (((bytes[6] ?? 0) << 8) | (bytes[7] ?? 0)) & 0x7ff;
    } else if (++count > 0xfff) {
      time++;
      count = 0;
    }
    const view = new DataView(bytes.buffer);
    view.setUint16(0, Math.floor(time / 2 ** 32));
    view.setUint32(2, time % 2 ** 32);
    view.setUint16(6, 0x7000 | count);
    view.setUint8(8, 0x80 | (view.getUint8(8) & 0x3f));
    return format(bytes);
  };
}

/** When an id of version 7 was made, in milliseconds since 1970; null for an id of another version. */
export function timeOfId(id: string): number | null {
  return id[14] === "7" ? Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16) : null;
}

/**
 * Uuids that follow from a text: for defaults of the server that a record shows before the server has given them.
 * Every replay of a transaction must show the same ones.
 */
export function derivedIds(text: string): () => string {
  let state = 0x811c9dc5;
  for (let n = 0; n < text.length; n++) state = Math.imul(state ^ text.charCodeAt(n), 0x01000193);
  const next = () => {
    state = (state + 0x9e3779b9) | 0;
    let word = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
    word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35);
    return (word ^ (word >>> 16)) >>> 0;
  };
  return () => {
    const view = new DataView(new ArrayBuffer(16));
    for (let n = 0; n < 4; n++) view.setUint32(n * 4, next());
    view.setUint8(6, 0x80 | (view.getUint8(6) & 0x0f));
    view.setUint8(8, 0x80 | (view.getUint8(8) & 0x3f));
    return format(new Uint8Array(view.buffer));
  };
}

/** The server's time, as far as its answers tell it; the device's own until the first one. */
export class ServerClock {
  private readonly device: () => number;
  private offset = 0;
  private known = false;

  constructor(device: () => number = Date.now) {
    this.device = device;
  }

  /** Milliseconds since 1970. */
  now(): number {
    return this.device() + this.offset;
  }

  /** The same as the wire writes it, `2026-01-31T12:00:00.000000Z`. */
  wireNow(): string {
    return wireTime(this.now());
  }

  /**
   * Takes in what an answer said (`welcome.serverTime`, the header `Date`). roundTrip: since the question, in
   * milliseconds. grain: how coarse the time is; a difference within it says nothing new.
   */
  adjust(serverTime: string, roundTrip = 0, grain = 1): void {
    const told = Date.parse(serverTime);
    if (Number.isNaN(told)) return;
    const offset = told + roundTrip / 2 - this.device();
    if (this.known && Math.abs(offset - this.offset) <= grain + roundTrip / 2) return;
    this.known = true;
    this.offset = offset;
  }
}

/** A time in milliseconds as the wire writes it. */
export function wireTime(milliseconds: number): string {
  return `${new Date(milliseconds).toISOString().slice(0, -1)}000Z`;
}
