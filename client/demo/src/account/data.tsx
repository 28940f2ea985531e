import { useEffect, useRef, useState } from "react";
import type { UploadState } from "rowcast/files";
import { useUploads } from "rowcast/files/react";
import { useRecord, useRecords, useStatus, useWrite } from "rowcast/react";
import { FileButton } from "../files/file-button.js";
import { download } from "../files/file-rows.js";
import { sizeText, stepText } from "../files/words.js";
import { Topbar } from "../layout.js";
import { useMe } from "../people.js";
import type { JobRun } from "../schema.gen.js";
import { Icon } from "../ui/icon.js";
import { ago } from "../ui/time.js";
import { notify } from "../ui/toasts.js";
import { Section } from "./section.js";

/** What a run says when it has ended. */
interface Result {
  readonly records?: number;
  readonly files?: number;
  readonly missing?: number;
  readonly file?: { readonly id: string; readonly name: string; readonly size: number };
  readonly error?: { readonly detail?: string; readonly table?: string };
}

/** What is the user's: he takes it along, brings it in, and says what he wants to hear of. */
export function Data() {
  useEffect(() => {
    document.title = "Your data";
  }, []);
  return (
    <>
      <Topbar title={<h1>Your data</h1>} />
      <div className="account-sections">
        <Section title="Take it along">
          <Export />
        </Section>
        <Section title="Bring it in">
          <Import />
        </Section>
        <Section title="Mails">
          <Notifications />
        </Section>
      </div>
    </>
  );
}

function useLatest(kind: string): JobRun | undefined {
  const orderBy = [{ key: "createdAt" as const, dir: "desc" as const }];
  return useRecords("jobRuns", { kind }, { orderBy, limit: 1 })[0];
}

function Export() {
  const run = useLatest("export");
  const result = run?.result as Result | null | undefined;
  const file = useRecord("jobRunFiles", result?.file?.id ?? null);
  const uploads = useUploads();
  const [asked, start] = useStart();
  const write = useWrite();
  return (
    <>
      <p className="soft">
        Everything you may read, with its files, in one zip. You get a mail when it is ready.
      </p>
      <div className="row wrap">
        <button
          type="button"
          disabled={asked || isUnderWay(run)}
          onClick={() => start(() => write({ type: "call", fn: "startExport" }).confirmed)}
        >
          Export everything
        </button>
      </div>
      <Progress run={run} name="Export" />
      {run?.state === "done" && result?.file && (
        <p className="transfer-file">
          {file ? (
            <button
              type="button"
              className="file-name"
              onClick={() => download(uploads, "jobRunFiles", file.id, file.name)}
            >
              <Icon name="down" size={16} /> {file.name}
            </button>
          ) : (
            <span className="soft">The file of this export is not kept any more.</span>
          )}
          <span className="small soft">
            {sizeText(result.file.size)} · {result.records} records, {result.files} files ·{" "}
            {ago(run.endedAt ?? run.updatedAt)}
          </span>
        </p>
      )}
    </>
  );
}

function Import() {
  const run = useLatest("import");
  const result = run?.result as Result | null | undefined;
  const [asked, start] = useStart();
  const [upload, setUpload] = useState<UploadState>();
  const write = useWrite();
  const uploads = useUploads();
  const online = useStatus((status) => status.online);
  const bring = async (file: File) => {
    const begun = await write({ type: "call", fn: "beginImport" }).confirmed;
    const id = String(begun.values[0]);
    const sending = uploads.add("jobRunFiles", file, { runId: id });
    const stop = sending.subscribe(() => setUpload(sending.getSnapshot()));
    try {
      await sending.done;
      await write({ type: "call", fn: "importWorkspaces", args: { run: id } }).confirmed;
    } finally {
      stop();
      setUpload(undefined);
    }
  };
  const busy = asked || (isUnderWay(run) && run?.state !== "waiting");
  return (
    <>
      <p className="soft">
        The file of an export, of this server or another. What is in it becomes workspaces and
        notebooks of your own; nobody else becomes a member of them.
      </p>
      <div className="row wrap">
        <FileButton
          label="Import a file …"
          icon="up"
          accept=".zip,application/zip"
          multiple={false}
          disabled={busy}
          onFiles={([file]) => file && start(() => bring(file))}
        />
      </div>
      {upload && (
        <div className="transfer">
          <progress aria-label="Upload" max={upload.size || 1} value={upload.sent} />
          <p className="small soft" role="status">
            {stepText(upload, online)}
          </p>
        </div>
      )}
      <Progress run={run} name="Import" />
      {run?.state === "done" && result && (
        <p role="status">
          {result.records} records and {result.files} files are in.
        </p>
      )}
    </>
  );
}

/** Starts something once at a time. */
function useStart(): [boolean, (work: () => PromiseLike<unknown>) => void] {
  const [asked, setAsked] = useState(false);
  const mounted = useRef(true);
  useEffect(() => {
    mounted.current = true;
    return () => {
      mounted.current = false;
    };
  }, []);
  const start = async (work: () => PromiseLike<unknown>) => {
    setAsked(true);
    try {
      await work();
    } catch (error) {
      notify(`It was not started. ${(error as Error).message}`);
    } finally {
      if (mounted.current) setAsked(false);
    }
  };
  return [asked, start];
}

function isUnderWay(run: JobRun | undefined): boolean {
  return run !== undefined && ["waiting", "queued", "running"].includes(run.state);
}

/** How far a run is, and why it has failed. */
function Progress({ run, name }: { run: JobRun | undefined; name: string }) {
  if (!run) return null;
  const { state, progress, message } = run;
  const error = (run.result as Result | null)?.error;
  if (state === "failed") {
    return (
      <p className="problem" role="alert">
        {error?.detail ?? "It has failed."}
        {error?.table && ` (${error.table})`}
      </p>
    );
  }
  if (state === "held") {
    return (
      <p className="problem" role="alert">
        It could not be done. Whoever runs this server sees why.
      </p>
    );
  }
  if (state !== "queued" && state !== "running") return null;
  return (
    <div className="transfer">
      <progress aria-label={name} max={1} value={progress} />
      {/* Of numbers that run the bar tells a screen reader when it is asked. */}
      <p className="small soft" aria-hidden="true">
        {state === "queued" ? "Waiting for its turn" : (message ?? "Under way")} ·{" "}
        {Math.floor(progress * 100)} %
      </p>
    </div>
  );
}

const TOPICS = [
  ["assigned", "A task is assigned to me"],
  ["mentioned", "A comment mentions me"],
] as const;

function Notifications() {
  const me = useMe();
  const settings = useRecord("notificationSettings", me);
  const write = useWrite();
  return (
    <fieldset className="transfer-topics">
      <legend className="soft">Tell me by mail when</legend>
      {TOPICS.map(([key, label]) => (
        <label key={key}>
          <input
            type="checkbox"
            checked={settings?.[key] ?? true}
            onChange={({ currentTarget: { checked: value } }) =>
              write(
                settings
                  ? { type: "set", table: "notificationSettings", id: me, key, value }
                  : {
                      type: "create",
                      table: "notificationSettings",
                      id: me,
                      value: { [key]: value },
                    },
              )
            }
          />
          {label}
        </label>
      ))}
    </fieldset>
  );
}
