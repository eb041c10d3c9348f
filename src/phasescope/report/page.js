"use strict";
(() => {
  // Browsers keep 16 WebGL contexts and silently blank the oldest beyond that; plotly uses two per figure. So at most
  // this many figures with WebGL are live; the others show their picture and are drawn again when they come into view.
  const LIVE = 5;
  const PRINT_WIDTH = 680;
  const OPTIONS = { responsive: true, displaylogo: false };
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const record = read("record");
  const drawings = read("drawings");
  const holders = [...document.querySelectorAll(".drawing")];

  // plotly.py writes number arrays as base64; a matrix also has its shape.
  const ARRAYS = { i1: Int8Array, u1: Uint8Array, u1c: Uint8ClampedArray, i2: Int16Array, u2: Uint16Array, i4: Int32Array,
    u4: Uint32Array, f4: Float32Array, f8: Float64Array };
  const list = (value) => {
    if (Array.isArray(value)) return value;
    if (!value || value.bdata === undefined) return null;
    const bytes = Uint8Array.from(atob(value.bdata), (c) => c.charCodeAt(0));
    const flat = [...new ARRAYS[value.dtype](bytes.buffer)];
    const shape = String(value.shape ?? flat.length).split(",").map(Number);
    if (shape.length === 1) return flat;
    return Array.from({ length: shape[0] }, (_, i) => flat.slice(i * shape[1], (i + 1) * shape[1]));
  };

  const cell = (value) => {
    if (value === null || value === undefined) return "";
    const text = typeof value === "object" ? JSON.stringify(value) : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const csv = (rows) => rows.map((row) => row.map(cell).join(",") + "\r\n").join("");

  // Names were written with entities so that plotly draws them as they are; a table wants them back.
  const named = (text) => typeof text !== "string" ? text
    : text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&#123;", "{").replaceAll("&amp;", "&");
  const figureCsv = (figure) => {
    const traces = figure.data.map((trace, i) => ({
      name: named(trace.name ?? `trace ${i}`), x: list(trace.x), y: list(trace.y), z: list(trace.z), text: list(trace.text),
    }));
    const columns = ["x", "y", "z", "text"].filter((key) => traces.some((trace) => trace[key]));
    const rows = [["trace", ...columns]];
    for (const trace of traces) {
      const n = Math.max(0, ...columns.map((key) => trace[key]?.length ?? 0));
      for (let i = 0; i < n; i++) rows.push([trace.name, ...columns.map((key) => named(trace[key]?.[i]))]);
    }
    return csv(rows);
  };
  const claimsCsv = () => {
    const keys = ["id", "statement", "source", "rule", "value", "interval_low", "interval_high", "unit", "null", "n_seeds",
      "verdict", "sentence"];
    const flat = record.claims.map((c) => ({ ...c, interval_low: c.interval?.[0], interval_high: c.interval?.[1] }));
    return csv([keys, ...flat.map((claim) => keys.map((key) => claim[key]))]);
  };

  const save = (name, type, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };
  const FILES = {
    "numbers.json": () => ["application/json", JSON.stringify(record, null, 1)],
    "claims.json": () => ["application/json", JSON.stringify(record.claims, null, 1)],
    "claims.csv": () => ["text/csv", claimsCsv()],
  };
  for (const button of document.querySelectorAll("button[data-file]"))
    button.addEventListener("click", () => save(button.dataset.file, ...FILES[button.dataset.file]()));
  for (const button of document.querySelectorAll("button[data-figure]")) {
    const { file, figure } = drawings[button.dataset.figure];
    button.addEventListener("click", () => save(`${file}.csv`, "text/csv", figureCsv(figure)));
  }

  const usesWebGL = (holder) => holder.querySelector("canvas") !== null;
  const distance = (holder) => {
    const box = holder.getBoundingClientRect();
    return Math.abs(box.top + box.bottom - innerHeight);
  };
  const draw = async (holder) => {
    if (holder.dataset.state === "live") return;
    const { data, layout } = drawings[holders.indexOf(holder)].figure;
    const shown = { ...layout, autosize: true };
    delete shown.title; // the heading above says it, and wraps
    if (matchMedia("(pointer: coarse)").matches) shown.dragmode = false; // a finger on a figure scrolls the page
    holder.replaceChildren();
    await Plotly.newPlot(holder, data, shown, OPTIONS);
    holder.dataset.state = "live";
    const live = holders.filter((other) => other.dataset.state === "live" && usesWebGL(other));
    if (live.length <= LIVE) return;
    const farthest = live.filter((other) => other !== holder).sort((a, b) => distance(b) - distance(a))[0];
    rest(farthest);
  };
  const rest = (holder) => {
    const picture = new Image(holder.clientWidth, holder.clientHeight);
    picture.alt = holder.getAttribute("aria-label");
    // Not Plotly.toImage: that draws a second figure, with WebGL contexts of its own.
    picture.src = `data:image/svg+xml,${encodeURIComponent(Plotly.Snapshot.toSVG(holder))}`;
    for (const canvas of holder.querySelectorAll("canvas"))
      (canvas.getContext("webgl") ?? canvas.getContext("webgl2"))?.getExtension("WEBGL_lose_context")?.loseContext();
    Plotly.purge(holder);
    holder.replaceChildren(picture);
    holder.dataset.state = "picture";
  };

  // One after the other, because each may put another to rest.
  let queue = Promise.resolve();
  const enqueue = (work) => { queue = queue.then(work).catch((error) => { console.error(error); }); };
  for (const holder of holders) {
    enqueue(() => draw(holder));
    enqueue(() => new Promise((done) => setTimeout(done))); // a reader may use what is drawn already
  }
  enqueue(() => {
    document.documentElement.dataset.drawn = "true";
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) enqueue(() => draw(entry.target));
    });
    for (const holder of holders) observer.observe(holder);
  });

  const live = () => holders.filter((holder) => holder.dataset.state === "live");
  addEventListener("beforeprint", () => {
    for (const holder of live()) Plotly.relayout(holder, { autosize: false, width: PRINT_WIDTH });
  });
  addEventListener("afterprint", () => {
    for (const holder of live()) Plotly.relayout(holder, { autosize: true, width: null });
  });
})();
