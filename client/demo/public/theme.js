// Before the first paint, so that a chosen theme does not flash.
try {
  const theme = localStorage.getItem("rowcast-demo:theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // No storage, no choice: the theme is the system's.
}
