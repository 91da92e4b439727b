"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Tables: a click on a column sorts it, a second one turns the order round. Empty cells stay last.
  const numeric = (text) => text !== "" && !Number.isNaN(Number(text));
  const sortBy = (header) => {
    const table = header.closest("table");
    const body = table.tBodies[0];
    const column = header.cellIndex;
    const value = (row) => row.cells[column].dataset.v ?? "";
    const rows = [...body.rows];
    const numbers = rows.every((row) => value(row) === "" || numeric(value(row)));
    const before = header.getAttribute("aria-sort");
    const down = before ? before === "ascending" : numbers;
    rows.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = numbers ? x - y : x.localeCompare(y, "en");
      return down ? -order : order;
    });
    body.append(...rows);
    for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
  };
  for (const button of all("th button")) button.addEventListener("click", () => sortBy(button.closest("th")));

  // Tables that are cut off say that they scroll.
  const cut = new ResizeObserver((entries) => {
    for (const { target } of entries) target.previousElementSibling.hidden = target.scrollWidth <= target.clientWidth;
  });
  for (const box of all(".scroll")) cut.observe(box);

  // The search box shows the rows that contain its text.
  for (const input of all("input.filter")) {
    const tools = input.closest(".tools");
    const rows = all("tbody tr", tools.nextElementSibling.nextElementSibling);
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        row.hidden = !row.textContent.toLowerCase().includes(wanted);
        shown += !row.hidden;
      }
      tools.querySelector(".hits").textContent = wanted ? `${shown} of ${rows.length}` : "";
    });
  }

  // Hover texts: <title> is there for pages without scripts; with scripts one box shows them at once, on touch, too.
  for (const title of all("circle > title")) {
    title.parentElement.dataset.tip = title.textContent;
    title.remove();
  }
  const tip = document.getElementById("tip");
  const showTip = (text, event) => {
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    const box = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, event.clientX - box.width / 2), innerWidth - box.width - 8);
    const above = event.clientY - box.height - 14;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 4 ? above : event.clientY + 18}px`;
  };
  const heatText = (image, event) => {
    const names = (image.names ??= image.dataset.names.split("|"));
    const rows = (image.cells ??= image.dataset.rows.split(";").map((row) => row.split(" ")));
    const box = image.getBoundingClientRect();
    const cell = (offset, size) => Math.min(names.length - 1, Math.max(0, Math.floor((offset / size) * names.length)));
    const [i, j] = [cell(event.clientY - box.top, box.height), cell(event.clientX - box.left, box.width)];
    return `${names[i]} and ${names[j]}: ${rows[i][j] || "no value"}`;
  };
  const onPoint = (event) => {
    const target = event.target.closest?.("[data-tip], img.heat");
    showTip(target && (target.matches("img") ? heatText(target, event) : target.dataset.tip), event);
  };
  document.addEventListener("pointermove", onPoint);
  document.addEventListener("pointerdown", onPoint);
  document.addEventListener("scroll", () => showTip(""), { passive: true, capture: true });

  // Maps: colour by script or by family.
  for (const group of all(".switch")) {
    const figure = group.closest("figure");
    const [first, second] = group.children;
    const choose = (other) => {
      if (figure.classList.toggle("by-other", other) === (group.state ?? false)) return;
      group.state = other;
      first.setAttribute("aria-pressed", !other);
      second.setAttribute("aria-pressed", other);
      for (const mark of all("circle[data-other]", figure)) {
        const [name, colour] = mark.getAttribute("class").split(" ");
        mark.setAttribute("class", `${name} ${mark.dataset.other}`);
        mark.dataset.other = colour;
      }
    };
    first.addEventListener("click", () => choose(false));
    second.addEventListener("click", () => choose(true));
  }

  // The records the page was made from, as a file.
  const csv = document.getElementById("csv");
  const unpacked = () => {
    const bytes = Uint8Array.from(atob(csv.dataset.records), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).blob();
  };
  csv.hidden = !("DecompressionStream" in window);
  csv.addEventListener("click", async () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([await unpacked()], { type: "text/csv" }));
    link.download = "records.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });

  // Light, dark, or as the system has it.
  const theme = document.getElementById("theme");
  const themes = ["auto", "light", "dark"];
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % 3];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    theme.textContent = `Theme: ${next}`;
  });
})();
