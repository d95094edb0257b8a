"use strict";

// Tables: a click on a column's head sorts by it, words in the box keep the rows that have them.
for (const holder of document.querySelectorAll(".table")) {
  const body = holder.querySelector("tbody");
  const heads = [...holder.querySelectorAll("th")];
  const original = [...body.rows];

  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const numeric = head.classList.contains("number");
    const before = head.getAttribute("aria-sort");
    // Numbers begin with the largest, text with the first; a third click gives the first order back.
    const orders = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
    const order = orders[orders.indexOf(before) + 1];
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    if (!order) return body.append(...original);
    head.setAttribute("aria-sort", order);
    const key = (row) => numeric ? row.cells[column].dataset.value : row.cells[column].textContent;
    const compare = (a, b) => numeric ? a - b : a.localeCompare(b, undefined, { numeric: true });
    const sign = order === "ascending" ? 1 : -1;
    const empty = original.filter((row) => key(row) === "");
    const full = original.filter((row) => key(row) !== "");
    body.append(...full.sort((a, b) => sign * compare(key(a), key(b))), ...empty);
  }));

  const box = holder.querySelector("input");
  if (!box) continue;
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of original) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = original.filter((row) => !row.hidden).length;
    holder.querySelector(".count").textContent =
      words.length ? `${shown} of ${original.length} rows` : "";
  });
}

// Charts: drawn when first visible, because a hidden one has no width.
const dark = matchMedia("(prefers-color-scheme: dark)");
const palette = JSON.parse(document.getElementById("palette").textContent);

function theme() {
  const style = getComputedStyle(document.documentElement);
  const [text, line] = ["--text", "--line"].map((name) => style.getPropertyValue(name).trim());
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  return {
    colorway: palette, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: text, family: "system-ui, sans-serif", size: 12 },
    title: { x: 0, xref: "paper", font: { size: 14 } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: line, activecolor: text },
    xaxis: axis, yaxis: axis, margin: { l: 60, r: 20, t: 40, b: 50 },
  };
}

function draw(element) {
  const figure = JSON.parse(element.querySelector("script").textContent);
  const layout = { ...figure.layout, template: { layout: theme() } };
  Plotly.react(element.plot ??= element.appendChild(document.createElement("div")), figure.data,
    { height: element.clientHeight, ...layout }, { responsive: true, displaylogo: false, modeBarButtons: [["toImage"]] });
}

function drawVisible() {
  for (const element of document.querySelectorAll(".chart")) {
    if (element.offsetParent !== null) draw(element);
  }
}

dark.addEventListener("change", drawVisible);
drawVisible();

for (const tabs of document.querySelectorAll(".tabs")) {
  const buttons = [...tabs.querySelectorAll(".buttons button")];
  const parts = [...tabs.querySelectorAll(".tab")];
  buttons.forEach((button, chosen) => button.addEventListener("click", () => {
    buttons.forEach((other, i) => other.setAttribute("aria-pressed", String(i === chosen)));
    parts.forEach((part, i) => { part.hidden = i !== chosen; });
    drawVisible();
  }));
}
