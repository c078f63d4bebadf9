// Elements, formats and requests. Names and texts of users are set as text or attributes, never
// as HTML.

const SVG = "http://www.w3.org/2000/svg";

export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function s(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "style") Object.assign(element.style, value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== "" && c !== false));
  return element;
}

export const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

export function bytes(size) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit && size < 10 ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

export function ago(time) {
  if (!time) return "";
  const seconds = Math.max(0, (Date.now() - new Date(time)) / 1000);
  if (!Number.isFinite(seconds)) return String(time);
  if (seconds < 45) return "just now";
  for (const [length, word, limit] of [[60, "minute", 3600], [3600, "hour", 86400], [86400, "day", 30 * 86400]]) {
    if (seconds < limit) return `${plural(Math.max(1, Math.round(seconds / length)), word)} ago`;
  }
  return new Date(time).toLocaleDateString();
}

export function duration(from, to) {
  const seconds = Math.round((new Date(to || Date.now()) - new Date(from)) / 1000);
  if (!Number.isFinite(seconds) || seconds < 0) return "";
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${seconds} s`;
  return minutes < 60 ? `${minutes} min ${seconds % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function value(number) {
  if (typeof number !== "number") return typeof number === "object" ? JSON.stringify(number) : String(number);
  return Number.isInteger(number) ? number.toLocaleString("en") : number.toFixed(Math.abs(number) < 10 ? 3 : 1);
}

// Shares of 0 and 1 have decimals like the other shares; an epoch has none.
export const share = (name, number) => (Number.isInteger(number) && number <= 1 && name !== "epoch" ? number.toFixed(3) : value(number));

export async function get(path, options = {}) {
  const answer = await fetch(path, { cache: "no-store", ...options });
  if (!answer.ok) {
    const content = await answer.json().catch(() => ({}));
    const error = new Error(content.error || `the instance responded with status ${answer.status}`);
    error.status = answer.status;
    throw error;
  }
  return answer;
}

export const json = async (path) => (await get(path)).json();
