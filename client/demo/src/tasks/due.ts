/** Days from today to a date, both as the user's calendar has them. */
export function daysUntil(date: string, now = new Date()): number {
  const today = Date.UTC(now.getFullYear(), now.getMonth(), now.getDate());
  return Math.round((Date.parse(date) - today) / 86_400_000);
}

/** A due date in a word or two. */
export function dueText(date: string, now = new Date()): string {
  const days = daysUntil(date, now);
  if (days === -1) return "Yesterday";
  if (days === 0) return "Today";
  if (days === 1) return "Tomorrow";
  const at = new Date(`${date}T00:00`);
  const near = days > 1 && days < 7;
  const thisYear = at.getFullYear() === now.getFullYear();
  return at.toLocaleDateString(undefined, {
    ...(near ? { weekday: "long" } : { day: "numeric", month: "short" }),
    ...(!thisYear && !near && { year: "numeric" }),
  });
}
