/** Fills a list of bytes with random ones, as `crypto.getRandomValues` does. */
export type FillRandom = (bytes: Uint8Array<ArrayBuffer>) => void;

const fillRandom: FillRandom = (bytes) => crypto.getRandomValues(bytes);

const hex = (value: number, length: number) => value.toString(16).padStart(length, "0");

/** A uuid of 32 hexadecimal digits, but for its version and variant. */
const uuid = (digits: string, version: number) =>
  digits.replace(/^(.{8})(.{4}).(.{3}).(.{3})/, `$1-$2-${version}$3-8$4-`);

/**
 * Makes uuids of version 7, each greater than the one before: within a millisecond, and where the clock steps back by
 * less than `slack` milliseconds, the twelve bits after the time count on.
 */
export function createIds(now: () => number, random = fillRandom, slack = 1000): () => string {
  let time = 0;
  let count = 0;
  const bytes = new Uint8Array(9);
  return () => {
    random(bytes);
    const present = Math.floor(now());
    // A clock that was set right by more than the slack is believed: ids of the future would be refused.
    if (present > time || present < time - slack) {
      time = present;
      count = (bytes[8] as number) * 8;
    } else if (++count > 0xfff) {
      time++;
      count = 0;
    }
    const rest = Array.from(bytes.subarray(0, 8), (byte) => hex(byte, 2)).join("");
    return uuid(`${hex(time, 12)}0${hex(count, 3)}${rest}`, 7);
  };
}

/** When an id of version 7 was made, in milliseconds since 1970; null for an id of another version. */
export function timeOfId(id: string): number | null {
  return id[14] === "7" ? Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16) : null;
}

/**
 * Uuids that follow from a text and a place: for defaults of the server that a record shows before the server has given
 * them. Every replay of a transaction must show the same ones, in whatever order, and no two places the same.
 */
export function derivedIds(text: string): (place: string) => string {
  return (place) => {
    const words = [0, 1, 2, 3].map((n) => {
      let state = 0x811c9dc5;
      for (const letter of `${n}${text}${place}`)
        state = Math.imul(state ^ letter.charCodeAt(0), 0x01000193);
      const mixed = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
      return hex((mixed ^ (mixed >>> 13)) >>> 0, 8);
    });
    return uuid(words.join(""), 8);
  };
}

/** The server's time, as far as its answers tell it; the device's own until the first one. */
export class ServerClock {
  private offset: number | undefined;

  constructor(private readonly device: () => number = Date.now) {}

  /** Milliseconds since 1970. */
  now(): number {
    return this.device() + (this.offset ?? 0);
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
    const offset = Date.parse(serverTime) + roundTrip / 2 - this.device();
    const known = this.offset ?? Number.NEGATIVE_INFINITY;
    if (Math.abs(offset - known) > grain + roundTrip / 2) this.offset = offset;
  }
}

/** A time in milliseconds as the wire writes it. */
export function wireTime(milliseconds: number): string {
  return `${new Date(milliseconds).toISOString().slice(0, -1)}000Z`;
}
