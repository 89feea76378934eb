"use strict";
// Figures and schedules, for the rest of the page.
const Draw = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map();
  const PAPER = 640; // pixels across a printed page
  let printing = false;

  // ---- Drawing: figures have light colours, and each of these has a dark counterpart.

  function recoloured(value) {
    if (!dark.matches || printing) return value;
    if (typeof value === "string") return data.recolour[value] ?? value;
    if (Array.isArray(value)) return value.map(recoloured);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recoloured(item)]));
  }

  // A copy each time: plotly modifies its arguments.
  const figureOf = (name) => structuredClone(data.plots[name]);

  function draw(place, figure) {
    drawn.set(place, figure);
    const { data: traces, layout } = recoloured(figure());
    if (printing) layout.width = Math.min(place.clientWidth, PAPER);
    return Plotly.react(place, traces, layout, { displayModeBar: false, responsive: true });
  }

  const redrawn = []; // functions to call after everything was redrawn
  const redraw = () => { drawn.forEach((figure, place) => draw(place, figure)); redrawn.forEach((act) => act()); };
  dark.addEventListener("change", redraw);
  addEventListener("beforeprint", () => { printing = true; document.querySelectorAll("details").forEach((one) => { one.open = true; }); later.splice(0).forEach((act) => act()); redraw(); });
  addEventListener("afterprint", () => { printing = false; redraw(); });

  // Plots far down are drawn while nothing else is done, one at a time, so that the front appears at once.
  const later = [];
  const drawNext = () => { later.shift()?.(); if (later.length) requestIdleCallback(drawNext, { timeout: 1000 }); };
  function drawLater(place, figure) {
    if (later.push(() => draw(place, figure)) === 1) requestIdleCallback(drawNext, { timeout: 1000 });
  }

  // ---- Schedules

  function bytes(text) {
    const letters = atob(text);
    const found = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) found[i] = letters.charCodeAt(i);
    return found;
  }

  const isSet = (packed, i) => (packed[i >> 3] >> (7 - (i & 7))) & 1;
  const number = (point, table, step, site) => isSet(point.packed, step * table.sites.length + site);

  // Steps since each output was computed. The first step always computes: there is nothing to reuse yet.
  function ages(point, table) {
    const found = [];
    for (let step = 0; step < table.steps; step++) {
      found.push(table.sites.map((_, site) => (step === 0 || number(point, table, step, site) ? 0 : found[step - 1][site] + 1)));
    }
    return found;
  }

  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
  const range = (count) => Array.from({ length: count }, (_, i) => i);

  // The figure of `schedule_figure`, filled with one schedule, or with its difference from another.
  function scheduleFigure(point, { component = "", look = "recomputed", partner = point } = {}) {
    const table = data.tables[point.table];
    const figure = figureOf(`schedule/${point.table}`);
    const sites = range(table.sites.length).filter((i) => !component || table.sites[i][1] === component);
    const blocks = [...new Set(sites.map((i) => table.labels[i]))];
    const members = blocks.map((block) => sites.filter((i) => table.labels[i] === block));
    const old = look === "age" ? ages(point, table) : null;
    const value = (step, site) => old ? old[step][site]
      : number(point, table, step, site) - (look === "difference" ? number(partner, table, step, site) : 0);
    const share = (steps, chosen) => mean(steps.flatMap((step) => chosen.map((site) => number(point, table, step, site))));
    const steps = range(table.steps);
    const [map, above, beside] = figure.data;
    map.z = members.map((of) => steps.map((step) => mean(of.map((site) => value(step, site)))));
    map.x = above.x = steps;
    map.y = beside.y = blocks;
    map.zmin = look === "difference" ? -1 : 0;
    map.zmax = old ? Math.max(1, ...map.z.flat()) : 1;
    map.colorscale = data.looks[look].colorscale;
    map.hovertemplate = `step %{x}, block %{y}: ${data.looks[look].says}<extra></extra>`;
    above.y = steps.map((step) => share([step], sites));
    beside.x = members.map((of) => share(steps, of));
    return figure;
  }

  function documentOf(point) {
    if (point.own) return point.own;
    const table = data.tables[point.table];
    const made = structuredClone(table.document);
    const inside = made.cache_schedule;
    Object.assign(inside, { name: point.name, attributes: point.attributes });
    if (point.forecast) inside.forecast = true;
    else delete inside.output_products;
    Object.assign(made, { config: point.config, metrics: point.metrics });
    Object.values(inside.schedule).forEach((blocks, step) => table.sites.forEach(([block, component], site) => {
      blocks[block][component] = Boolean(number(point, table, step, site));
    }));
    return made;
  }

  return { data, at, drawn, redrawn, recoloured, figureOf, draw, drawLater, bytes, mean, range, number, scheduleFigure, documentOf };
})();
