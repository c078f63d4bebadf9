// Entry point: shows the view of the address and polls the instance.

import { duration, h, json } from "./dom.js";
import { viewer } from "./viewer.js";
import { experiment, experiments, overview, project, projects, tasks } from "./views.js";

const POLL_MS = 1000;
const REFRESH_MS = 4000; // minimum, while an import fills a project

const main = document.getElementById("main");
const connection = document.getElementById("connection");

let current = { update: () => {}, stamps: [], seen: {} };
let last = { tasks: [], stamps: {} };
let refreshed = 0; // time of the last build of the view
let shows = 0; // number of the current view: responses for earlier views are ignored

const VIEWS = [
  [/^\/?$/, "overview", overview],
  [/^\/projects$/, "projects", projects],
  [/^\/projects\/(\d+)$/, "projects", project],
  [/^\/tasks$/, "tasks", tasks],
  [/^\/experiments$/, "experiments", experiments],
  [/^\/experiments\/(\d+)$/, "experiments", experiment],
];

async function show({ isRefresh = false } = {}) {
  const [path, query = ""] = location.hash.slice(1).split("?");
  const [pattern, name, view] = VIEWS.find(([p]) => p.test(path)) || VIEWS[0];
  const number = ++shows;
  const seen = last.stamps; // before the view's requests: later changes make it stale
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!isRefresh && viewer.open) viewer.close();
  let built;
  try {
    built = await view(new URLSearchParams(query), ...(pattern.exec(path) || []).slice(1));
  } catch (error) {
    if (isRefresh) return; // keep the old content
    built = { title: "Not found", content: [h("div", { class: "card empty" }, h("h3", {}, "This page is not available"), h("p", { class: "quiet" }, error.message), h("a", { href: "#/" }, "Back to the overview"))] };
  }
  if (number !== shows) return;
  document.title = `${built.title} · Local Supervisely`;
  current = { update: () => {}, stamps: [], ...built, seen };
  refreshed = Date.now();
  main.replaceChildren(...current.content.filter(Boolean));
  current.update(last);
  if (!isRefresh) window.scrollTo(0, 0);
}

async function fetchLive() {
  last = await json("/page/api/live");
}

async function poll() {
  try {
    await fetchLive();
    connection.textContent = "";
    const isStale = current.stamps.some((name) => last.stamps[name] !== current.seen[name]);
    if (isStale && Date.now() - refreshed > REFRESH_MS) await show({ isRefresh: true });
    else current.update(last);
    for (const element of document.querySelectorAll("[data-since]")) element.textContent = `running for ${duration(element.dataset.since)}`;
  } catch (error) {
    connection.textContent = error.status === 401 ? "signed out: open the address with the token" : "the instance does not respond";
  }
  setTimeout(poll, document.hidden ? 5 * POLL_MS : POLL_MS);
}

window.addEventListener("hashchange", () => show());
fetchLive().catch(() => {}).then(() => show()).then(poll);
