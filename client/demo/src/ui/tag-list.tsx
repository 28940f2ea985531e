import { type KeyboardEvent, useId, useState } from "react";
import { Icon } from "./icon.js";

/** A tag. Its colour follows from its name, the same for everybody. */
export function Tag({ name }: { name: string }) {
  return (
    <span className="tag" data-hue={hue(name)}>
      {name}
    </span>
  );
}

/** Tags that can be taken away and added. */
export function TagList({
  tags,
  known,
  onAdd,
  onRemove,
}: {
  tags: readonly string[];
  /** Tags to offer. */
  known: readonly string[];
  onAdd: (tag: string) => void;
  onRemove: (tag: string) => void;
}) {
  const [text, setText] = useState("");
  const list = useId();
  const add = () => {
    const tag = text.trim();
    if (tag && !tags.includes(tag)) onAdd(tag);
    setText("");
  };
  const press = (event: KeyboardEvent) => {
    if (event.key === "Enter" || event.key === ",") {
      event.preventDefault();
      add();
    }
    const last = tags.at(-1);
    if (event.key === "Backspace" && text === "" && last !== undefined) onRemove(last);
  };
  return (
    <div className="tag-list">
      {tags.map((tag) => (
        <button
          key={tag}
          type="button"
          className="tag removable"
          data-hue={hue(tag)}
          aria-label={`Remove tag ${tag}`}
          onClick={() => onRemove(tag)}
        >
          {tag}
          <Icon name="close" size={12} />
        </button>
      ))}
      <input
        className="tag-input"
        list={list}
        value={text}
        maxLength={60}
        placeholder="Add tag"
        aria-label="Add a tag"
        onChange={(event) => setText(event.target.value)}
        onKeyDown={press}
        onBlur={add}
      />
      <datalist id={list}>
        {known
          .filter((tag) => !tags.includes(tag))
          .map((tag) => (
            <option key={tag} value={tag} />
          ))}
      </datalist>
    </div>
  );
}

const HUES = 6;

function hue(name: string): number {
  let sum = 0;
  for (const character of name) sum = (sum * 31 + (character.codePointAt(0) ?? 0)) % 9973;
  return sum % HUES;
}
