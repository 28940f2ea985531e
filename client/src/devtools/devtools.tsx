import { type CSSProperties, type ReactNode, useState, useSyncExternalStore } from "react";
import type { Client, DebugState, SeenFrame } from "../client.js";
import { useClient } from "../react/context.js";
import type { Operation } from "../wire.gen.js";

/** What the panel takes. */
export interface RowcastDevtoolsProps {
  /** Whether it is open at first. */
  initialIsOpen?: boolean;
  /** The corner of its button. */
  position?: "bottom-right" | "bottom-left" | "top-right" | "top-left";
}

/**
 * A button in a corner that opens a panel: connection and cursor, keys, queries, pending and refused writes, and the
 * last frames. It belongs below a RowcastProvider, and into builds for developers.
 */
export function RowcastDevtools({
  initialIsOpen = false,
  position = "bottom-right",
}: RowcastDevtoolsProps): ReactNode {
  const client = useClient();
  const [isOpen, open] = useState(initialIsOpen);
  const [vertical, horizontal] = position.split("-") as ["top" | "bottom", "left" | "right"];
  return (
    <section aria-label="Rowcast devtools" style={styles.root}>
      <Toggle
        client={client}
        isOpen={isOpen}
        style={{ ...styles.toggle, [vertical]: 12, [horizontal]: 12 }}
        onClick={() => open(!isOpen)}
      />
      {isOpen && <Panel client={client} />}
    </section>
  );
}

function Toggle(props: {
  client: Client;
  isOpen: boolean;
  style: CSSProperties;
  onClick: () => void;
}) {
  const { client, isOpen, style, onClick } = props;
  const { state, pending, rejected } = useSyncExternalStore(
    client.status.subscribe,
    client.status.getSnapshot,
    client.status.getSnapshot,
  );
  const counts = [pending && `${pending} pending`, rejected && `${rejected} refused`];
  return (
    <button type="button" aria-expanded={isOpen} style={style} onClick={onClick}>
      <i style={{ ...styles.dot, background: COLORS[state] }} />
      {["Rowcast", state, ...counts].filter(Boolean).join(" · ")}
    </button>
  );
}

const TABS = ["keys", "queries", "pending", "refused", "frames"] as const;

/** Mounted while it is open: nothing is looked at before. */
function Panel({ client }: { client: Client }) {
  const state = useSyncExternalStore(
    client.debug.subscribe,
    client.debug.getSnapshot,
    client.debug.getSnapshot,
  );
  const [tab, show] = useState<(typeof TABS)[number]>("keys");
  const counts = {
    keys: state.keys.length,
    queries: state.queries.length,
    pending: state.pending.length,
    refused: state.rejected.length,
    frames: state.frames.length,
  };
  return (
    <div style={styles.panel}>
      <dl style={styles.facts}>
        <Fact name="socket" value={state.socket} />
        <Fact name="user" value={state.userId === null ? "nobody" : (state.userId ?? "?")} />
        <Fact name="epoch" value={state.epoch ?? "?"} />
        <Fact name="cursor" value={state.cursor ?? "none"} />
      </dl>
      <div role="tablist" style={styles.tabs}>
        {TABS.map((name) => (
          <button
            key={name}
            type="button"
            role="tab"
            aria-selected={tab === name}
            style={tab === name ? styles.chosen : styles.tab}
            onClick={() => show(name)}
          >
            {`${name} ${counts[name]}`}
          </button>
        ))}
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls is scrolled by keys, too */}
      <div role="tabpanel" tabIndex={0} style={styles.body}>
        <Tab name={tab} state={state} client={client} />
      </div>
    </div>
  );
}

function Tab(props: { name: (typeof TABS)[number]; state: DebugState; client: Client }) {
  const { name, state, client } = props;
  switch (name) {
    case "keys":
      return (
        <Table
          heads={["key", "status", "users"]}
          rows={state.keys.map(({ key, status, users, stale }) => [
            key,
            stale ? `${status}, stale` : status,
            users,
          ])}
        />
      );
    case "queries":
      return (
        <Table
          heads={["query", "status", "rows", "keys"]}
          rows={state.queries.map(({ id, status, rows, loading, keys }) => [
            id,
            loading ? `${status}, loading` : status,
            rows,
            keys.join(" "),
          ])}
        />
      );
    case "pending":
      return (
        <Table
          heads={["transaction", "operations", "sent"]}
          rows={state.pending.map(({ txId, operations, attempted }) => [
            txId,
            <Operations key="" all={operations} />,
            attempted ? "yes" : "no",
          ])}
        />
      );
    case "refused":
      return (
        <Table
          heads={["transaction", "operations", "why", ""]}
          rows={state.rejected.map(({ id, txId, operations, error }) => [
            txId,
            <Operations key="" all={operations} />,
            error.message,
            <span key="">
              <button type="button" onClick={() => client.retry(id).catch(report)}>
                Retry
              </button>
              <button type="button" onClick={() => client.discard(id).catch(report)}>
                Discard
              </button>
            </span>,
          ])}
        />
      );
    case "frames":
      return <Frames frames={state.frames} />;
  }
}

function Frames({ frames }: { frames: readonly SeenFrame[] }) {
  // The newest is on top; numbered from the oldest, so that opened ones stay open.
  const rows = [...frames].reverse();
  return rows.map((seen) => (
    <details key={`${seen.at} ${JSON.stringify(seen.frame)}`}>
      <summary>
        {`${new Date(seen.at).toISOString().slice(11, 23)} ${seen.direction === "in" ? "←" : "→"} ${seen.frame.type}`}
      </summary>
      <pre style={styles.code}>{JSON.stringify(seen.frame, null, 2)}</pre>
    </details>
  ));
}

function Operations({ all }: { all: readonly Operation[] }) {
  return all.map((operation) => (
    <code key={JSON.stringify(operation)} style={styles.code}>
      {`${JSON.stringify(operation)}\n`}
    </code>
  ));
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt style={styles.name}>{name}</dt>
      <dd style={styles.value} title={value}>
        {value}
      </dd>
    </div>
  );
}

function Table({ heads, rows }: { heads: readonly string[]; rows: readonly ReactNode[][] }) {
  if (!rows.length) return <p>None</p>;
  return (
    <table style={styles.table}>
      <thead>
        <tr>
          {heads.map((head) => (
            <th key={head} scope="col" style={styles.name}>
              {head}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {rows.map((cells) => (
          <tr key={String(cells[0])}>
            {cells.map((cell, at) => (
              <td key={heads[at]} style={styles.cell}>
                {cell}
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function report(error: unknown): void {
  console.error(error);
}

const COLORS = {
  online: "#3fb950",
  syncing: "#d29922",
  offline: "#8b949e",
  "needs-auth": "#f85149",
};

const quiet: CSSProperties = {
  font: "inherit",
  color: "inherit",
  background: "none",
  border: 0,
  padding: "4px 8px",
  cursor: "pointer",
};

const styles = {
  root: { font: "12px/1.5 ui-monospace, monospace", colorScheme: "dark" },
  toggle: {
    ...quiet,
    position: "fixed",
    zIndex: 99_999,
    color: "#e6edf3",
    background: "#161b22",
    border: "1px solid #30363d",
    borderRadius: 6,
  },
  dot: { display: "inline-block", width: 8, height: 8, marginRight: 6, borderRadius: 4 },
  panel: {
    position: "fixed",
    zIndex: 99_998,
    left: 0,
    right: 0,
    bottom: 0,
    height: "40vh",
    display: "flex",
    flexDirection: "column",
    color: "#e6edf3",
    background: "#0d1117",
    borderTop: "1px solid #30363d",
  },
  facts: { display: "flex", flexWrap: "wrap", gap: 16, margin: 0, padding: 8 },
  name: { textAlign: "left", fontWeight: 400, color: "#8b949e" },
  value: {
    margin: 0,
    maxWidth: "40ch",
    overflow: "hidden",
    textOverflow: "ellipsis",
    whiteSpace: "nowrap",
  },
  tabs: { borderBottom: "1px solid #30363d" },
  tab: quiet,
  chosen: { ...quiet, boxShadow: "inset 0 -2px #58a6ff" },
  body: { flex: 1, overflow: "auto", padding: "8px 8px 48px" },
  table: { width: "100%", borderCollapse: "collapse" },
  cell: { verticalAlign: "top", padding: "2px 8px 2px 0", overflowWrap: "anywhere" },
  code: { margin: 0, whiteSpace: "pre-wrap" },
} satisfies { [name: string]: CSSProperties };
