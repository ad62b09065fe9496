// The last minutes as four charts (uPlot), each with its latest figures as text: a canvas says nothing to a screen reader.

import { byId, bytes, element, ms, percent, rate, seconds, setText } from "./view.js";

const HEIGHT = 170;
const CHARTS = [
  { name: "Hit ratio", format: percent, lines: [["hits", "hit_ratio"]], range: () => [0, 1] },
  { name: "Time of an answer", format: ms, lines: [["half below (p50)", "p50_ms"], ["99 % below (p99)", "p99_ms"]] },
  { name: "Requests a second", format: rate, lines: [["all", "requests_per_s"], ["around the farm", "bypassed_per_s"], ["refused", "refused_per_s"], ["errors", "errors_per_s"]] },
  { name: "Bytes a second", format: bytes, lines: [["bytes", "bytes_per_s"]] },
];
const STEPS_S = [5, 15, 30, 60, 120, 300, 600]; // between ticks; uPlot's own leave a narrow chart of four minutes without any
const DASHES = [[], [6, 3], [2, 3], [9, 3, 2, 3]]; // colour is never alone

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// With seconds where ticks may be closer than a minute.
function hours(plot, ticks) {
  const { min, max } = plot.scales.x;
  const parts = { hour: "2-digit", minute: "2-digit", ...(max - min < 600 ? { second: "2-digit" } : {}) };
  return ticks.map((tick) => new Date(tick * 1000).toLocaleTimeString("en-GB", parts));
}

class Chart {
  constructor(spec, grid) {
    this.spec = spec;
    this.caption = element("figcaption", {}, element("strong", { text: spec.name }), " ", element("span"));
    this.place = element("div", { class: "plot", "aria-hidden": "true" });
    grid.append(element("figure", {}, this.caption, this.place));
    this.plot = null;
    this.data = null;
    this.keys = "";
    new ResizeObserver(() => this.plot?.setSize({ width: this.place.clientWidth, height: HEIGHT })).observe(this.place);
  }

  show(at, series) {
    const lines = this.spec.lines.filter(([, key]) => series[key]);
    this.data = [at, ...lines.map(([, key]) => series[key])];
    const keys = lines.map(([, key]) => key).join();
    if (!this.plot || keys !== this.keys) this.draw(lines);
    else this.plot.setData(this.data);
    this.keys = keys;
    const latest = lines.map(([name, key]) => `${lines.length > 1 ? `${name} ` : ""}${this.spec.format(series[key].at(-1))}`);
    setText(this.caption.lastChild, at.length ? latest.join(", ") : "nothing yet: a point every 5 s");
  }

  draw(lines) {
    this.plot?.destroy();
    const [text, grid] = [colour("--dim"), colour("--line")];
    const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font: "12px system-ui, sans-serif" };
    const show = (_plot, value) => this.spec.format(value);
    this.plot = new uPlot(
      {
        width: this.place.clientWidth || 300,
        height: HEIGHT,
        scales: { y: { range: this.spec.range ?? ((_plot, _low, high) => [0, high > 0 ? high * 1.1 : 1]) } },
        axes: [
          { ...axis, values: hours, space: 75, incrs: STEPS_S },
          { ...axis, size: 68, space: 34, values: (_plot, ticks) => ticks.map((tick) => this.spec.format(tick)) },
        ],
        series: [
          { label: "at", value: (_plot, at) => (at == null ? "" : new Date(at * 1000).toLocaleTimeString("en-GB")) },
          ...lines.map(([label], number) => ({
            label,
            value: show,
            stroke: colour(`--series-${number + 1}`),
            dash: DASHES[number],
            width: 2,
            points: { show: this.data[0].length < 3 },
          })),
        ],
        cursor: { y: false, drag: { x: false, y: false } },
        legend: { show: lines.length > 1 },
      },
      this.data,
      this.place,
    );
  }

  recolour() {
    if (this.plot) this.draw(this.spec.lines.filter(([, key]) => this.keys.split(",").includes(key)));
  }
}

export class Charts {
  constructor() {
    this.charts = CHARTS.map((spec) => new Chart(spec, byId("chart-grid")));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.charts.forEach((chart) => chart.recolour()));
  }

  // history: the document; name: of a node, or "" for the farm.
  show(history, name) {
    const span = history.at.length * history.step_s;
    setText(byId("charts-head"), span ? `The last ${seconds(span)}` : "The last minutes");
    const series = name ? history.nodes[name] : history.farm;
    if (series) this.charts.forEach((chart) => chart.show(history.at, series));
  }
}
