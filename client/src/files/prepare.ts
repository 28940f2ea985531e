/** What is said of a file before it is sent: a name and type the server takes, and its hash. */

/** Above this a file is not hashed here: the browser's own hash takes the whole file into memory at once. */
export const HASHED_BYTES = 32 * 1024 * 1024;

const LONGEST_NAME = 255;
// Controls, slashes, and characters that turn what stands behind them round.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069/\\]/gu;
const TYPE = /^[a-z0-9][a-z0-9!#$&^_.+-]{0,62}\/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}$/;

/** A name as the server takes it: what it refuses is `_`, and a long one keeps its ending. */
export function plainName(name: string): string {
  const letters = [...name.replace(UNSEEN, "_").replace(/\p{Surrogate}/gu, "_")];
  if (letters.length > LONGEST_NAME) {
    const dot = letters.lastIndexOf(".");
    const ending = dot > 0 && letters.length - dot <= 20 ? letters.slice(dot) : [];
    letters.splice(LONGEST_NAME - ending.length, letters.length, ...ending);
  }
  const plain = letters.join("");
  return ["", ".", ".."].includes(plain) ? "file" : plain;
}

/** A media type as the server takes it: in lower case, without parameters. */
export function plainType(type: string): string {
  const plain = type.split(";")[0]?.trim().toLowerCase() ?? "";
  return TYPE.test(plain) ? plain : "application/octet-stream";
}

/**
 * SHA-256 in hex; undefined for a large file, and where the browser has no hash (a page without TLS). The server
 * then says what it has hashed, and the size alone is compared.
 */
export async function hashOf(bytes: Blob): Promise<string | undefined> {
  const subtle = globalThis.crypto?.subtle;
  if (!subtle || bytes.size > HASHED_BYTES) return undefined;
  const digest = await subtle.digest("SHA-256", await bytes.arrayBuffer());
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
