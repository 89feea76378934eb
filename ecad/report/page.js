"use strict";
(() => {
  const { data, at, drawn, redrawn, recoloured, figureOf, draw, drawLater, bytes, mean, range, number, scheduleFigure, documentOf } = Draw;
  const points = data.points;
  points.forEach((point) => { point.packed = bytes(point.bits); });
  let unpacked = null; // the bits of all candidates, once one of them is shown
  let unpacking = false;

  // A candidate that is not an entry has bits and numbers, but no held-out scores and no images.
  function candidate(i) {
    if (points[i]) return points[i];
    const { names, numbers, columns } = data.candidates;
    const index = i - points.length;
    const table = data.tables[0];
    const size = Math.ceil((table.steps * table.sites.length) / 8);
    const name = names[index];
    return {
      name, numbers: numbers[index], columns, kind: "candidate", kindName: "evaluated", table: 0, file: `${name}.json`,
      config: table.document.config ?? {}, metrics: {}, attributes: {}, forecast: data.candidates.forecast[index],
      packed: unpacked && unpacked.subarray(index * size, (index + 1) * size),
    };
  }

  async function unpack() {
    if (unpacking || !data.candidates.bits) return;
    unpacking = true;
    const stream = new Blob([bytes(data.candidates.bits)]).stream().pipeThrough(new DecompressionStream("deflate"));
    unpacked = new Uint8Array(await new Response(stream).arrayBuffer());
    show();
  }

  const find = (name, fallback) => {
    const known = points.findIndex((point) => point.name === name);
    const index = known < 0 ? data.candidates.names.indexOf(name) : -1;
    return known >= 0 ? known : index >= 0 ? points.length + index : fallback;
  };

  // ---- The chosen schedule beside another

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  const titleOf = (point) => (point.label ? `${point.name} (${point.label})` : point.name);
  const detail = at("detail");
  let chosen = data.chosen ?? -1;
  let partner = Math.max(0, points.findIndex((point) => point.kind === "uncached"));

  function option(select, i) {
    if (![...select.options].some((one) => Number(one.value) === i)) select.add(new Option(titleOf(candidate(i)), i));
    select.value = i;
  }

  function fillFacts(one, other) {
    const columns = [...new Set([...(one.columns ?? data.columns), ...(other ? other.columns ?? data.columns : [])])];
    const shown = other ? [one, other] : [one];
    const valueOf = (point, name) => point.numbers[(point.columns ?? data.columns).indexOf(name)] ?? "–";
    const head = element("tr");
    head.append(element("td"), ...shown.map((point) => { const cell = element("th", "", point.name); cell.scope = "col"; return cell; }));
    detail.querySelector(".facts thead").replaceChildren(head);
    const line = (name, values) => {
      const row = element("tr");
      const label = element("th", "", name);
      label.scope = "row";
      row.append(label, ...values.map((value) => element("td", "", value)));
      return row;
    };
    const rows = columns.map((name) => line(name, shown.map((point) => valueOf(point, name))));
    const share = (point) => {
      if (!point.packed) return "–";
      const table = data.tables[point.table];
      const parts = table.components.map((component) => {
        const sites = range(table.sites.length).filter((i) => table.sites[i][1] === component);
        const bits = range(table.steps).flatMap((step) => sites.map((site) => number(point, table, step, site)));
        return `${component} ${Math.round(100 * mean(bits))}%`;
      });
      return parts.join(", ");
    };
    const others = (point) => (point.kind === "uncached" ? "–" : point.forecast ? "extrapolated" : "reused");
    detail.querySelector(".facts tbody").replaceChildren(...rows, line("recomputed", shown.map(share)), line("other outputs", shown.map(others)));
  }

  // A video is an image of its frames, one below the other. It is played in a window of one frame.
  const FRAME_MS = 125;
  const videos = [...document.querySelectorAll(".pictures img[data-frames]")];

  function windowOf(image, frames) {
    const box = element("span", "player");
    box.style.setProperty("--frames", frames);
    const fit = () => { box.style.aspectRatio = `${image.naturalWidth} / ${image.naturalHeight / frames}`; };
    image.complete ? fit() : image.addEventListener("load", fit);
    return box;
  }

  function showFrame(image, frame, frames) { image.style.transform = `translateY(${(-100 * (frame % frames)) / frames}%)`; }

  function fillStrip(details) {
    const box = details.querySelector(".scroll");
    if (box.childElementCount) return;
    for (const original of videos.filter((image) => image.dataset.row === details.dataset.row)) {
      const line = element("div", "strip"), frames = Number(original.dataset.frames);
      line.append(element("span", "strip-name", original.dataset.of));
      for (let frame = 0; frame < frames; frame += 1) {
        const image = element("img");
        image.src = original.src;
        image.alt = `${original.alt}, frame ${frame + 1}`;
        const cell = windowOf(image, frames);
        cell.append(image);
        showFrame(image, frame, frames);
        line.append(cell);
      }
      box.append(line);
    }
  }

  function playVideos() {
    const button = at("play-videos"), slider = at("video-frame"), number = at("video-frame-number");
    let frame = 0, timer = null;
    const show = () => {
      videos.forEach((image) => showFrame(image, frame, Number(image.dataset.frames)));
      slider.value = frame + 1;
      number.textContent = frame + 1;
    };
    const play = (on) => {
      clearInterval(timer);
      timer = on ? setInterval(() => { frame = (frame + 1) % Number(slider.max); show(); }, FRAME_MS) : null;
      button.textContent = on ? "Pause" : "Play";
      button.ariaPressed = String(!on);
    };
    for (const image of videos) {
      const box = windowOf(image, image.dataset.frames);
      image.before(box);
      box.append(image);
    }
    button.onclick = () => play(timer === null);
    slider.oninput = () => { play(false); frame = Number(slider.value) - 1; show(); };
    for (const details of document.querySelectorAll(".strips")) {
      if (details.open) fillStrip(details);
      details.addEventListener("toggle", () => fillStrip(details));
    }
    show();
    play(!matchMedia("(prefers-reduced-motion: reduce)").matches);
  }

  if (videos.length) playVideos();

  // The images are in the page once, in the table, and are shown again here.
  const source = (point, row) => document.querySelector(`.pictures img[data-of="${CSS.escape(point.name)}"][data-row="${row}"]`);

  function picture(point, row) {
    const original = source(point, row);
    if (!original) return element("span", "gap", "no image");
    const image = element("img");
    image.src = original.src;
    image.alt = original.alt;
    return image;
  }

  function difference(one, other, row) {
    const pair = [source(one, row), source(other, row)];
    if (!pair.every(Boolean)) return element("span", "gap", "no image");
    const overlay = element("span", "difference");
    overlay.role = "img";
    overlay.ariaLabel = `Difference of ${one.name} and ${other.name}`;
    pair.forEach((original) => { const image = element("img"); image.src = original.src; image.alt = ""; overlay.append(image); });
    return overlay;
  }

  function fillPairs(one, other) {
    const rows = [...document.querySelectorAll(".pictures tbody tr")];
    const pairs = detail.querySelector(".pairs");
    const uncached = points.find((point) => point.kind === "uncached");
    const pictured = [...new Set([uncached, other, one])].filter((point) => point && rows.some((_, row) => source(point, row)));
    pairs.hidden = !pictured.length;
    const heads = element("div", "which");
    const pair = one !== other && pictured.includes(one) && pictured.includes(other);
    pictured.forEach((point) => heads.append(element("div", "", point.name)));
    if (pair) heads.append(element("div", "", "difference × 8"));
    pairs.replaceChildren(heads, ...rows.map((tr, row) => {
      const figure = element("figure");
      pictured.forEach((point) => figure.append(picture(point, row)));
      if (pair) figure.append(difference(one, other, row));
      figure.append(element("figcaption", "", tr.querySelector("th").firstChild.textContent));
      return figure;
    }));
  }

  function fillComponents(point) {
    const names = data.tables[point.table].components;
    const choices = at("component");
    const checked = choices.querySelector("input:checked")?.value ?? "";
    choices.hidden = names.length < 2;
    choices.querySelector("span").replaceChildren(...["", ...names].map((name) => {
      const label = element("label");
      const input = element("input");
      Object.assign(input, { type: "radio", name: "component", value: name, checked: name === checked || (!names.includes(checked) && !name) });
      label.append(input, element("span", "", name || "all"));
      return label;
    }));
  }

  const CAPTIONS = {
    recomputed: () => "Filled cells are recomputed. Bars: fraction recomputed by step and by block.",
    age: () => "Filled cells use old outputs. Bars: fraction recomputed.",
    difference: (other) => `Compared with ${other.name}: green recomputes more, brown recomputes less. Bars: fraction recomputed.`,
  };

  function fillMap(one, other) {
    const comparable = other.packed && other !== one && other.table === one.table;
    const difference = at("look").querySelector("[value=difference]");
    difference.disabled = !comparable;
    if (difference.checked && !comparable) at("look").querySelector("[value=recomputed]").checked = true;
    const look = at("look").querySelector("input:checked").value;
    const component = at("component").querySelector("input:checked")?.value ?? "";
    at("look-says").textContent = CAPTIONS[look](other);
    at("heat").hidden = !one.packed;
    if (one.packed) draw(at("schedule-plot"), () => scheduleFigure(one, { component, look, partner: other }));
  }

  function fillUse(one) {
    const link = at("download");
    URL.revokeObjectURL(link.href);
    link.hidden = !one.packed;
    if (one.packed) link.href = URL.createObjectURL(new Blob([JSON.stringify(documentOf(one), null, 4) + "\n"], { type: "application/json" }));
    link.download = one.file;
    link.ariaLabel = `Download ${one.name} as JSON`;
    detail.querySelector("code").textContent = `import ecad\nschedule = ecad.CacheSchedule.load(${JSON.stringify(one.file)})\necad.enable_cache(pipe, schedule)`;
  }

  function show() {
    if (!detail) return;
    if (Math.max(chosen, partner) >= points.length) unpack();
    const one = candidate(chosen);
    const other = candidate(partner);
    option(at("chosen"), chosen);
    option(at("partner"), partner);
    at("chosen-title").replaceChildren(element("i", `mark ${one.kind}`), `${one.name} `, element("small", "", [one.label, one.kindName].filter(Boolean).join(", ")));
    at("heat-title").textContent = `${one.name}: steps and blocks`;
    at("said").textContent = `${one.name}: ${(one.columns ?? data.columns).map((name, i) => `${name} ${one.numbers[i]}`).join(", ")}`;
    fillFacts(one, other === one ? null : other);
    fillPairs(one, other);
    fillComponents(one);
    fillMap(one, other);
    fillUse(one);
    for (const row of document.querySelectorAll(".numbers [data-entry]")) row.classList.toggle("chosen", Number(row.dataset.entry) === chosen);
    mark();
    history.replaceState(null, "", `#${new URLSearchParams({ schedule: one.name, with: other.name })}`);
  }

  function choose(i) { chosen = i; show(); }
  function compare(i) { partner = i; show(); }

  // ---- The front

  const plot = at("front-plot");

  // The position of each point in the current plot.
  function positions(traces) {
    const found = new Map();
    for (const trace of traces) [...(trace.customdata ?? [])].forEach((i, k) => found.set(i, [trace.x[k], trace.y[k]]));
    return found;
  }

  function rings(traces) {
    const found = positions(traces);
    return [chosen, partner].map((i) => found.get(i) ?? []).map(([x, y]) => (x === undefined ? { x: [], y: [] } : { x: [x], y: [y] }));
  }

  function mark() {
    if (!plot?.data) return;
    const [one, other] = rings(plot.data);
    const drawnRings = plot.data.slice(-2);
    // Plotly redraws every point if one changes.
    if ([one, other].every((ring, i) => ring.x[0] === drawnRings[i].x[0] && ring.y[0] === drawnRings[i].y[0])) return;
    Plotly.restyle(plot, { x: [one.x, other.x], y: [one.y, other.y] }, [plot.data.length - 2, plot.data.length - 1]);
  }

  const selected = (id) => document.querySelector(`#${id} input:checked`).value;

  function view() {
    const name = `${selected("quality")}/${selected("cost")}`;
    const shown = figureOf(name);
    // Plotly's own slider cannot be used by keyboard; the page's slider shows the same frames.
    delete shown.layout.sliders;
    const moved = rings(shown.data);
    shown.data.slice(-2).forEach((ring, i) => Object.assign(ring, moved[i]));
    drawn.delete(plot);
    draw(plot, () => structuredClone({ data: shown.data, layout: shown.layout }));
    slider(shown.frames ?? []);
    mark();
  }

  let frames = [];
  let playing = 0;

  function slider(found) {
    if (!at("generations")) return;
    clearInterval(playing);
    frames = found;
    at("generations").hidden = frames.length < 3;
    at("generation").max = frames.length - 1;
    at("generation").value = frames.length - 1;
    if (frames.length) label();
  }

  function label() {
    const name = frames[at("generation").value].name;
    at("generations").querySelector("output").value = name;
    at("generation").ariaValueText = name === "all" ? "all generations" : `generation ${name}`;
  }

  // The traces of the frame replace those with the same index.
  function toFrame() {
    const frame = recoloured(structuredClone(frames[at("generation").value]));
    const traces = [...plot.data];
    frame.traces.forEach((index, i) => { traces[index] = frame.data[i]; });
    Plotly.react(plot, traces, plot.layout);
    label();
    mark();
  }

  if (at("generations")) {
    const generation = at("generation");
    generation.addEventListener("input", toFrame);
    at("play").addEventListener("click", () => {
      clearInterval(playing);
      generation.value = 0;
      toFrame();
      playing = setInterval(() => {
        generation.stepUp();
        toFrame();
        if (generation.value === generation.max) clearInterval(playing);
      }, 500);
    });
  }

  if (detail) {
    const hash = new URLSearchParams(location.hash.slice(1));
    chosen = find(hash.get("schedule"), chosen);
    partner = find(hash.get("with"), partner);
  }

  redrawn.push(mark);
  if (plot) {
    view();
    for (const id of ["quality", "cost"]) at(id).addEventListener("change", view);
    plot.on("plotly_click", (event) => {
      const i = event.points.find((point) => point.customdata !== undefined)?.customdata;
      if (i !== undefined) (event.event.shiftKey ? compare : choose)(i);
    });
    plot.addEventListener("keydown", (event) => {
      const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!direction) return;
      event.preventDefault();
      const order = [...positions(plot.data)].sort(([, one], [, other]) => one[0] - other[0] || one[1] - other[1]).map(([i]) => i);
      const next = order[Math.min(order.length - 1, Math.max(0, order.indexOf(event.shiftKey ? partner : chosen) + direction))];
      if (next !== undefined) (event.shiftKey ? compare : choose)(next);
    });
  }

  // ---- The rest of the page

  for (const box of document.querySelectorAll("[data-plot]")) drawLater(box, () => figureOf(box.dataset.plot));
  for (const box of document.querySelectorAll(".card [data-entry]")) {
    drawLater(box, () => {
      const figure = scheduleFigure(points[box.dataset.entry]);
      Object.assign(figure.layout, { height: figure.layout.height * 0.6, margin: { l: 30, r: 6, t: 6, b: 24 } });
      figure.layout.xaxis.title.text = "";
      figure.layout.font.size = 11;
      return figure;
    });
  }

  if (detail) {
    for (const select of [at("chosen"), at("partner")]) points.forEach((point, i) => select.add(new Option(titleOf(point), i)));
    at("chosen").addEventListener("change", (event) => choose(Number(event.target.value)));
    at("partner").addEventListener("change", (event) => compare(Number(event.target.value)));
    // The plot shows a part of a large search; by name, every candidate can be chosen.
    at("any")?.addEventListener("input", (event) => {
      const wanted = event.target.value;
      const found = data.candidates.names.filter((name) => name.includes(wanted)).slice(0, 30);
      at("near").replaceChildren(...found.map((name) => new Option(name)));
      const index = data.candidates.names.indexOf(wanted);
      if (index >= 0) choose(find(wanted, points.length + index));
    });
    for (const row of document.querySelectorAll(".numbers tbody tr")) row.addEventListener("click", () => choose(Number(row.dataset.entry)));
    for (const id of ["look", "component"]) at(id).addEventListener("change", () => fillMap(candidate(chosen), candidate(partner)));
    detail.querySelector(".copy").addEventListener("click", async (event) => {
      const code = detail.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        event.target.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        event.target.textContent = "Selected";
      }
      setTimeout(() => { event.target.textContent = "Copy"; }, 1500);
    });
    show();
  }

  if (data.front) {
    const link = at("front-file");
    link.addEventListener("click", async (event) => {
      if (link.href.startsWith("blob:")) return;
      event.preventDefault();
      const stream = new Blob([bytes(data.front)]).stream().pipeThrough(new DecompressionStream("deflate"));
      link.href = URL.createObjectURL(new Blob([await new Response(stream).arrayBuffer()], { type: "application/json" }));
      link.click();
    });
  }

  if (data.live) {
    const state = at("state");
    state.hidden = false;
    const ask = async () => {
      try {
        const [version, said] = await Promise.all(["version", "state"].map(async (name) => (await fetch(name)).text()));
        state.textContent = said;
        if (version !== data.live) { location.reload(); return; }
      } catch { state.textContent = "Stopped: the search has ended or was stopped. `ecad report` shows its result."; }
      setTimeout(wait, 5000);
    };
    const wait = () => (document.hidden ? setTimeout(wait, 5000) : ask());
    ask();
  }
})();
