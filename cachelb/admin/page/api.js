// The admin API: one door for requests, and the token, which is kept for this tab only.

const KEY = "cachelb-token";
const TIMEOUT_MS = 8000;

export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

// Reading from loopback needs no token, and a wrong one would be refused: it is sent only once the director has asked for it.
let readsWithToken = false;

function fields(changes, given) {
  const value = changes ? given : readsWithToken ? token.get() : "";
  // What cannot stand in a field is no token; fetch would refuse it in a way that tells nobody anything.
  return value ? { Authorization: `Bearer ${value.replace(/[^\x21-\x7e]/g, "?")}` } : {};
}

async function failed(response) {
  let detail = `HTTP status ${response.status}`;
  try {
    const problem = await response.json();
    detail = [problem.detail || problem.title || detail, ...(problem.errors ?? []).map((error) => error.detail)].join("; ");
  } catch {
    // no problem document: somebody else's answer
  }
  return new Problem(response.status, detail);
}

export async function read(path) {
  const ask = () => fetch(path, { headers: { Accept: "application/json", ...fields(false) }, signal: AbortSignal.timeout(TIMEOUT_MS) });
  let response = await ask();
  if (response.status === 401 && !readsWithToken && token.get()) {
    readsWithToken = true;
    response = await ask();
  }
  if (!response.ok) throw await failed(response);
  return response.json();
}

export function useTokenForReading(value) {
  token.set(value);
  readsWithToken = Boolean(value);
}

// Throws Problem where the director refuses, another error where it cannot be reached.
export async function change(path, document, given) {
  const response = await fetch(path, {
    method: "PUT",
    headers: { "Content-Type": "application/json", ...fields(true, given) },
    body: JSON.stringify(document),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (!response.ok) throw await failed(response);
  return response.json();
}

// Server-sent events by fetch: EventSource can send no token.  Returns when the stream ends; throws when it breaks.
export async function stream(path, lastId, signal, quietMs, take) {
  const ending = new AbortController();
  const end = () => ending.abort();
  signal.addEventListener("abort", end);
  let timer = setTimeout(end, quietMs);
  try {
    const response = await fetch(path, {
      headers: { Accept: "text/event-stream", "Last-Event-ID": String(lastId), ...fields(false) },
      signal: ending.signal,
    });
    if (!response.ok) throw await failed(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(end, quietMs);
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
        if (data) take(JSON.parse(data));
      }
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
  }
}
