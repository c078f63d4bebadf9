/* Texts of the SDK with formatting, in which names of users stay text.
 *
 * The SDK does not escape the names in its HTML. Any other tag than formatting is shown as text, and
 * of attributes only those remain that cannot run or load anything. */

const FORMATTING = /<(?!\/?(?:a|b|br|code|div|em|i|li|p|span|strong|u|ul)(?:\s[^<>]*)?\/?>)/gi;
const KEPT = new Set(["class", "href", "style", "target"]);
const STYLES = ["color", "font-size", "margin-right"];

function parse(message) {
  const html = String(message ?? "").replace(FORMATTING, "&lt;");
  return new DOMParser().parseFromString(html, "text/html").body;
}

/** Whether a link leads to this app, its instance or Supervisely. */
function isOwnLink(address) {
  const { instance } = document.documentElement.dataset;
  const url = URL.canParse(address, document.baseURI) ? new URL(address, document.baseURI) : null;
  if (!/^https?:$/.test(url?.protocol)) return false;
  const hosts = [document.baseURI, instance].filter(Boolean).map((each) => new URL(each).host);
  return hosts.includes(url.host) || /^([\w-]+\.)*supervisely\.com$/.test(url.host);
}

function clean(element) {
  const { style } = element;
  const styles = STYLES.map((name) => [name, style.getPropertyValue(name)]);
  for (const { name } of [...element.attributes]) if (!KEPT.has(name)) element.removeAttribute(name);
  if (element.hasAttribute("href") && !isOwnLink(element.getAttribute("href"))) element.removeAttribute("href");
  element.removeAttribute("style");
  for (const [name, value] of styles) if (value) style.setProperty(name, value);
}

/** Nodes for an HTML message. */
export function formatted(message) {
  const body = parse(message);
  body.querySelectorAll("*").forEach(clean);
  return [...body.childNodes];
}

/** Text of an HTML message. */
export function plain(message) {
  const body = parse(message);
  body.querySelectorAll("br").forEach((each) => each.replaceWith("\n"));
  return body.textContent;
}

function show(element, { value, oldValue }) {
  if (value !== oldValue || !element.firstChild) element.replaceChildren(...formatted(value));
}

/** The directive `v-markup`, which replaces `v-html` in the SDK's templates. */
export const markup = { bind: show, update: show };
