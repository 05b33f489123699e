// Tables that sort and filter, and which section is seen.
"use strict";

const LARGE = 12; // rows of a table that is worth a filter

Tablesort.extend("number", () => false, (a, b) => {
  const [x, y] = [a, b].map(parseFloat);
  return (isNaN(y) ? -Infinity : y) - (isNaN(x) ? -Infinity : x);
});

// What is no number is last, whichever way the others go.
function emptyLast(table) {
  const head = table.querySelector("th[aria-sort]");
  if (head?.dataset.sortMethod !== "number") return;
  const body = table.tBodies[0];
  const text = (cell) => cell.dataset.sort ?? cell.textContent;
  const none = (row) => isNaN(parseFloat(text(row.cells[head.cellIndex])));
  body.append(...[...body.rows].filter(none));
}

function filter(table) {
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "filter rows";
  input.setAttribute("aria-label", "filter rows");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
  table.closest(".scroll").before(input);
}

// What a section needs is made when it is first opened.
function prepare(section) {
  if (section.dataset.prepared) return;
  section.dataset.prepared = "yes";
  for (const table of section.querySelectorAll("table")) {
    if (table.tBodies[0].rows.length > 1) Tablesort(table, { descending: true });
    table.addEventListener("afterSort", () => emptyLast(table));
    if (table.tBodies[0].rows.length >= LARGE || table.closest(".runs")) filter(table);
  }
  for (const element of section.querySelectorAll(".explorer")) explore(element);
  for (const element of section.querySelectorAll(".movie")) play(element);
}

function show() {
  const sections = [...document.querySelectorAll("main > section")];
  const runs = sections.filter((section) => section.matches(".run"));
  const wanted = document.getElementById(location.hash.slice(1));
  const opened = sections.includes(wanted) ? wanted : sections[0];
  for (const section of sections) {
    section.hidden = section !== opened;
    section.classList.toggle("open", section === opened);
  }
  prepare(opened);
  const nav = document.querySelector("nav");
  const place = runs.indexOf(opened);
  nav.hidden = sections.length < 2 || place < 0;
  for (const [rel, run] of [["prev", runs[place - 1]], ["next", runs[place + 1]]]) {
    const link = nav.querySelector(`[rel=${rel}]`);
    link.hidden = !run;
    if (run) link.href = `#${run.id}`;
  }
  if (wanted === opened) {
    opened.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
}

window.addEventListener("hashchange", show);
show();
