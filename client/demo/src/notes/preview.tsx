import { micromark } from "micromark";
import { gfm, gfmHtml } from "micromark-extension-gfm";
import { useDeferredValue, useMemo } from "react";

/** What Markdown looks like. Typing goes before: a long text is made when there is time. */
export default function Preview({ text }: { text: string }) {
  const shown = useDeferredValue(text);
  const html = useMemo(() => toHtml(shown), [shown]);
  return (
    <section
      className="preview"
      aria-label="Preview"
      // biome-ignore lint/security/noDangerouslySetInnerHtml: see toHtml
      dangerouslySetInnerHTML={{ __html: html }}
    />
  );
}

/**
 * Somebody else may have written the text. micromark shows HTML in it as text and drops links and pictures with
 * `javascript:` and the like, unless told otherwise; besides, the content security policy lets no script in the page run.
 */
export function toHtml(text: string): string {
  return micromark(text, { extensions: [gfm()], htmlExtensions: [gfmHtml()] });
}
