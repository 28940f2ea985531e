import { useEffect } from "react";
import { useClient, useQuery } from "rowcast/react";
import { useMe } from "../people.js";
import { useAccountHere } from "../session.js";

const COLOURS = ["#6b4df0", "#0b8256", "#c44d1c", "#2766c4", "#a83279", "#7a6a12", "#0f7c86"];

/** Who is new has no name yet: he gets one from his address, which he can change. */
export function FirstProfile() {
  const client = useClient();
  const me = useMe();
  const user = useAccountHere();
  const { data, status } = useQuery("profiles", { id: me });
  const missing = user !== undefined && status === "live" && data.length === 0;
  const name = user?.email?.split("@")[0]?.slice(0, 80) || "Guest";
  useEffect(() => {
    if (!missing) return;
    const colour = COLOURS[Number.parseInt(me.slice(-4), 16) % COLOURS.length] ?? "#6b7280";
    const written = client.write(
      { type: "create", table: "profiles", id: me, value: { name, colour } },
      { undo: false },
    );
    // Another device was first: that is as good.
    written.confirmed.catch(() => client.discard(written.txId).catch(() => {}));
  }, [client, missing, me, name]);
  return null;
}
