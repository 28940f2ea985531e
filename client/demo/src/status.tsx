import { useEffect, useId, useState, useSyncExternalStore } from "react";
import { useUploads } from "rowcast/files/react";
import { useRejected, useStatus, useUndoRedo } from "rowcast/react";
import { SignInAgain } from "./account/sign-in-again.js";
import { describe, reason } from "./describe.js";
import { Dialog } from "./ui/dialog.js";
import { Icon, IconButton } from "./ui/icon.js";
import { notify, notifyNotLoaded } from "./ui/toasts.js";

/** Undo, redo, whether everything is saved, and what was refused. */
export function StatusBar() {
  const error = useStatus((status) => status.lastError);
  // Waiting for the network is no news; that this device has no room is, or a page older than the server's files.
  useEffect(() => {
    if (error?.code.startsWith("storage_")) notify(error.message);
    if (error?.code === "not_loaded") notifyNotLoaded();
  }, [error]);
  return (
    <div className="status-bar">
      <UndoRedo />
      <Saved />
      <Refused />
    </div>
  );
}

function UndoRedo() {
  const { canUndo, canRedo, undo, redo } = useUndoRedo({
    onStep: ({ skipped }) => {
      if (skipped.length) notify("Somebody has changed it since: that part stays as it is.");
    },
  });
  return (
    <>
      <IconButton
        icon="undo"
        label="Undo"
        aria-keyshortcuts="Control+Z"
        disabled={!canUndo}
        onClick={() => quietly(undo())}
      />
      <IconButton
        icon="redo"
        label="Redo"
        aria-keyshortcuts="Control+Shift+Z"
        disabled={!canRedo}
        onClick={() => quietly(redo())}
      />
    </>
  );
}

/** Where it fails the status says so. */
function quietly(step: Promise<unknown>): void {
  step.catch(() => {});
}

/** A write takes a moment: only what takes longer is worth a word. */
const PATIENCE_MS = 500;
/** Whether the device keeps anything is known after a moment. */
const STARTING_MS = 3000;

function Saved() {
  const { online, pending, rejected, needsAuth, upgrade, durable } = useStatus();
  const waiting = pending > 0;
  // However soon the network is back: what has waited for it was not saved.
  const saving = useLasting(waiting, PATIENCE_MS, { atFirst: waiting, atOnce: !online });
  const forgetful = useLasting(!durable, STARTING_MS);
  const files = useUnsentFiles();
  const changes = `${pending} ${pending === 1 ? "change" : "changes"}`;
  const filesText = `${files} ${files === 1 ? "file" : "files"}`;
  if (upgrade) {
    return (
      <button type="button" className="badge warn" onClick={() => location.reload()}>
        <Icon name="sync" size={15} /> Reload for the new version
      </button>
    );
  }
  if (needsAuth) return <SignInAgain />;
  if (!online) {
    const why = durable ? "They are kept on this device." : "They are lost when this page closes.";
    return (
      <span className="badge off" role="status" title={waiting ? why : undefined}>
        <Icon name="cloudOff" size={15} /> Offline
        {waiting && <span className="count">{changes} waiting</span>}
        {files > 0 && <span className="count">{filesText} waiting</span>}
      </span>
    );
  }
  if (forgetful && !saving) {
    return (
      <span className="badge warn" role="status" title="As in a private window">
        <Icon name="warning" size={15} /> Not kept on this device
      </span>
    );
  }
  if (files > 0 && !saving) {
    return (
      <span className="badge busy" role="status">
        <Icon name="sync" size={15} />
        <span className="words">Uploading {filesText}</span>
      </span>
    );
  }
  // Beside what was refused, “Saved” would be half the truth.
  if (rejected > 0 && !saving) return null;
  return (
    <span className={saving ? "badge busy" : "badge"} role="status">
      <Icon name={saving ? "sync" : "check"} size={15} />
      <span className="words">{saving ? `Saving ${changes}` : "Saved"}</span>
    </span>
  );
}

/** How many files are under way. Those that were refused wait for a decision where they were added. */
function useUnsentFiles(): number {
  const { all } = useUploads();
  return useSyncExternalStore(
    all.subscribe,
    () => all.getSnapshot().filter(({ step }) => step !== "failed").length,
  );
}

/**
 * Whether something has been so for a while. `atFirst`: it was when this was first shown. `atOnce`: it need not have
 * been so for any time.
 */
function useLasting(now: boolean, ms: number, { atFirst = false, atOnce = false } = {}): boolean {
  const [lasting, setLasting] = useState(atFirst);
  // Not in an effect, which is a moment late.
  if (now && atOnce && !lasting) setLasting(true);
  useEffect(() => {
    if (!now) return setLasting(false);
    const timer = setTimeout(() => setLasting(true), ms);
    return () => clearTimeout(timer);
  }, [now, ms]);
  return now && lasting;
}

function Refused() {
  const { rejected, retry, discard } = useRejected();
  const [open, setOpen] = useState(false);
  const prefix = useId();
  if (rejected.length === 0) return null;
  const all = rejected.map(({ id }) => id);
  return (
    <>
      <button type="button" className="badge bad" onClick={() => setOpen(true)}>
        <Icon name="warning" size={15} /> {rejected.length} refused
      </button>
      {open && (
        <Dialog title="Refused changes" onClose={() => setOpen(false)}>
          <p className="soft">
            The server did not accept these. They are kept here until you decide.
          </p>
          <ul className="refused">
            {rejected.map((write) => (
              <li key={write.id}>
                <div>
                  <strong id={prefix + write.id}>{describe(write)}</strong>
                  <p>{reason(write.problem)}</p>
                </div>
                <span className="choices">
                  <button
                    type="button"
                    aria-describedby={prefix + write.id}
                    onClick={() => retry(write.id)}
                  >
                    Retry
                  </button>
                  <button
                    type="button"
                    className="danger"
                    aria-describedby={prefix + write.id}
                    onClick={() => discard(write.id)}
                  >
                    Discard
                  </button>
                </span>
              </li>
            ))}
          </ul>
          {rejected.length > 1 && (
            <footer className="dialog-foot">
              <button type="button" onClick={() => retry(all)}>
                Retry all
              </button>
              <button type="button" className="danger" onClick={() => discard(all)}>
                Discard all
              </button>
            </footer>
          )}
        </Dialog>
      )}
    </>
  );
}
