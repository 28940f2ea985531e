import { useRecords } from "rowcast/react";

/**
 * Whoever loses the network may open what he has not looked at today: all he can read is kept on this device. An app
 * with more than some thousand records per user names fewer here.
 */
export function KeepOffline() {
  useRecords("boards");
  useRecords("tasks");
  useRecords("notebooks");
  useRecords("notes");
  return null;
}
