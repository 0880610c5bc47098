"use strict";
// Tables are sorted by a click on a heading, and a link into a folded part unfolds it; without scripts both are plain.
(() => {
  const order = (cell) => cell?.dataset.order ?? null;
  const compare = (one, other) => {
    const [a, b] = [Number(one), Number(other)];
    return Number.isNaN(a) || Number.isNaN(b) ? one.localeCompare(other) : a - b;
  };
  const sort = (table, place, down) => {
    const rows = [...table.tBodies[0].rows];
    const known = rows.filter((row) => order(row.cells[place]) !== null);
    known.sort((a, b) => compare(order(a.cells[place]), order(b.cells[place])) * (down ? -1 : 1));
    table.tBodies[0].append(...known, ...rows.filter((row) => !known.includes(row)));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const first = head.classList.contains("number") ? "descending" : "ascending";
        const again = first === "descending" ? "ascending" : "descending";
        const next = head.getAttribute("aria-sort") === first ? again : first;
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", next);
        sort(table, place, next === "descending");
      });
    });
  }
  const unfold = () => {
    const target = document.getElementById(location.hash.slice(1));
    for (let each = target; each; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
    target?.scrollIntoView();
  };
  addEventListener("hashchange", unfold);
  if (location.hash) unfold();
})();
