// Is it well, and if not, what is wrong and where?  Pure: what is known comes in, sentences go out.
//
// A problem: level (bad, warn, note), title (stands still while its figures move, for it is read aloud), detail, node ("" for the farm),
// hotBy (requests, bytes or around where the list of what is hot tells more, else "").

import { bytes, count, ms, percent, rate, seconds } from "./view.js";

const SLOW_FACTOR = 3; // times the others' median
const SLOW_MS = 50; // and at least so much more
const FEW_PER_S = 1; // below that a node's rates say nothing
const ERRORS_WARN = 0.01;
const ERRORS_BAD = 0.05;
const HOT_SHARE = 0.25;
const HOT_REQUESTS = 200; // in the window
const BYPASS_SHARE = 0.5;
const BYPASS_NOTED = 0.05; // above that the farm's hit ratio is not that of all requests
const REFUSED_SHARE = 0.1;
const CAUSE_SHARE = 0.1; // of the requests around the farm: lesser causes explain nothing
const HITS_LOST = 0.15;
const LAG_MS = 100;

// The farm's counters bypassed_*, in words.
const BYPASS_CAUSES = {
  learned: "earlier answers could not be cached",
  authorization: "Authorization",
  no_store: "Cache-Control: no-store",
  method: "methods other than GET and HEAD",
  rule: "a rule of [bypass]",
  farm_dead: "no node was up",
  unverified: "intercepted, and their Host leads elsewhere",
  upgrade: "tunnels and upgrades",
};

const LEVELS = ["bad", "warn", "note"];

export function median(values) {
  const known = values.filter((value) => value != null).sort((a, b) => a - b);
  return known.length ? known[Math.floor((known.length - 1) / 2)] : null;
}

const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : 0);

// statuses: the last few, the newest last.  hot (of the last minute), history: the documents, or null.  silence_s: since the last answer; from
// silent_after_s on what is shown is history.
export function judge({ statuses, hot, history, silence_s, silent_after_s }) {
  const status = statuses.at(-1);
  if (!status) return { level: "wait", headline: "Asking the director", problems: [] };
  const problems = [];
  const say = (level, title, detail = "", node = "", hotBy = "") => problems.push({ level, title, detail, node, hotBy });
  if (silence_s >= silent_after_s) say("bad", "The director does not answer", `for ${seconds(silence_s)}; all below is from before`);
  judgeDirector(statuses, say);
  judgeStates(status, say);
  judgeWork(statuses, say);
  const isWell = (name) => !problems.some((problem) => problem.node === name && problem.level !== "note");
  judgeFarm(statuses, hot, history, say, isWell);
  problems.sort((a, b) => LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level));
  const wrong = problems.filter((problem) => problem.level !== "note");
  const remarks = problems.length - wrong.length;
  const level = problems[0]?.level ?? "ok";
  let headline = "All well";
  if (wrong.length) headline = wrong.length === 1 ? `1 problem: ${wrong[0].title}` : `${wrong.length} problems`;
  else if (remarks) headline = remarks === 1 ? "All well, 1 remark" : `All well, ${remarks} remarks`;
  return { level, headline, problems };
}

function judgeDirector(statuses, say) {
  const status = statuses.at(-1);
  if (status.state !== "running") say("warn", `The director is ${status.state}`, "");
  if (status.config.problems.length) say("warn", "The last reload was refused", status.config.problems.join("; "));
  const gone = status.workers.filter((worker) => !worker.pid);
  if (gone.length) say("bad", gone.length === status.workers.length ? "No worker runs" : "A worker is missing", `${gone.length} of ${status.workers.length}`);
  const wasLate = (number) => statuses.every(({ workers }) => (workers.find((one) => one.number === number)?.loop_lag_ms ?? 0) > LAG_MS);
  const late = status.workers.filter((worker) => wasLate(worker.number)); // all the time: one late tick is no news
  if (late.length) say("warn", "Workers are late", late.map((worker) => `worker ${worker.number} by ${ms(worker.loop_lag_ms)}`).join(", "));
}

function judgeStates(status, say) {
  const up = status.nodes.filter((node) => node.state === "up" && node.weight > 0);
  if (status.nodes.length && !up.length) say("bad", "No node is up", "requests go around the farm or are refused");
  for (const node of status.nodes) {
    if (node.state === "dead") {
      const since = node.since_s == null ? "" : `for ${seconds(node.since_s)}: `;
      say("bad", `${node.name} is dead`, `${since}${node.cause}`, node.name);
    } else if (node.state !== "up") {
      const drain = node.drain;
      const how = !drain ? "" : drain.done ? "nothing is in flight: it can be stopped" : `${count(drain.in_flight)} in flight` +
        (drain.keys_moved < 1 ? `, ${percent(drain.keys_moved)} of its keys moved` : "") +
        (drain.eta_s == null ? "" : `, done in about ${seconds(drain.eta_s)}`);
      say("note", `${node.name} is ${node.state === "drain" ? (drain?.done ? "drained" : "draining") : "down"}`, how, node.name);
    } else if (node.share < 1) {
      say("note", `${node.name} returns slowly`, `it takes ${percent(node.share)} of its own keys`, node.name);
    }
  }
}

// How nodes answer: over the last few answers of the API, each over a second or so; one slow second is no slow node.
function judgeWork(statuses, say) {
  const of = new Map();
  for (const status of statuses) {
    for (const node of status.nodes) {
      if (!of.has(node.name)) of.set(node.name, []);
      of.get(node.name).push(node.rates);
    }
  }
  const up = statuses.at(-1).nodes.filter((node) => node.state === "up");
  const busy = up.filter((node) => mean(of.get(node.name).map((rates) => rates.requests_per_s)) >= FEW_PER_S);
  const latency = new Map(busy.map((node) => [node.name, median(of.get(node.name).map((rates) => rates.first_byte_p50_ms))]));
  const sorted = [...latency.values()].filter((value) => value != null).sort((a, b) => a - b);
  for (const node of busy) {
    const mine = latency.get(node.name);
    if (mine != null && sorted.length > 1) {
      const at = sorted.indexOf(mine);
      const others = median([...sorted.slice(0, at), ...sorted.slice(at + 1)]);
      if (mine > SLOW_FACTOR * others && mine > others + SLOW_MS) {
        say("warn", `${node.name} is slow`, `half of its answers begin after ${ms(mine)}, those of the others after ${ms(others)}`, node.name);
      }
    }
  }
  const clientErrors = mean(statuses.map((status) => status.rates.errors_per_s));
  const seen = clientErrors
    ? `clients of the farm got ${rate(clientErrors)} errors/s`
    : "all were answered by another node or on another try: no client saw an error";
  for (const node of up) {
    const rates = of.get(node.name);
    const errors = mean(rates.map((rate_) => rate_.errors_per_s));
    const requests = mean(rates.map((rate_) => rate_.requests_per_s));
    const part = errors / Math.max(requests, errors, 1);
    if (errors > 0 && part >= ERRORS_WARN) {
      const detail = `${rate(errors)} errors/s of ${rate(requests)} requests/s (${causes(node)}); ${seen}`;
      say(part >= ERRORS_BAD ? "bad" : "warn", `${node.name} fails`, detail, node.name);
    }
  }
}

function causes(node) {
  const names = { connect_failures: "connects failed", resets: "resets", timeouts: "timeouts", bad_responses: "bad answers" };
  const found = Object.entries(names).filter(([key]) => node.counters[key]);
  return `since the start: ${found.map(([key, name]) => `${count(node.counters[key])} ${name}`).join(", ") || "none"}`;
}

function judgeFarm(statuses, hot, history, say, isWell) {
  const over = (key) => mean(statuses.map((status) => status.rates[key]));
  const requests = over("requests_per_s");
  const errors = over("errors_per_s");
  if (errors > 0 && errors / Math.max(requests, 1) >= ERRORS_WARN) {
    const bad = errors / Math.max(requests, 1) >= ERRORS_BAD;
    say(bad ? "bad" : "warn", "Clients get errors", `${rate(errors)}/s, ${percent(errors / Math.max(requests, errors))} of requests`);
  }
  if (requests >= FEW_PER_S) {
    if (over("bypassed_per_s") / requests >= BYPASS_SHARE) {
      say("warn", "Most requests go around the farm", `${percent(over("bypassed_per_s") / requests)}: ${bypassCauses(statuses)}${bypassPlace(hot)}`, "", "around");
    }
    if (over("refused_per_s") / requests >= REFUSED_SHARE) {
      say("warn", "Many requests are refused", `${percent(over("refused_per_s") / requests)}; the events say why`);
    }
  }
  const top = hot?.urls_by_requests[0];
  if (top && hot.requests >= HOT_REQUESTS && top.requests_share >= HOT_SHARE) {
    const hits = top.hit_ratio == null ? "" : `, hit ratio ${percent(top.hit_ratio)}`;
    const where = top.owner ? `, all at ${top.owner}` : "";
    const rest = top.owner && isWell(top.owner) ? "; nothing to do while its owner is well" : "";
    const detail = `${top.name}: ${percent(top.requests_share)} of requests in ${seconds(hot.window_s)}${hits}${where}${rest}`;
    say("note", "One URL is hot", detail, top.owner, "requests");
  }
  const big = hot?.urls_by_bytes[0];
  if (big && big.name !== top?.name && hot.requests >= HOT_REQUESTS && big.bytes_share >= 2 * HOT_SHARE) {
    say("note", "One URL fills the wire", `${big.name}: ${percent(big.bytes_share)} of bytes, ${bytes(big.bytes)}`, big.owner, "bytes");
  }
  const ratios = (history?.farm.hit_ratio ?? []).filter((value) => value != null);
  if (ratios.length >= 24) {
    const now = mean(ratios.slice(-4));
    const before = median(ratios.slice(0, -12));
    if (before - now >= HITS_LOST) say("warn", "The hit ratio has dropped", `from ${percent(before)} to ${percent(now)}`);
  }
}

// What a hit ratio is of.
export function hitNote(rates) {
  const all = rates.requests_per_s;
  if (!all || rates.bypassed_per_s / all <= BYPASS_NOTED) return "of what nodes answered";
  return `of what nodes answered; of all requests ${percent(Math.min(1, rates.hits_per_s / all))}`; // an answer may come a second after its request
}

// Why requests went around, from what the counters gained while we watched (or since the start).
function bypassCauses(statuses) {
  const now = statuses.at(-1).farm;
  const before = statuses.length > 1 ? statuses[0].farm : {};
  const gained = Object.keys(now)
    .filter((key) => key.startsWith("bypassed_"))
    .map((key) => [key.slice(9), now[key] - (before[key] ?? 0)])
    .sort((a, b) => b[1] - a[1]);
  const least = CAUSE_SHARE * gained.reduce((sum, [, value]) => sum + value, 0);
  const causes = gained.filter(([, value]) => value > 0 && value >= least);
  return causes.map(([name]) => BYPASS_CAUSES[name] ?? name.replaceAll("_", " ")).join(", ") || "the counters do not say why";
}

// Which part of which site most of them are for; without a share, which would be of another time.
function bypassPlace(hot) {
  const top = hot?.around_by_requests?.[0];
  return top ? `; the most for ${top.name}` : "";
}
