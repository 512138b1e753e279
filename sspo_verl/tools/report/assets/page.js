// Reading values: pointing at a picture, or the arrow keys on it, shows the values at the nearest step.
"use strict";
(() => {
  const box = document.getElementById("values");
  const shown = (run) => document.getElementById(`show-${run}`).checked;
  const number = (v) => (v === 0 ? "0" : Math.abs(v) < 0.001 ? v.toExponential(2) : String(Number(v.toPrecision(4))));

  function text(data, curve, i) {
    if (data.kind === "timeline") {
      const of = curve.seeds ? curve.seeds[i] : 1;
      return of === 1 ? (curve.mean[i] > 0 ? "seen" : "not seen") : `seen by ${Math.round(curve.mean[i] * of)} of ${of}`;
    }
    const unit = data.unit ? ` ${data.unit}` : "";
    if (!curve.low || data.kind === "fan") return number(curve.mean[i]) + unit;
    const seeds = curve.seeds[i] < curve.of ? `, ${curve.seeds[i]} of ${curve.of} seeds` : "";
    return `${number(curve.mean[i])}${unit} (${number(curve.low[i])} to ${number(curve.high[i])}${seeds})`;
  }

  function lineOf(data, curve, i) {
    const row = document.createElement("div");
    row.style.setProperty("--color", `var(--c${curve.color})`);
    const mark = document.createElement("span");
    mark.className = "mark";
    mark.textContent = curve.marker;
    row.append(mark, ` ${curve.label}: `);
    const value = document.createElement("b");
    value.textContent = text(data, curve, i);
    row.append(value);
    return row;
  }

  for (const figure of document.querySelectorAll("figure")) {
    const svg = figure.querySelector("svg");
    const data = JSON.parse(figure.querySelector("script").textContent);
    const { x0, x1, y0, y1, first, last } = data.place;
    const guide = document.createElementNS("http://www.w3.org/2000/svg", "line");
    guide.setAttribute("class", "guide");
    guide.setAttribute("y1", y0);
    guide.setAttribute("y2", y1);
    let at = null;

    const visible = () => data.curves.filter((c) => shown(c.run));
    const steps = () => [...new Set(visible().flatMap((c) => c.steps))].sort((a, b) => a - b);

    function show(step) {
      at = step;
      const x = x0 + ((step - first) / (last - first)) * (x1 - x0);
      guide.setAttribute("x1", x);
      guide.setAttribute("x2", x);
      svg.append(guide);
      const head = document.createElement("div");
      head.textContent = data.places ? data.places[step] : `step ${step}`;
      head.className = "step";
      const rows = visible().flatMap((c) => {
        const i = c.steps.indexOf(step);
        return i < 0 ? [] : [lineOf(data, c, i)];
      });
      box.replaceChildren(head, ...rows);
      box.hidden = false;
      const frame = svg.getBoundingClientRect();
      const scale = frame.width / svg.viewBox.baseVal.width;
      // Below the axis, so that it covers no curve; above, where the window ends.
      box.style.left = "0";
      const available = document.documentElement.clientWidth - box.offsetWidth - 8;
      const below = frame.top + y1 * scale + 40;
      const above = frame.top + y0 * scale - box.offsetHeight - 8;
      const middle = frame.left + x * scale - box.offsetWidth / 2;
      box.style.left = `${Math.max(8, Math.min(available, middle))}px`;
      box.style.top = `${below + box.offsetHeight > innerHeight && above > 0 ? above : below}px`;
    }

    function hide() {
      at = null;
      guide.remove();
      box.hidden = true;
    }

    svg.addEventListener("pointermove", (event) => {
      const frame = svg.getBoundingClientRect();
      const x = ((event.clientX - frame.left) / frame.width) * svg.viewBox.baseVal.width;
      const wanted = first + ((x - x0) / (x1 - x0)) * (last - first);
      const all = steps();
      if (all.length) show(all.reduce((a, b) => (Math.abs(b - wanted) < Math.abs(a - wanted) ? b : a)));
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const all = steps();
      const i = all.indexOf(at);
      const next = { ArrowRight: Math.min(i + 1, all.length - 1), ArrowLeft: i < 0 ? all.length - 1 : Math.max(i - 1, 0),
        Home: 0, End: all.length - 1 }[event.key];
      if (event.key === "Escape") hide();
      if (next === undefined || !all.length) return;
      event.preventDefault();
      show(all[next]);
    });
  }
})();
