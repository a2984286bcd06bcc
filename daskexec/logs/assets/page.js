"use strict";
// Without this script the page shows all the same; it sorts, switches the theme, saves the
// JSON and shows what a bar stands for.
(() => {
  const root = document.documentElement;

  // Sorting: first click as is most telling (numbers from the highest), then the other way.
  const value = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : a < b ? -1 : a > b ? 1 : 0);
  for (const head of document.querySelectorAll("thead th")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numbers = head.classList.contains("num");
      const was = head.getAttribute("aria-sort");
      const up = was ? was === "descending" : !numbers;
      for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const body = head.closest("table").tBodies[0];
      const column = head.cellIndex;
      const rows = [...body.rows].map((row) => [value(row, column), row]);
      rows.sort((a, b) => (up ? 1 : -1) * compare(a[0], b[0]));
      body.append(...rows.map((pair) => pair[1]));
    });
  }

  // Dark or light: the system's, until it is switched. A page from a file may have no storage.
  const key = "daskexec-theme";
  const stored = () => { try { return localStorage.getItem(key); } catch { return null; } };
  const theme = stored();
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  const dark = () => root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  const switcher = document.getElementById("theme");
  switcher.hidden = false;
  switcher.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem(key, root.dataset.theme); } catch { /* for this visit only */ }
  });

  const save = document.getElementById("save");
  save.hidden = false;
  save.addEventListener("click", () => {
    const text = JSON.stringify(JSON.parse(document.getElementById("report").textContent), null, 2);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text + "\n"], { type: "application/json" }));
    link.download = "report.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  // What a bar stands for, at once: the browser's own hint comes late.
  const tip = document.getElementById("tip");
  for (const chart of document.querySelectorAll(".chart, .stack")) {
    for (const shape of chart.querySelectorAll("rect")) {
      const title = shape.querySelector("title");
      if (title === null) continue;
      shape.dataset.tip = title.textContent;
    }
    chart.addEventListener("pointermove", (event) => {
      const text = event.target.dataset ? event.target.dataset.tip : undefined;
      tip.hidden = text === undefined;
      if (text === undefined) return;
      tip.textContent = text;
      const left = Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8);
      tip.style.left = `${left}px`;
      tip.style.top = `${Math.max(8, event.clientY - 36)}px`;
    });
    chart.addEventListener("pointerleave", () => { tip.hidden = true; });
  }
})();
