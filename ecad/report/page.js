"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map();
  let printing = false;

  // Figures come in the light colours; every one of them has a dark partner.
  function recoloured(value) {
    if (!dark.matches || printing) return value;
    if (typeof value === "string") return data.recolour[value] ?? value;
    if (Array.isArray(value)) return value.map(recoloured);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recoloured(item)]));
  }

  function draw(place, name, edit = () => {}) {
    drawn.set(place, () => draw(place, name, edit));
    // A copy each time: plotly writes into what it is given.
    const figure = recoloured(structuredClone(data.plots[name]));
    edit(figure.layout);
    return Plotly.react(place, figure.data, figure.layout, { displayModeBar: false, responsive: true });
  }

  const redraw = () => drawn.forEach((again) => again());
  dark.addEventListener("change", redraw);
  addEventListener("beforeprint", () => { printing = true; redraw(); });
  addEventListener("afterprint", () => { printing = false; redraw(); });

  function small(layout) {
    layout.height *= 0.68;
    layout.margin.b = 24;
    layout.xaxis.title.text = "";
    layout.font.size = 11;
  }

  // One at a time, so that the front is there at once.
  for (const place of document.querySelectorAll("[data-plot]")) {
    setTimeout(() => draw(place, place.dataset.plot, place.closest(".card") ? small : undefined));
  }

  const details = [...document.querySelectorAll(".detail")];
  const choices = [...document.querySelectorAll("#entries input")];
  const plot = document.getElementById("front-plot");
  const uncached = details.findIndex((detail) => detail.querySelector(".mark.uncached"));
  let chosen = Number(choices.find((choice) => choice.checked)?.value ?? -1);

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // The pictures stand once in the page, in the grid; here they are shown again.
  function picture(entry, row) {
    const name = details[entry].getAttribute("aria-label");
    const source = document.querySelector(`.pictures img[data-of="${CSS.escape(name)}"][data-row="${row}"]`);
    if (!source) return element("span", "gap", "no picture");
    const image = element("img");
    image.src = source.src;
    image.alt = source.alt;
    return image;
  }

  function fillPairs(detail, entry) {
    const place = detail.querySelector(".pairs");
    if (place.childElementCount) return;
    const rows = document.querySelectorAll(".pictures tbody tr");
    place.hidden = !rows.length;
    const shown = entry === uncached || uncached < 0 ? [entry] : [uncached, entry];
    const heads = element("div", "which");
    for (const one of shown) heads.append(element("div", "", details[one].getAttribute("aria-label")));
    place.append(heads);
    rows.forEach((tr, row) => {
      const figure = element("figure");
      for (const one of shown) figure.append(picture(one, row));
      figure.append(element("figcaption", "", tr.querySelector("th").firstChild.textContent));
      place.append(figure);
    });
  }

  function show(entry) {
    details.forEach((detail, i) => { detail.hidden = i !== entry; });
    const detail = details[entry];
    fillPairs(detail, entry);
    const component = detail.querySelector(".heat input:checked")?.value ?? "";
    draw(detail.querySelector(".plot"), `schedule/${entry}/${component}`);
  }

  function mark(entry) {
    if (!plot) return;
    const ring = plot.data.length - 1;
    for (const trace of plot.data) {
      const i = trace.customdata ? [...trace.customdata].indexOf(entry) : -1;
      if (i >= 0) return Plotly.restyle(plot, { x: [[trace.x[i]]], y: [[trace.y[i]]] }, [ring]);
    }
    return Plotly.restyle(plot, { x: [[]], y: [[]] }, [ring]);
  }

  function choose(entry) {
    chosen = entry;
    choices[entry].checked = true;
    for (const row of document.querySelectorAll(".numbers [data-entry]")) row.classList.toggle("chosen", Number(row.dataset.entry) === entry);
    for (const code of document.querySelectorAll(".code")) code.hidden = Number(code.dataset.entry) !== entry;
    show(entry);
    mark(entry);
  }

  function view(name) {
    draw(plot, name);
    drawn.set(plot, () => view(name));
    mark(chosen);
  }

  if (plot) {
    view(document.querySelector("#views input:checked").value);
    document.getElementById("views").addEventListener("change", (event) => view(event.target.value));
    const entryOf = (event) => event.points.find((point) => point.customdata !== undefined)?.customdata;
    plot.on("plotly_click", (event) => { const entry = entryOf(event); if (entry !== undefined) choose(entry); });
    plot.on("plotly_hover", (event) => { const entry = entryOf(event); if (entry !== undefined) show(entry); });
    plot.on("plotly_unhover", () => { if (chosen >= 0) show(chosen); });
  }
  document.getElementById("entries")?.addEventListener("change", (event) => choose(Number(event.target.value)));
  for (const row of document.querySelectorAll(".numbers tbody tr")) row.addEventListener("click", () => choose(Number(row.dataset.entry)));
  details.forEach((detail, i) => detail.querySelector(".heat").addEventListener("change", () => show(i)));
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
  if (chosen >= 0) choose(chosen);
})();
