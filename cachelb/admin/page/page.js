// Wiring: asks the director again and again, shows what it says, and carries out what the operator confirms.

import * as api from "./api.js";
import { Charts } from "./charts.js";
import { HotTable, NodeTable, workerTable } from "./tables.js";
import { hitNote, judge } from "./verdict.js";
import { NONE, byId, bytes, clock, count, element, ms, percent, rate, seconds, setFacts, setText, visible } from "./view.js";

const POLL_MS = 2000;
const NODE_MS = 20; // a node more, so much more rarely: a large farm's status costs the director milliseconds
const POLL_MS_MAX = 10000;
const SLOW_MS = 5000; // what changes slowly: hot, history
const WINDOW_S = 60; // over which shares of requests are taken
const UNEVEN = 1.5; // times the requests that a node's keys would have
const JUDGED = 5; // answers that a verdict looks at
const EVENTS_KEPT = 300;
const QUIET_MS = 40000; // the stream says something every 15 s
const RETRY_MS = 2000;

const state = { statuses: [], hot: null, hotLately: null, history: null, answeredAt: null, events: [], lastId: 0, chartOf: "" };
const sleep = (wait) => new Promise((done) => setTimeout(done, wait));
const isSeen = () =>
  document.hidden ? new Promise((done) => document.addEventListener("visibilitychange", done, { once: true })) : Promise.resolve();

let kick = () => {};
let endStream = () => {};
const charts = new Charts();
const workers = workerTable();
const nodeTable = new NodeTable(openSteer);
const hotTable = new HotTable((url) => {
  byId("explain-url").value = url;
  byId("explain").scrollIntoView();
  byId("explain-form").requestSubmit();
});

// -- asking

async function follow() {
  let slowAt = -Infinity;
  for (;;) {
    await isSeen();
    const kicked = new Promise((done) => (kick = done));
    try {
      took(await api.read("/api/v1/status"));
      if (performance.now() - slowAt >= SLOW_MS - 100) {
        slowAt = performance.now();
        await askSlow();
      }
    } catch (error) {
      missed(error);
    }
    await Promise.race([kicked, sleep(pollMs())]);
  }
}

const pollMs = () => Math.min(POLL_MS_MAX, Math.max(POLL_MS, NODE_MS * (state.statuses.at(-1)?.nodes.length ?? 0)));
const silentAfter = () => (2 * pollMs()) / 1000 + 3; // seconds: two answers are missing

async function askSlow() {
  const of = state.chartOf;
  const readHot = (minutes) => api.read(`/api/v1/hot?limit=15&minutes=${minutes}`);
  const minutes = byId("hot-minutes").value;
  [state.hotLately, state.hot, state.history] = await Promise.all([
    readHot(1), // whatever the list shows, the verdict is about now
    minutes === "1" ? null : readHot(minutes),
    api.read(`/api/v1/history?nodes=${encodeURIComponent(of)}`),
  ]);
  state.hot ??= state.hotLately;
  hotTable.show(state.hot);
  if (of === state.chartOf) charts.show(state.history, of);
  showVerdict();
}

function took(status) {
  const before = state.statuses.at(-1);
  if (before && before.started_at !== status.started_at) restarted();
  state.answeredAt = performance.now();
  byId("token-form").hidden = true;
  state.statuses.push(status);
  while (state.statuses.length > 2 && status.now - state.statuses[0].now > WINDOW_S) state.statuses.shift();
  showAll(status);
}

function restarted() {
  seenAt.clear();
  state.statuses = [];
  state.events = [];
  state.lastId = 0;
  byId("event-list").replaceChildren();
  endStream();
}

function missed(error) {
  if (error.status === 401) {
    byId("token-form").hidden = false;
    setText(byId("headline-text"), "The director wants its token");
  } else if (error.status) {
    setText(byId("age"), `The director refuses: ${error.message}`);
    if (!state.statuses.length) setText(byId("headline-text"), `The director refuses: ${error.message}`);
  } else if (!state.statuses.length) {
    setText(byId("headline-text"), "The director does not answer; asking again");
  }
}

async function listen() {
  for (;;) {
    await isSeen();
    const ending = new AbortController();
    endStream = () => ending.abort();
    const hide = () => document.hidden && ending.abort();
    document.addEventListener("visibilitychange", hide);
    try {
      await api.stream(`/api/v1/events?after=${state.lastId}`, state.lastId, ending.signal, QUIET_MS, happened);
    } catch (error) {
      if (error.status && error.status !== 401) await pollEvents(); // too many listen already
    } finally {
      document.removeEventListener("visibilitychange", hide);
    }
    await sleep(RETRY_MS);
  }
}

async function pollEvents() {
  try {
    (await api.read(`/api/v1/events?after=${state.lastId}`)).events.forEach(happened);
  } catch {
    // the next round tells
  }
}

let eventsDrawn = true;
function happened(event) {
  state.lastId = event.id;
  state.events.push(event);
  if (state.events.length > EVENTS_KEPT) state.events.shift();
  if (eventsDrawn) {
    eventsDrawn = false;
    setTimeout(() => {
      eventsDrawn = true;
      showEvents();
      kick(); // what has happened shows at once
    }, 50);
  }
}

// -- showing

function showAll(status) {
  const name = status.listeners.find((listener) => listener.kind === "http")?.address ?? "";
  setText(byId("where"), name);
  showTiles(status);
  const problems = showVerdict();
  const shares = requestShares();
  const most = Math.max(...status.nodes.map((node) => Math.max(node.key_share, shares.get(node.name) ?? 0)), 0);
  const worst = new Map();
  for (const problem of problems) if (problem.node && !worst.has(problem.node)) worst.set(problem.node, problem);
  nodeTable.show(
    status.nodes.map((node) => {
      const problem = worst.get(node.name);
      return { node, requestShare: shares.get(node.name), level: problem?.hotBy ? "hot" : problem?.level, problem, most };
    }),
  );
  showStrips(status, shares);
  showChartChoice(status);
  showPeers(status.onecache);
  showDirector(status);
  showAge();
}

const seenAt = new Map(); // problems by title

// For how long this page has seen each problem.  What begins with "for" says by itself for how long it has been so.
function withSeen(problems) {
  const now = performance.now();
  const titles = new Set(problems.map((problem) => problem.title));
  for (const title of seenAt.keys()) if (!titles.has(title)) seenAt.delete(title);
  return ({ level, title, detail }) => {
    if (!seenAt.has(title)) seenAt.set(title, now);
    if (level === "note" || detail.startsWith("for ")) return detail;
    return `${detail}${detail && "; "}seen for ${seconds(Math.round((now - seenAt.get(title)) / 1000))}`;
  };
}

function showVerdict() {
  const silence = state.answeredAt == null ? 0 : (performance.now() - state.answeredAt) / 1000;
  const { level, headline, problems } = judge({
    statuses: state.statuses.slice(-JUDGED),
    hot: state.hotLately,
    history: state.history,
    silence_s: silence,
    silent_after_s: silentAfter(),
  });
  if (level === "wait") return problems;
  byId("verdict").dataset.level = level;
  setText(byId("verdict").querySelector(".sign"), { ok: "✔", note: "✔", warn: "▲", bad: "✖" }[level]);
  setText(byId("headline-text"), headline);
  document.title = visible(`${{ ok: "✔", note: "✔", warn: "▲", bad: "✖" }[level]} ${headline} – cachelb`);
  const list = byId("problems");
  const detailOf = withSeen(problems);
  problems.forEach((problem, at) => {
    const row = list.children[at] ?? list.appendChild(makeProblem());
    row.dataset.level = problem.level;
    setText(row.children[0], { bad: "wrong", warn: "look", note: "remark" }[problem.level]);
    setText(row.children[1], problem.title);
    setText(row.children[2], detailOf(problem));
    row.children[3].hidden = !problem.node && !problem.hotBy;
    row.children[3].dataset.node = problem.node;
    row.children[3].dataset.hotBy = problem.hotBy;
    const whatIsHot = problem.hotBy === "around" ? "Look at what goes around" : "Look at hot URLs";
    setText(row.children[3], problem.hotBy ? whatIsHot : `Look at ${problem.node}`);
  });
  [...list.children].slice(problems.length).forEach((row) => row.remove());
  // read aloud only when it is another sentence: figures move all the time
  setText(byId("spoken"), [headline.split(":")[0], ...problems.map((problem) => problem.title)].join(". "));
  return problems;
}

function makeProblem() {
  const look = element("button", { type: "button" });
  look.addEventListener("click", () => {
    if (look.dataset.hotBy) return lookAtHot(look.dataset.hotBy);
    byId("filter").value = look.dataset.node;
    byId("filter-state").value = "";
    nodeTable.show();
    chooseChart(look.dataset.node);
    byId("nodes").scrollIntoView();
    byId("filter").focus({ preventScroll: true });
  });
  return element("li", {}, element("span", { class: "level" }), element("strong"), element("span", { class: "detail" }), look);
}

function lookAtHot(by) {
  byId("hot-what").value = by === "around" ? "around" : "urls";
  byId("hot-by").value = by === "around" ? "requests" : by;
  hotTable.show(state.hot);
  byId("hot").scrollIntoView();
  byId("hot-what").focus({ preventScroll: true });
}

function showTiles(status) {
  const rates = status.rates;
  const flying = status.nodes.reduce((sum, node) => sum + node.in_flight, 0);
  const up = status.nodes.filter((node) => node.state === "up").length;
  setFacts(byId("tiles"), [
    ["Nodes up", `${up} of ${status.nodes.length}`],
    ["Requests/s", rate(rates.requests_per_s)],
    ["Hit ratio of the farm", percent(rates.hit_ratio), hitNote(rates)],
    ["Bytes/s", bytes(rates.bytes_per_s)],
    ["Half below (p50)", ms(rates.p50_ms)],
    ["99 % below (p99)", ms(rates.p99_ms)],
    ["Errors/s", rate(rates.errors_per_s)],
    ["In flight", count(flying)],
    ["Around the farm/s", rate(rates.bypassed_per_s)],
    ["Refused/s", rate(rates.refused_per_s)],
    ["Requests in all", count(status.farm.requests)],
    ["Hits in all", count(status.farm.hits)],
    ["Bytes in all", bytes(status.farm.bytes_out)],
  ]);
}

// Of the requests that went to nodes: of those while we watched, or since the start when we have just begun.
function requestShares() {
  const [first, last] = [state.statuses[0], state.statuses.at(-1)];
  const before = new Map(first.nodes.map((node) => [node.name, node.counters.requests]));
  let gained = new Map(last.nodes.map((node) => [node.name, Math.max(0, node.counters.requests - (before.get(node.name) ?? 0))]));
  let sum = [...gained.values()].reduce((a, b) => a + b, 0);
  const isWindow = last.now - first.now >= 5 && sum > 0;
  if (!isWindow) {
    gained = new Map(last.nodes.map((node) => [node.name, node.counters.requests]));
    sum = [...gained.values()].reduce((a, b) => a + b, 0);
  }
  setText(byId("share-window"), isWindow ? `in the last ${seconds(Math.round(last.now - first.now))}` : "since the start");
  return new Map([...gained].map(([name, value]) => [name, sum ? value / sum : null]));
}

function showStrips(status, shares) {
  const colours = new Map(status.nodes.map((node, at) => [node.name, at % 8]));
  const strip = (id, share) => {
    const shown = status.nodes.filter((node) => share(node) > 0);
    const place = byId(id);
    shown.forEach((node, at) => {
      const part = place.children[at] ?? place.appendChild(element("div", {}, element("span")));
      part.className = `part colour-${colours.get(node.name)}`;
      part.style.flexGrow = share(node);
      part.title = visible(`${node.name}: ${percent(share(node))}`);
      const label = `${node.name} ${percent(share(node))}`;
      setText(part.firstChild, share(node) * place.clientWidth > 7 * label.length + 16 ? label : "");
    });
    [...place.children].slice(shown.length).forEach((part) => part.remove());
    const most = [...shown].sort((a, b) => share(b) - share(a));
    const words = most.slice(0, 10).map((node) => `${node.name} ${percent(share(node))}`);
    setText(byId(`${id}-text`), words.join(", ") + (most.length > 10 ? ` and ${most.length - 10} more: see the table of nodes` : "") || "none");
    place.classList.toggle("empty", !shown.length);
  };
  strip("strip-keys", (node) => node.key_share);
  strip("strip-requests", (node) => shares.get(node.name) ?? 0);
  // where keys have moved since, requests were counted of other keys
  const keysThen = new Map(state.statuses[0].nodes.map((node) => [node.name, node.key_share]));
  const isSteady = status.nodes.every((node) => keysThen.get(node.name) === node.key_share);
  const factor = (node) => (isSteady && node.key_share > 0 ? (shares.get(node.name) ?? 0) / node.key_share : 0);
  const busiest = [...status.nodes].sort((a, b) => factor(b) - factor(a))[0];
  const isUneven = busiest && factor(busiest) >= UNEVEN;
  setText(byId("strip-hint"), isUneven ? `${busiest.name} gets ${rate(factor(busiest))} times the requests that its keys would have: hot URLs, see below.` : "");
}

function showChartChoice(status) {
  const choice = byId("chart-of");
  const names = status.nodes.map((node) => node.name);
  if ([...choice.options].slice(1).map((option) => option.value).join("\n") === names.join("\n")) return;
  while (choice.options.length > 1) choice.options[1].remove();
  choice.append(...names.map((name) => element("option", { value: name, text: name })));
  if (!names.includes(state.chartOf)) chooseChart("");
  choice.value = state.chartOf;
}

async function chooseChart(name) {
  state.chartOf = name;
  byId("chart-of").value = name;
  await refreshSlow();
}

async function refreshSlow() {
  try {
    await askSlow();
  } catch (error) {
    missed(error);
  }
}

const yes = (value) => (value ? "yes" : "no");

function showPeers({ icp, index, digest, counters }) {
  const answered = ["hit", "miss", "miss_nofetch", "denied", "err"].map((key) => `${count(counters[`icp_${key}`])} ${key.replace("_", " ")}`);
  setFacts(byId("peer-list"), [
    ["ICP", `${icp.mode}, ${icp.serving ? "serving" : "not serving"}; answers: ${answered.join(", ")}`],
    ["HTCP", `${count(counters.htcp_hit)} hit, ${count(counters.htcp_miss)} miss, ${count(counters.htcp_cleared)} cleared`],
    ["Index", `${count(index.keys)} keys of at most ${count(index.keys_limit)}${index.problem ? `; ${index.problem}` : ""}`],
    ["Digest", digest?.built_at ? `${count(digest.keys)} keys, ${bytes(digest.size_bytes)}, ${percent(digest.fill)} full, built at ${clock(digest.built_at)}` : "not built yet"],
    ["False positives", percent(digest?.false_positives)],
    ["Digest's problem", digest?.problem || "none"],
    ["Purges", `${count(counters.purge_purges)}, waiting for nodes: ${count(counters.purge_waiting)}`],
    ["Misrouted", `${count(counters.misrouted)}: missed at the owner, held elsewhere`],
  ]);
}

function showDirector(status) {
  setFacts(byId("director-list"), [
    ["Version", `${status.version} (${Object.entries(status.versions).map((pair) => pair.join(" ")).join(", ")})`],
    ["State", `${status.state} for ${seconds(status.uptime_s)}`],
    ["Configuration", `${status.config.path}, ${status.config.digest}, loaded at ${clock(status.config.loaded_at)}, ${count(status.reloads)} reloads`],
    ["Owners", `${status.hash.algorithm}, table ${status.hash.table || NONE}, epoch ${status.epoch}`],
    ["Listens", status.listeners.map((listener) => `${listener.kind} ${listener.address}`).join(", ")],
    ["Farm can be changed", `with the token${api.token.get() ? ", which this tab has" : ""}`],
  ]);
  workers.show(status.workers.map((worker) => [worker.number, worker]));
  byId("forget").hidden = !api.token.get();
}

function showEvents() {
  const least = byId("events-level").value;
  const shown = state.events.filter((event) => !least || event.level !== "info").reverse();
  const list = byId("event-list");
  shown.forEach((event, at) => {
    const row = list.children[at] ?? list.appendChild(element("li", {}, element("time"), element("span", { class: "level" }), element("span", { class: "what" })));
    row.dataset.level = { error: "bad", warning: "warn" }[event.level] ?? "info";
    row.children[0].dateTime = new Date(event.at * 1000).toISOString();
    setText(row.children[0], clock(event.at));
    setText(row.children[1], event.level);
    setText(row.children[2], event.text);
  });
  [...list.children].slice(shown.length).forEach((row) => row.remove());
}

function showAge() {
  if (state.answeredAt == null) return;
  const age = (performance.now() - state.answeredAt) / 1000;
  setText(byId("age"), age < pollMs() / 1000 + 2 ? "Live" : `Figures are ${seconds(Math.round(age))} old`);
  document.body.classList.toggle("stale", age >= silentAfter());
}

// -- explaining

byId("explain-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const query = new URLSearchParams({ url: byId("explain-url").value });
  query.set("method", byId("explain-method").value);
  query.set("client", byId("explain-client").value);
  for (const line of byId("explain-fields").value.split("\n")) if (line.trim()) query.append("header", line.trim());
  try {
    showExplanation(await api.read(`/api/v1/explain?${query}`));
  } catch (error) {
    byId("explanation").replaceChildren(element("p", { class: "refusal", text: error.status ? error.message : "The director does not answer" }));
  }
});

// What a [[rule]] says of a request, a [[tcp]] of a connection.
function ruleFacts(found) {
  const facts = [[found.rule_in === "tcp" ? "Service" : "Rule", found.rule], ["Pool", found.pool || "the whole farm"], ["Scheduler", found.scheduler]];
  if (found.affinity) facts.push(["Group", `${found.affinity}: ${found.template || "this client has no template there"}`]);
  if (found.cookies.length) facts.push(["Cookies", found.cookies.join(", ")]);
  return facts;
}

function showExplanation(found) {
  const facts = [
    ["Owner", found.owner || "none"],
    ["Why", found.rule_in === "bypass" ? `${found.why}, by the rule ${found.rule} of [bypass]` : found.why],
    ...(["rule", "tcp"].includes(found.rule_in) ? ruleFacts(found) : []),
    ["Kind", found.reason ? `${found.kind}: ${found.reason}${found.status ? ` (${found.status})` : ""}` : found.kind],
    ["Key", found.key || NONE],
    ...(found.rule_in === "tcp" ? [] : [["Held by", found.holders.join(", ") || "no node, as far as the index knows"]]),
    ["Asked in turn", found.to.join(", then ") || NONE],
  ];
  const list = element("dl", { class: "facts" });
  setFacts(list, facts);
  const parts = [element("p", { class: "goes", text: `${found.method || "A connection to"} ${found.url} goes ${found.goes}.` }), list];
  if (found.nodes.length) {
    const head = ["Place", "Node", "State", "Weight", "Turn"].map((title) => element("th", { scope: "col", text: title }));
    const rows = found.nodes.slice(0, 8).map((node) =>
      element("tr", {}, ...[node.place || NONE, node.name, node.state, node.weight, node.tried || "not asked"].map((value, at) => element(at === 1 ? "th" : "td", { text: value, scope: at === 1 ? "row" : null }))),
    );
    parts.push(element("table", { "aria-label": "Failover order" }, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)));
    if (found.nodes.length > 8) parts.push(element("p", { class: "hint", text: `and ${found.nodes.length - 8} more nodes after these` }));
  }
  if (found.sent) parts.push(element("details", {}, element("summary", { text: "What the node is sent" }), ...found.sent.split("\r\n").filter(Boolean).map((line) => element("code", { class: "line", text: line }))));
  byId("explanation").replaceChildren(...parts);
}

// -- steering

let steered = null;

function openSteer(name, wanted) {
  const nodes = state.statuses.at(-1).nodes;
  const node = nodes.find((one) => one.name === name);
  if (!node) return;
  const others = nodes.filter((one) => one.name !== name && one.state === "up");
  steered = { name, wanted };
  const isDrain = wanted === "drain";
  setText(byId("steer-head"), isDrain ? `Drain ${name}?` : `Undrain ${name}?`);
  const what = isDrain
    ? `Its keys (${percent(node.key_share)} of all) go to their next owners; ${count(node.in_flight)} requests in flight are finished.` +
      (others.length ? "" : " No other node is up: as the last one it keeps its keys.")
    : "It gets its own keys back at once; no others move.";
  setText(byId("steer-text"), what);
  setText(byId("steer-do"), isDrain ? "Drain" : "Undrain");
  setText(byId("steer-error"), "");
  byId("steer-token").value = api.token.get();
  byId("steer").showModal();
  (api.token.get() ? byId("steer-cancel") : byId("steer-token")).focus();
}

byId("steer-cancel").addEventListener("click", () => byId("steer").close());

byId("steer-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = byId("steer-token").value.trim();
  byId("steer-do").disabled = true;
  try {
    await api.change(`/api/v1/nodes/${encodeURIComponent(steered.name)}`, { state: steered.wanted }, given);
    api.token.set(given);
    byId("steer").close();
    kick();
  } catch (error) {
    if (error.status === 401) api.token.set("");
    const isMissing = error.status === 401 && !given; // with another status the director says how to make one
    if (isMissing) setText(byId("steer-error"), "Give the token: changing anything needs it.");
    else setText(byId("steer-error"), error.status ? `Refused: ${error.message}` : "The director does not answer: nothing is known of what came of it");
    byId("steer-token").focus();
  } finally {
    byId("steer-do").disabled = false;
  }
});

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.useTokenForReading(byId("token-read").value.trim());
  byId("token-read").value = "";
  endStream();
  kick();
});

byId("forget").addEventListener("click", () => {
  api.useTokenForReading("");
  byId("forget").hidden = true;
  byId("steer-token").value = "";
  kick();
});

for (const id of ["hot-what", "hot-by"]) byId(id).addEventListener("change", () => state.hot && hotTable.show(state.hot));
byId("hot-minutes").addEventListener("change", refreshSlow);
byId("chart-of").addEventListener("change", (event) => chooseChart(event.target.value));
byId("events-level").addEventListener("change", showEvents);
setInterval(() => {
  showAge();
  if (state.statuses.length) showVerdict();
}, 1000);
follow();
listen();
