// Runs before the first paint, so that a chosen theme never flashes. The rest of the toggle is in js/theme.js.
try {
  const chosen = localStorage.getItem("cleanup-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is off: the system's theme holds.
}
