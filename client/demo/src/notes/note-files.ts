/** How a text speaks of the files of its note: `![name](files/<id>)` shows one, `[name](files/<id>)` leads to it. */

const ADDRESS = /^files\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/;

/** The Markdown for a file. A name says what it says, whatever signs of Markdown are in it. */
export function referenceTo(id: string, name: string, picture: boolean): string {
  const words = name.replace(/\s+/g, " ").replace(/[\\`*_[\]<>&~|!:@]/g, "\\$&");
  return `${picture ? "!" : ""}[${words}](files/${id})`;
}

/** The id of the file an address speaks of. */
export function fileAt(address: string): string | undefined {
  return ADDRESS.exec(address)?.[1];
}

/** The text without a file. */
export function withoutFile(text: string, id: string): string {
  return text.replace(new RegExp(`!?\\[(?:\\\\.|[^\\\\\\]\\n])*\\]\\(files/${id}\\)\\n?`, "g"), "");
}
