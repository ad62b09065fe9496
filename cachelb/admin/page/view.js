// Values to text, text to elements.  Everything that the API tells is somebody's text: it becomes text nodes, never markup.

export const NONE = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const one = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const count = (value) => (value == null ? NONE : whole.format(value));
export const rate = (value) => (value == null ? NONE : Math.abs(value) < 10 ? one.format(value) : whole.format(value));
export const percent = (value) => (value == null ? NONE : `${(Math.abs(value) < 0.1 ? one : whole).format(value * 100)} %`);

export function bytes(value) {
  if (value == null) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (Math.abs(value) >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${rate(value)} ${units[unit]}`;
}

export function ms(value) {
  if (value == null) return NONE;
  return value < 1000 ? `${rate(value)} ms` : seconds(value / 1000);
}

export function seconds(value) {
  if (value == null) return NONE;
  if (value < 60) return `${rate(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min`;
  if (value < 172800) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} days`;
}

export const clock = (wall) => new Date(wall * 1000).toLocaleTimeString("en-GB");

// Controls and marks that change the direction or hide are written out: nobody's URL rearranges what stands beside it.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\u3164\ufeff\ufff9-\ufffb\ud800-\udfff]|\u{e0000}-\u{e007f}/gu;
export const visible = (text) =>
  String(text ?? "").replace(HIDDEN, (char) => `\\u${char.codePointAt(0).toString(16).padStart(4, "0")}`);

// element("td", { class: "x", text: "..." }, child, ...): attributes by name; `text` becomes a text node.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") made.textContent = visible(value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export const byId = (id) => document.getElementById(id);

// Untouched where nothing has changed: selections and screen readers stay where they are.
export function setText(target, text) {
  const wanted = visible(text);
  if (target.textContent !== wanted) target.textContent = wanted;
}

// A list of facts: [[name, value, note], ...], strings; most have no note.
export function setFacts(list, facts) {
  const known = [...list.children];
  facts.forEach(([name, value, note], at) => {
    const row = known[at] ?? list.appendChild(element("div", {}, element("dt"), element("dd")));
    setText(row.children[0], name);
    setText(row.children[1], value);
    if (note) setText(row.children[2] ?? row.appendChild(element("dd", { class: "note" })), note);
    else row.children[2]?.remove();
  });
  known.slice(facts.length).forEach((row) => row.remove());
}
