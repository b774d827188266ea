"use strict";
const table = document.getElementById("table");
const body = table.tBodies[0];

function key(row, column) {
  const cell = row.cells[column];
  if (!("value" in cell.dataset)) return cell.textContent;
  return cell.dataset.value === "" ? null : Number(cell.dataset.value);
}

function sort(column, direction) {
  const rows = Array.from(body.rows);
  rows.sort((one, other) => {
    const [a, b] = [key(one, column), key(other, column)];
    if (a === null || b === null) return (a === null) - (b === null);
    return direction * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  });
  body.append(...rows);
}

Array.from(table.tHead.rows[0].cells).forEach((head, column, heads) => {
  const button = document.createElement("button");
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    sort(column, direction);
  });
});

const filters = Array.from(document.querySelectorAll("[data-filter]"));
function filter() {
  let shown = 0;
  for (const row of body.rows) {
    row.hidden = !filters.every((field) => {
      const text = row.querySelector(`[data-column="${field.dataset.filter}"]`).textContent;
      return field.type === "search"
        ? text.toLowerCase().includes(field.value.trim().toLowerCase())
        : field.value === "" || text === field.value;
    });
    shown += !row.hidden;
  }
  document.getElementById("shown").textContent = `${shown} of ${body.rows.length} rows`;
}
filters.forEach((field) => field.addEventListener("input", filter));
filter();

const gallery = document.getElementById("gallery");
document.querySelectorAll("[data-choose]").forEach((field) => field.addEventListener("input", (event) => {
  for (const path of gallery.querySelectorAll("path")) {
    path.classList.toggle("shown", path.classList.contains(`r${event.target.value}`));
  }
}));
document.querySelectorAll("[data-show]").forEach((box) => box.addEventListener("input", () => {
  gallery.classList.toggle(`no-${box.dataset.show}`, !box.checked);
}));
document.querySelectorAll(".controls").forEach((controls) => { controls.hidden = false; });
document.querySelectorAll(".static").forEach((legend) => { legend.remove(); });
