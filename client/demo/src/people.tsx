import { createContext, type ReactNode, useContext, useMemo } from "react";
import type { Peer } from "rowcast";
import { useRecords } from "rowcast/react";
import type { Profile } from "./schema.gen.js";

type Person = Pick<Profile, "id" | "name" | "colour">;

const People = createContext<ReadonlyMap<string, Person>>(new Map());
const Me = createContext("");

/** The names of all whom the user shares something with, for the components inside. */
export function PeopleProvider({ me, children }: { me: string; children: ReactNode }) {
  const profiles = useRecords("profiles");
  const people = useMemo(() => new Map(profiles.map((person) => [person.id, person])), [profiles]);
  return (
    <Me value={me}>
      <People value={people}>{children}</People>
    </Me>
  );
}

/** The id of the user. */
export function useMe(): string {
  return useContext(Me);
}

/** A person by id. Somebody with whom nothing is shared any more has no name here. */
export function usePerson(): (id: string) => Person {
  const people = useContext(People);
  return (id) => people.get(id) ?? { id, name: "Somebody", colour: "#8a8f98" };
}

/** A round picture of a person: the first letter on his colour. */
export function Avatar({ id, size = 26 }: { id: string; size?: number }) {
  const { name, colour } = usePerson()(id);
  return (
    <span
      className="avatar"
      style={{ backgroundColor: colour, width: size, height: size, fontSize: size * 0.46 }}
      title={name}
      role="img"
      aria-label={name}
      // Drawn by the style sheet: it is no text, of which a screen reader would read “A Alice”.
      data-letter={firstLetter(name)}
    />
  );
}

/** What a reader takes for one letter, which an emoji of several parts is, too. */
function firstLetter(name: string): string {
  const [first] = new Intl.Segmenter().segment(name);
  return first?.segment.toUpperCase() ?? "";
}

/** The people who are here now besides the user himself, each once however many windows he has. */
export function Present({
  peers,
  what,
  size = 26,
}: {
  peers: readonly Peer[];
  what: string;
  size?: number;
}) {
  const me = useMe();
  const person = usePerson();
  const ids = new Set<string>();
  for (const { userId } of peers) if (userId && userId !== me) ids.add(userId);
  if (ids.size === 0) return null;
  const names = [...ids].map((id) => person(id).name).join(", ");
  return (
    <ul className="present" aria-label={`${names} on ${what} now`}>
      {[...ids].map((id) => (
        <li key={id}>
          <Avatar id={id} size={size} />
        </li>
      ))}
    </ul>
  );
}
