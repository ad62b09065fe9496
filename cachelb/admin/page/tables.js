// Tables whose rows stay the same elements while their figures change, so that focus and selection stay, too.

import { byId, bytes, count, element, ms, percent, rate, seconds, setText } from "./view.js";

const UNWELL = { dead: 4, up: 0, drain: 2, down: 2 };
const SIGNS = { up: "●", drain: "◐", down: "○", dead: "✖" };
const isNarrow = matchMedia("(max-width: 900px)");
const atFirst = () => (isNarrow.matches ? 8 : 24); // rows; worst first, so the rest can wait

export class Table {
  // columns: [{ title, make(cell) once, show(cell, row) each time, head: whether it names the row }]
  constructor(id, columns) {
    this.columns = columns;
    this.body = byId(id).tBodies[0];
    this.rows = new Map();
    const head = byId(id).tHead.rows[0];
    for (const column of columns) head.append(element("th", { role: "columnheader", scope: "col", text: column.title, class: column.kind }));
  }

  // rows: [[key, value], ...] in their order.
  show(rows) {
    const wanted = new Set(rows.map(([key]) => key));
    for (const [key, row] of this.rows) {
      if (!wanted.has(key)) {
        row.remove();
        this.rows.delete(key);
      }
    }
    let place = this.body.firstElementChild;
    for (const [key, value] of rows) {
      const row = this.rows.get(key) ?? this.make(key);
      if (row === place) place = place.nextElementSibling;
      else this.move(row, place);
      this.columns.forEach((column, at) => column.show(row.cells[at], value));
    }
  }

  make(key) {
    const row = element("tr", { role: "row" });
    for (const { title, head, kind, make } of this.columns) {
      const cell = head
        ? element("th", { role: "rowheader", scope: "row", class: kind })
        : element("td", { role: "cell", class: kind, "data-title": title });
      make?.(cell);
      row.append(cell);
    }
    this.rows.set(key, row);
    return row;
  }

  move(row, place) {
    const focused = row.contains(document.activeElement) ? document.activeElement : null;
    this.body.insertBefore(row, place);
    focused?.focus({ preventScroll: true });
  }
}

const text = (title, value, more = {}) => ({ title, show: (cell, row) => setText(cell, value(row)), ...more });
const number = (title, value) => text(title, value, { kind: "number" });

function bars(cell) {
  for (const [kind, name] of [["keys", "keys"], ["requests", "requests"]]) {
    const track = element("span", { class: "track" }, element("span", { class: "fill" }));
    cell.append(element("div", { class: `bar ${kind}` }, track, element("span", { class: "bar-text" }), ` ${name}`));
  }
}

// most: the largest share of both kinds over all nodes, so that all bars have one scale.
function showBars(cell, { node, requestShare, most }) {
  [node.key_share, requestShare].forEach((share, at) => {
    const bar = cell.children[at];
    bar.children[0].firstChild.style.width = `${most ? Math.min(100, (100 * (share ?? 0)) / most) : 0}%`;
    setText(bar.children[1], percent(share));
  });
}

export function severity({ node, level }) {
  return { bad: 30, warn: 20, note: 10, hot: 1 }[level] ?? UNWELL[node.state] ?? 0;
}

const ORDERS = {
  worst: (a, b) => severity(b) - severity(a),
  name: () => 0,
  keys: (a, b) => b.node.key_share - a.node.key_share,
  requests: (a, b) => b.node.rates.requests_per_s - a.node.rates.requests_per_s,
  hits: (a, b) => (a.node.rates.hit_ratio ?? 2) - (b.node.rates.hit_ratio ?? 2),
  bytes: (a, b) => b.node.rates.bytes_per_s - a.node.rates.bytes_per_s,
  slow: (a, b) => (b.node.rates.p99_ms ?? -1) - (a.node.rates.p99_ms ?? -1),
  errors: (a, b) => b.node.rates.errors_per_s - a.node.rates.errors_per_s,
  flying: (a, b) => b.node.in_flight - a.node.in_flight,
};
const byName = new Intl.Collator("en", { numeric: true }).compare;

export class NodeTable {
  // steer(node, state): somebody wants to change it.
  constructor(steer) {
    this.shown = [];
    this.all = false;
    this.table = new Table("nodes-table", [
      {
        title: "Node",
        head: true,
        make: (cell) => cell.append(element("span", { class: "name" }), element("span", { class: "address" })),
        show: (cell, { node }) => {
          setText(cell.children[0], node.name);
          setText(cell.children[1], `${node.host}:${node.port}${node.weight === 1 ? "" : `, weight ${node.weight}`}`);
        },
      },
      {
        title: "State",
        make: (cell) => cell.append(element("span", { class: "state" }), element("span", { class: "cause" })),
        show: (cell, { node, level, problem }) => {
          cell.dataset.state = node.state;
          cell.dataset.level = level ?? "";
          setText(cell.children[0], `${SIGNS[node.state] ?? "?"} ${node.state}`);
          setText(cell.children[1], problem && !problem.title.endsWith(` is ${node.state}`) ? problem.title.replace(`${node.name} `, "") : node.state === "dead" ? node.cause : "");
        },
      },
      { title: "Share", kind: "shares", make: bars, show: showBars },
      number("Req/s", ({ node }) => rate(node.rates.requests_per_s)),
      number("Hits", ({ node }) => percent(node.rates.hit_ratio)),
      number("Bytes/s", ({ node }) => bytes(node.rates.bytes_per_s)),
      number("p50", ({ node }) => ms(node.rates.p50_ms)),
      number("p99", ({ node }) => ms(node.rates.p99_ms)),
      number("Errors/s", ({ node }) => rate(node.rates.errors_per_s)),
      number("In flight", ({ node }) => count(node.in_flight)),
      number("Requests", ({ node }) => count(node.counters.requests)),
      {
        title: "Change",
        kind: "change",
        make: (cell) => {
          const button = element("button", { type: "button" });
          button.addEventListener("click", () => steer(button.dataset.node, button.dataset.state));
          cell.append(button);
        },
        show: (cell, { node }) => {
          const button = cell.firstChild;
          const rests = node.state === "drain" || node.state === "down" || node.file.state !== "up" && node.operator.state !== "up";
          button.dataset.node = node.name;
          button.dataset.state = rests || node.operator.state === "drain" ? "up" : "drain";
          setText(button, button.dataset.state === "up" ? "Undrain" : "Drain");
          const label = `${button.textContent} ${node.name}`;
          if (button.getAttribute("aria-label") !== label) button.setAttribute("aria-label", label);
        },
      },
    ]);
    for (const id of ["filter", "filter-state", "order"]) byId(id).addEventListener("input", () => this.show());
    byId("all-nodes").addEventListener("click", () => {
      this.all = true;
      this.show();
      byId("nodes-table").querySelector("button")?.focus();
    });
  }

  // rows: [{ node, requestShare, level, problem, most }]
  show(rows = this.shown) {
    this.shown = rows;
    const part = byId("filter").value.trim().toLowerCase();
    const state = byId("filter-state").value;
    const order = ORDERS[byId("order").value] ?? ORDERS.worst;
    const found = rows
      .filter(({ node }) => !part || node.name.toLowerCase().includes(part) || `${node.host}:${node.port}`.toLowerCase().includes(part))
      .filter((row) => !state || (state === "unwell" ? severity(row) > 1 : row.node.state === state))
      .sort((a, b) => order(a, b) || byName(a.node.name, b.node.name));
    const few = this.all ? found : found.slice(0, atFirst());
    this.table.show(few.map((row) => [row.node.name, row]));
    const states = {};
    for (const { node } of rows) states[node.state] = (states[node.state] ?? 0) + 1;
    const words = Object.entries(states).map(([name, many]) => `${many} ${name}`);
    setText(byId("nodes-count"), `${words.join(", ")}${found.length < rows.length ? `; ${found.length} shown` : ""}`);
    byId("all-nodes").hidden = few.length === found.length;
    setText(byId("all-nodes"), `Show all ${found.length} nodes`);
  }
}

export class HotTable {
  // explain(url): somebody wants to know more.
  constructor(explain) {
    this.table = new Table("hot-table", [
      { ...text("What", ({ entry }) => entry.name), head: true, kind: "long" },
      text("Owner", ({ entry, isUrl }) => (isUrl ? entry.owner || "none" : nodes(entry))),
      number("Requests", ({ entry }) => `${percent(entry.requests_share)} (${count(entry.requests)})`),
      number("Bytes", ({ entry }) => `${percent(entry.bytes_share)} (${bytes(entry.bytes)})`),
      number("Hits", ({ entry }) => percent(entry.hit_ratio)),
      number("Around", ({ entry }) => percent(entry.bypassed_share)),
      {
        title: "",
        kind: "change",
        make: (cell) => {
          const button = element("button", { type: "button", text: "Explain" });
          button.addEventListener("click", () => explain(button.dataset.url));
          cell.append(button);
        },
        show: (cell, { entry, isUrl }) => {
          cell.firstChild.hidden = !isUrl;
          cell.firstChild.dataset.url = entry.name;
        },
      },
    ]);
  }

  show(hot) {
    const [what, by] = [byId("hot-what").value, byId("hot-by").value];
    byId("hot-by").disabled = what === "around"; // by requests only
    const entries = what === "around" ? hot.around_by_requests : hot[`${what}_by_${by}`];
    const few = entries.slice(0, isNarrow.matches ? 8 : 15); // the verdict looks at more
    this.table.show(few.map((entry) => [`${what} ${entry.name}`, { entry, isUrl: what === "urls" }]));
    setText(byId("hot-window"), hot.requests ? `of ${count(hot.requests)} requests, ${bytes(hot.bytes)}, in ${seconds(hot.window_s)}` : "nothing was asked for");
  }
}

function nodes(entry) {
  const found = Object.entries(entry.nodes).sort((a, b) => b[1] - a[1]);
  const few = found.slice(0, 3).map(([name, share]) => `${name} ${percent(share)}`);
  return few.join(", ") + (found.length > 3 ? ` and ${found.length - 3} more` : "") || "none";
}

export const workerTable = () =>
  new Table("worker-table", [
    { ...text("Worker", (worker) => `worker ${worker.number}`), head: true },
    number("Process", (worker) => worker.pid || "gone"),
    number("Requests", (worker) => count(worker.requests)),
    number("Clients", (worker) => count(worker.clients_open)),
    number("Late by", (worker) => ms(worker.loop_lag_ms)),
    number("Restarts", (worker) => count(worker.restarts)),
    number("Epoch", (worker) => worker.epoch),
  ]);
