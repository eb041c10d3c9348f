"use strict";
(() => {
  const EVERY = 2000; // milliseconds between two questions
  const OPTIONS = { responsive: true, displaylogo: false };
  const at = (id) => document.getElementById(id);
  let version = "";
  let asking = false;

  const fill = (list, tag, texts) =>
    list.replaceChildren(...texts.map((text) => Object.assign(document.createElement(tag), { textContent: text })));

  // The axis is the reader's choice, the rest is the figure's.
  const onAxis = (layout) => {
    const shown = { ...layout, autosize: true, uirevision: at("axis").value };
    delete shown.title; // the heading above says it
    for (const key of Object.keys(shown))
      if (key.startsWith("xaxis")) shown[key] = { ...shown[key], type: at("axis").value };
    return shown;
  };
  const draw = async (key, figure) => {
    const section = at(`${key}-section`);
    section.hidden = !figure;
    if (!figure) return;
    const holder = at(`${key}-drawing`);
    holder.style.minHeight = `${figure.layout.height}px`;
    for (const part of section.querySelectorAll("[data-caption]")) part.textContent = figure.layout.meta[part.dataset.caption];
    at(`${key}-heading`).textContent = figure.layout.meta.title;
    await Plotly.react(holder, figure.data, onAxis(figure.layout), OPTIONS);
  };

  const show = async (run) => {
    at("status").textContent = run.status;
    at("status").className = run.status;
    at("headline").textContent = run.headline;
    document.title = `${run.name}: ${run.status}`;
    fill(at("remarks"), "li", run.remarks);
    fill(at("alarms"), "li", run.alarms);
    at("phases-note").textContent = run.phases_note;
    at("phases").parentElement.hidden = run.phases.length === 0;
    at("phases").replaceChildren(...run.phases.map((cells) => {
      const row = document.createElement("tr");
      fill(row, "td", cells);
      return row;
    }));
    at("norms-label").hidden = run.norms.length < 2;
    const options = [...at("norms").options].map((option) => option.value);
    if (options.join() !== run.norms.join()) fill(at("norms"), "option", run.norms);
    if (run.chosen) at("norms").value = run.chosen;
    await draw("metrics", run.figures.metrics);
    await draw("norms", run.figures.norms);
    document.documentElement.dataset.version = run.version;
  };

  const gone = () => {
    at("status").textContent = "not watched";
    at("status").className = "gone";
    at("headline").textContent = "phasescope watch has ended; the run itself may go on. What is below is as it was last seen.";
    version = "";
  };
  const ask = async () => {
    if (asking || (document.hidden && version !== "")) return;
    asking = true;
    try {
      const query = new URLSearchParams({ version, norms: at("norms").value });
      const answer = await fetch(`state?${query}`, { cache: "no-store" }).catch(() => null);
      if (answer === null) gone();
      if (answer?.status !== 200) return; // 204: nothing new
      const run = await answer.json();
      await show(run);
      version = run.key;
    } finally {
      asking = false;
    }
  };
  const again = () => { version = ""; ask(); };
  at("axis").addEventListener("change", again);
  at("norms").addEventListener("change", again);
  document.addEventListener("visibilitychange", ask);
  setInterval(ask, EVERY);
  ask();
})();
