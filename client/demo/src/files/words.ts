import { HttpError, NetworkError, RefusedError, type RowcastError } from "rowcast";
import type { UploadState } from "rowcast/files";
import { reason } from "../describe.js";

const UNITS = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];

/** How large a file is, for people: 2.4 MB. */
export function sizeText(bytes: number): string {
  const step = bytes < 1 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log10(bytes) / 3));
  return new Intl.NumberFormat(undefined, {
    style: "unit",
    unit: UNITS[step],
    unitDisplay: step ? "short" : "long",
    maximumFractionDigits: 1,
  }).format(bytes / 1000 ** step);
}

/** How far an upload is, in a sentence. */
export function stepText({ step, error, durable }: UploadState, online: boolean): string {
  switch (step) {
    case "uploading":
      return "Uploading";
    case "confirming":
      return "Almost there";
    case "failed":
      return error ? whyNot(error) : "It was not uploaded.";
    default:
      if (online && error) return `Another try soon: ${whyNot(error)}`;
      if (online) return "Waiting for its turn";
      return durable
        ? "Waiting for the network; goes on by itself"
        : "Waiting for the network, while this page is open";
  }
}

/** Why a file was not uploaded or cannot be had, in a sentence. */
export function whyNot(error: RowcastError): string {
  if (error instanceof RefusedError) return reason(error.problem);
  if (error instanceof NetworkError) return "The server cannot be reached.";
  switch (error.code) {
    case "forbidden":
      return "It is not there any more, or you may not change it.";
    case "lost":
      return "Its bytes are not on this device any more. Add it again.";
    case "deleted":
      return "It was deleted.";
    case "not_ready":
      return "It is not uploaded yet.";
    case "internal":
      return "This device cannot read it.";
    default:
      return error instanceof HttpError && error.problem ? reason(error.problem) : error.message;
  }
}
