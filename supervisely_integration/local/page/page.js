// The page of an instance. Everything that people or data sets wrote goes in as text, through
// textContent or attributes, never as HTML.

const POLL_MS = 1000;
const REFRESH_MS = 4000; // not more often, while an import fills a project
const SHOWN_ON_OVERVIEW = 6;
const SHOWN_ON_CARD = 5; // classes of a project
const MOST_TEXT_BYTES = 200_000;
const SVG = "http://www.w3.org/2000/svg";

const main = document.getElementById("main");
const viewer = document.getElementById("viewer");
const connection = document.getElementById("connection");

let current = { update: () => {}, stamps: [], seen: {} };
let last = { tasks: [], stamps: {} };
let refreshed = 0; // when the view was last built
let shows = 0; // number of the view shown: answers for an earlier one come too late

// Building elements

function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function s(name, attributes = {}, ...children) {
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

// Words

const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

function bytes(size) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit && size < 10 ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

function ago(time) {
  if (!time) return "";
  const seconds = Math.max(0, (Date.now() - new Date(time)) / 1000);
  if (!Number.isFinite(seconds)) return String(time);
  if (seconds < 45) return "just now";
  for (const [length, word, limit] of [[60, "minute", 3600], [3600, "hour", 86400], [86400, "day", 30 * 86400]]) {
    if (seconds < limit) return `${plural(Math.max(1, Math.round(seconds / length)), word)} ago`;
  }
  return new Date(time).toLocaleDateString();
}

function duration(from, to) {
  const seconds = Math.round((new Date(to || Date.now()) - new Date(from)) / 1000);
  if (!Number.isFinite(seconds) || seconds < 0) return "";
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${seconds} s`;
  return minutes < 60 ? `${minutes} min ${seconds % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function value(number) {
  if (typeof number !== "number") return typeof number === "object" ? JSON.stringify(number) : String(number);
  return Number.isInteger(number) ? number.toLocaleString("en") : number.toFixed(Math.abs(number) < 10 ? 3 : 1);
}

// A share of 1 or 0 has its decimals, beside others; an epoch has none.
const share = (name, number) => (Number.isInteger(number) && number <= 1 && name !== "epoch" ? number.toFixed(3) : value(number));

// Talking to the server

async function get(path, options = {}) {
  const answer = await fetch(path, { cache: "no-store", ...options });
  if (!answer.ok) {
    const content = await answer.json().catch(() => ({}));
    const error = new Error(content.error || `the instance answers ${answer.status}`);
    error.status = answer.status;
    throw error;
  }
  return answer;
}

const json = async (path) => (await get(path)).json();

// Parts

function empty(title, text, command) {
  return h("div", { class: "card empty" }, h("h3", {}, title), h("p", { class: "quiet" }, text),
    command && h("code", {}, command));
}

const NO_PROJECTS = () => empty("No projects yet", "Import one from a folder in Supervisely, COCO, YOLO or Pascal VOC format:",
  "python -m supervisely_integration.local import FOLDER");
const NO_TASKS = () => empty("No tasks yet", "Start a training; its progress is shown here:",
  "python -m supervisely_integration.local train --project NAME");
const NO_EXPERIMENTS = () => empty("No experiments yet",
  "A finished training leaves its checkpoints, metrics and settings here.");

function heading(title, count, more) {
  return h("div", { class: "heading" }, h("h2", {}, title),
    count !== undefined && h("span", { class: "quiet number" }, String(count)),
    more && h("a", { class: "more", href: more }, "Show all"));
}

function chip(item, extra) {
  return h("span", { class: "chip", title: item.title }, h("span", { class: "dot", style: { background: item.colour } }),
    h("span", { class: "name" }, item.title), extra !== undefined && h("span", { class: "quiet number" }, value(extra)));
}

const thumbnail = (image) => h("img", {
  src: `/page/thumbnails/${image.id}?v=${encodeURIComponent(image.version)}`,
  alt: image.name, loading: "lazy", decoding: "async",
});

function projectCard(project) {
  const kind = ["none", "one", "two", "three", "four"][project.covers.length];
  const classes = project.classes.slice(0, SHOWN_ON_CARD);
  const rest = project.numClasses - classes.length;
  return h("a", { class: "card", href: `#/projects/${project.id}` },
    h("div", { class: `covers ${kind}` }, project.covers.length ? project.covers.map(thumbnail) : "no images"),
    h("div", { class: "body" }, h("h3", {}, project.name),
      h("p", { class: "quiet small number" }, `${plural(project.images, "image")} in ${plural(project.datasets, "dataset")}`),
      h("div", { class: "chips" }, classes.map((c) => chip(c)), rest > 0 && h("span", { class: "chip quiet" }, `+${rest}`)),
      h("p", { class: "quiet small" }, `changed ${ago(project.updatedAt)}`)));
}

function taskCard(task) {
  const kind = task.isRunning ? "running" : task.status;
  const times = task.startedAt
    ? (task.isRunning ? h("span", { "data-since": task.startedAt }, `running for ${duration(task.startedAt)}`) : `${ago(task.finishedAt || task.startedAt)}, took ${duration(task.startedAt, task.finishedAt)}`)
    : `created ${ago(task.createdAt)}`;
  return h("article", { class: "card", "data-task": task.id }, h("div", { class: "body" },
    h("div", { class: "title-line" }, h("h3", {}, task.name), h("span", { class: `badge ${kind}` }, task.status)),
    h("p", { class: "quiet small number" }, `task ${task.id}, `, times),
    task.description && h("p", { class: "small" }, task.description),
    task.statusLine && h("p", { class: "small" }, task.statusLine),
    task.bars.map(progressBar),
    task.error && h("p", { class: "problem small" }, task.error),
    task.isRunning && task.address && h("p", {}, h("a", { href: task.address, target: "_blank", rel: "noopener noreferrer" }, "Open the app"))));
}

function progressBar(bar) {
  const percent = `${Math.round(bar.percent)}%`;
  return h("div", { class: "bar", "data-bar": bar.id },
    h("div", { class: "label" }, h("span", {}, bar.message || "Progress"), h("span", { class: "quiet number" }, bar.info ? `${percent}  ${bar.info}` : percent)),
    h("div", { class: "track", role: "progressbar", "aria-valuenow": bar.percent, "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": bar.message },
      h("div", { class: "fill", style: { width: `${bar.percent}%` } })));
}

function showTasks(box, tasks) {
  const seen = JSON.stringify(tasks);
  if (box.dataset.seen === seen) return;
  box.dataset.seen = seen;
  // Bars keep their element, so that they move instead of jumping.
  const before = new Map([...box.querySelectorAll("[data-bar]")].map((e) => [e.dataset.bar, e.querySelector(".fill").style.width]));
  const cards = tasks.map(taskCard);
  box.replaceChildren(...(cards.length ? [h("div", { class: "cards wide" }, cards)] : [NO_TASKS()]));
  for (const element of box.querySelectorAll("[data-bar]")) {
    const inner = element.querySelector(".fill"), now = inner.style.width;
    if (!before.has(element.dataset.bar)) continue;
    inner.style.width = before.get(element.dataset.bar);
    requestAnimationFrame(() => { inner.style.width = now; });
  }
}

function metricsOf(experiment, most = 5) {
  const entries = Object.entries(experiment.metrics).slice(0, most);
  if (!entries.length) return h("p", { class: "quiet small" }, experiment.isReadable ? "no metrics: the training ended before its first evaluation" : "experiment_info.json cannot be read");
  return h("div", { class: "metrics" }, entries.map(([name, number]) =>
    h("div", { class: "metric" }, h("b", {}, share(name, number)), h("span", {}, name))));
}

function experimentCard(experiment) {
  const sizes = experiment.trainSize ? `, ${value(experiment.trainSize)} + ${value(experiment.valSize ?? 0)} images` : "";
  return h("a", { class: "card", href: `#/experiments/${experiment.id}` }, h("div", { class: "body" },
    h("h3", {}, experiment.name),
    h("p", { class: "quiet small" }, `${experiment.model || experiment.framework || "unknown model"}${sizes}`),
    metricsOf(experiment),
    h("p", { class: "quiet small" }, `task ${experiment.taskId ?? "?"}, ${ago(experiment.createdAt)}, ${bytes(experiment.size)}`)));
}

function pager(page, pages, link) {
  if (pages < 2) return null;
  const step = (to, text) => (to < 1 || to > pages
    ? h("button", { class: "button", disabled: true }, text)
    : h("a", { class: "button", href: link(to) }, text));
  return h("nav", { class: "pager", "aria-label": "Pages" }, step(page - 1, "Previous"),
    h("span", { class: "quiet number" }, `page ${page} of ${pages}`), step(page + 1, "Next"));
}

// Views

async function overview() {
  const [projects, experiments] = await Promise.all([json("/page/api/projects"), json("/page/api/experiments")]);
  const tasks = h("div");
  const listed = experiments.experiments;
  return {
    title: "Overview",
    stamps: ["projects", "experiments"],
    content: [
      h("section", {}, heading("Projects", projects.total, projects.total > SHOWN_ON_OVERVIEW ? "#/projects" : null),
        projects.total ? h("div", { class: "cards" }, projects.projects.slice(0, SHOWN_ON_OVERVIEW).map(projectCard)) : NO_PROJECTS()),
      h("section", {}, heading("Tasks", undefined, "#/tasks"), tasks),
      h("section", {}, heading("Experiments", listed.length, listed.length > SHOWN_ON_OVERVIEW ? "#/experiments" : null),
        listed.length ? h("div", { class: "cards wide" }, listed.slice(0, SHOWN_ON_OVERVIEW).map(experimentCard)) : NO_EXPERIMENTS()),
    ],
    update: (state) => {
      const running = state.tasks.filter((t) => t.isRunning);
      showTasks(tasks, running.length ? running : state.tasks.slice(0, 3));
    },
  };
}

async function projects(parameters) {
  const page = Number(parameters.get("page")) || 1;
  const found = await json(`/page/api/projects?page=${page}`);
  return {
    title: "Projects",
    stamps: ["projects"],
    content: [h("section", {}, heading("Projects", found.total),
      found.total ? h("div", { class: "cards" }, found.projects.map(projectCard)) : NO_PROJECTS(),
      pager(page, found.pages, (to) => `#/projects?page=${to}`))],
  };
}

async function project(parameters, id) {
  const page = Number(parameters.get("page")) || 1;
  const dataset = parameters.get("dataset");
  const [found, images] = await Promise.all([
    json(`/page/api/projects/${id}`),
    json(`/page/api/projects/${id}/images?page=${page}${dataset ? `&dataset=${encodeURIComponent(dataset)}` : ""}`),
  ]);
  const link = (set, to) => `#/projects/${id}?${new URLSearchParams({ ...(set ? { dataset: set } : {}), ...(to > 1 ? { page: to } : {}) })}`;
  const set = (entry, text) => h("a", { class: "chip", href: link(entry.id, 1), "aria-current": String(entry.id ?? "") === (dataset ?? "") ? "true" : null },
    h("span", { class: "name" }, text), h("span", { class: "number" }, value(entry.images)));
  return {
    title: found.name,
    stamps: ["projects"],
    content: [
      h("div", { class: "crumbs" }, h("a", { href: "#/projects" }, "Projects")),
      h("div", { class: "heading" }, h("h1", {}, found.name),
        h("span", { class: "quiet number" }, `${plural(found.images, "image")}, ${plural(found.objects, "object")}, id ${found.id}`)),
      found.description && h("p", {}, found.description),
      h("section", { class: "split" },
        h("div", { class: "card panel" }, h("h2", {}, "Datasets"),
          h("div", { class: "chips" }, set({ id: null, images: found.images }, "all"), found.datasetList.map((d) => set(d, d.path)))),
        h("div", { class: "card panel" }, h("h2", {}, "Classes"),
          found.classes.length ? h("div", { class: "chips" }, found.classes.map((c) => chip(c, c.objects))) : h("p", { class: "quiet" }, "no classes"))),
      h("section", {}, heading("Images", images.total),
        images.total ? h("div", { class: "pictures" }, images.images.map((image, index) => pictureCard(image, index, images.images)))
          : empty("No images here", "This dataset is empty."),
        pager(page, images.pages, (to) => link(dataset, to))),
    ],
  };
}

function pictureCard(image, index, all) {
  return h("button", { class: "card picture", type: "button", onclick: () => showImage(all, index) }, thumbnail(image),
    h("span", { class: "body" }, h("span", { class: "name", title: image.name }, image.name),
      h("span", { class: "quiet small number" }, `${image.width}×${image.height}, ${plural(image.objects, "object")}`)));
}

async function tasks() {
  const box = h("div");
  return { title: "Tasks", content: [h("section", {}, heading("Tasks"), box)], update: (state) => showTasks(box, state.tasks) };
}

async function experiments() {
  const found = (await json("/page/api/experiments")).experiments;
  return {
    title: "Experiments",
    stamps: ["experiments"],
    content: [h("section", {}, heading("Experiments", found.length),
      found.length ? h("div", { class: "cards wide" }, found.map(experimentCard)) : NO_EXPERIMENTS())],
  };
}

async function experiment(parameters, id) {
  const found = await json(`/page/api/experiments/${id}`);
  const info = found.info;
  const facts = [
    ["Project", found.projectName === null ? `${found.projectId ?? "?"} (not there any more)` : h("a", { href: `#/projects/${found.projectId}` }, found.projectName)],
    ["Task", found.taskId], ["Model", found.model], ["Task type", info.task_type], ["Images", found.trainSize && `${value(found.trainSize)} to train on, ${value(found.valSize ?? 0)} to validate on`],
    ["Best checkpoint", info.best_checkpoint], ["Device", info.device], ["Finished", info.datetime], ["Folder", h("code", {}, found.folder)],
  ].filter(([, fact]) => fact !== undefined && fact !== null && fact !== "");
  const charts = [
    [["val/AP", "val/AP50"], "Precision by epoch"],
    [["train/loss"], "Training loss by step"],
    [["val/loss"], "Validation loss by epoch"],
  ].map(([names, title]) => [names.filter((n) => (found.curves[n] || []).length > 1), title]).filter(([names]) => names.length);
  return {
    title: found.name,
    stamps: ["experiments"],
    content: [
      h("div", { class: "crumbs" }, h("a", { href: "#/experiments" }, "Experiments")),
      h("div", { class: "heading" }, h("h1", {}, found.name), reportLinks(found.files)),
      h("div", { class: "card panel" }, h("h2", {}, found.metricsFrom === "logs" ? "Metrics of the best epoch" : "Metrics"), metricsOf(found, 40)),
      charts.length > 0 && h("div", { class: "split", style: { marginTop: "18px" } }, charts.map(([names, title]) =>
        h("div", { class: "card panel" }, h("h2", {}, title), chart(names.map((n) => found.curves[n]), names[0].startsWith("val/") ? 1 : 0), h("div", { class: "legend" },
          names.map((n, i) => h("span", {}, h("i", { class: i ? "second" : "" }), n)))))),
      h("div", { class: "split", style: { marginTop: "18px" } },
        h("div", { class: "card panel" }, h("h2", {}, "About"), h("table", {}, facts.map(([name, fact]) => h("tr", {}, h("th", {}, name), h("td", {}, fact instanceof Node ? fact : String(fact)))))),
        h("div", { class: "card panel" }, h("h2", {}, "Parameters"), found.hyperparameters ? h("pre", { class: "text" }, found.hyperparameters) : h("p", { class: "quiet" }, "none were saved"))),
      h("div", { class: "card panel" }, h("h2", {}, `Files (${bytes(found.size)})`), h("table", { class: "files" }, found.files.map(fileRow))),
    ],
  };
}

function reportLinks(files) {
  const known = [["report.html", "Training report"], ["data_report.html", "Data report"]];
  return known.flatMap(([name, text]) => files.filter((file) => file.name === name).map((file) =>
    h("a", { class: "button", href: `/file-storage/${file.id}`, target: "_blank", rel: "noopener" }, text)));
}

function fileRow(file) {
  const shown = file.kind === "binary" ? file.name : h("a", { href: "#", onclick: (event) => { event.preventDefault(); showFile(file); } }, file.name);
  return h("tr", {}, h("td", {}, shown), h("td", { class: "right" }, bytes(file.size)),
    h("td", { class: "right" }, h("a", { class: "button", href: `/file-storage/${file.id}?download=1`, download: file.name.split("/").pop() }, "Download")));
}

function chart(curves, first) {
  // `first` is what people call step 0: epochs count from 1.
  const [width, height, left, bottom] = [420, 170, 40, 22];
  const points = curves.flat();
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const low = Math.min(...ys), high = Math.max(...ys), pad = (high - low || Math.abs(high) || 1) * 0.08;
  const y0 = low >= 0 ? Math.max(0, low - pad) : low - pad, y1 = high + pad;
  const x = (v) => left + ((v - x0) / (x1 - x0 || 1)) * (width - left - 8);
  const y = (v) => 8 + (1 - (v - y0) / (y1 - y0)) * (height - bottom - 8);
  const lines = [0, 0.5, 1].map((part) => y0 + part * (y1 - y0));
  return s("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img" },
    lines.map((v) => [s("line", { class: "grid", x1: left, x2: width - 8, y1: y(v), y2: y(v) }), s("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, value(Number(v.toPrecision(3))))]),
    s("text", { x: left, y: height - 4 }, String(x0 + first)), s("text", { x: width - 8, y: height - 4, "text-anchor": "end" }, String(x1 + first)),
    curves.map((curve, i) => [
      s("polyline", { class: `curve ${i ? "second" : ""}`, points: curve.map((p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" ") }),
      curve.length <= 60 ? curve.map((p) => s("circle", { class: i ? "second" : "", cx: x(p[0]), cy: y(p[1]), r: 2.6 }, s("title", {}, `${p[0] + first}: ${value(p[1])}`))) : [],
    ]));
}

// The viewer

function openViewer(title, body, buttons = []) {
  viewer.replaceChildren(
    h("div", { class: "viewer-top" }, h("h2", { title }, title), buttons, h("button", { class: "button", type: "button", "aria-label": "Close", onclick: () => viewer.close() }, "Close")),
    h("div", { class: "viewer-body" }, body));
  if (!viewer.open) viewer.showModal();
}

let turn = () => {};

async function showImage(images, index) {
  const image = images[index];
  const step = (by, text) => h("button", { class: "button", type: "button", disabled: !images[index + by], onclick: () => showImage(images, index + by) }, text);
  const buttons = [step(-1, "Previous"), step(1, "Next")];
  turn = (by) => images[index + by] && showImage(images, index + by);
  viewer.dataset.image = image.id;
  let found;
  try {
    found = await json(`/page/api/images/${image.id}`);
  } catch (error) {
    openViewer(image.name, h("p", { class: "problem" }, error.message), buttons);
    return;
  }
  if (viewer.dataset.image !== String(image.id)) return; // another one has been asked for since
  const counts = new Map();
  for (const item of found.drawing) counts.set(item.title, { ...item, count: (counts.get(item.title)?.count || 0) + 1 });
  const shapes = found.drawing.flatMap((item) => item.outlines.map((outline) => shapeOf(item, outline)));
  const canvas = h("div", { class: "canvas" }, h("img", { src: `/image-storage/${image.id}`, alt: image.name }),
    s("svg", { viewBox: `0 0 ${found.width} ${found.height}`, preserveAspectRatio: "none" }, shapes));
  const only = (title) => { for (const shape of shapes) shape.classList.toggle("dim", title !== null && shape.dataset.title !== title); };
  const legend = [...counts.values()].map((item) => {
    const element = chip(item, item.count);
    element.addEventListener("mouseenter", () => only(item.title));
    element.addEventListener("mouseleave", () => only(null));
    return element;
  });
  openViewer(image.name, [canvas, h("div", { class: "chips" }, legend.length ? legend : h("span", { class: "quiet" }, "nothing is marked on this image")),
    h("p", { class: "quiet small number" }, `${found.width}×${found.height}${found.tags.length ? `, tags: ${found.tags.join(", ")}` : ""}`)], buttons);
}

function shapeOf(item, outline) {
  const text = `${item.title}${item.tags.length ? ` (${item.tags.join(", ")})` : ""}`;
  const look = { class: "shape", stroke: item.colour, fill: item.colour, "data-title": item.title };
  const list = outline.points.map((p) => p.join(",")).join(" ");
  const [[x, y], end] = outline.points;
  const title = s("title", {}, text);
  if (outline.kind === "box") return s("rect", { ...look, x, y, width: end[0] - x, height: end[1] - y }, title);
  if (outline.kind === "point") return s("path", { ...look, d: `M${x} ${y}h.001`, "stroke-linecap": "round", style: { strokeWidth: "9px" } }, title);
  return s(outline.kind === "polygon" ? "polygon" : "polyline", { ...look, points: list, ...(outline.kind === "line" ? { fill: "none" } : {}) }, title);
}

async function showFile(file) {
  turn = () => {};
  delete viewer.dataset.image;
  const address = `/file-storage/${file.id}`;
  const buttons = [h("a", { class: "button", href: `${address}?download=1`, download: file.name.split("/").pop() }, "Download")];
  if (file.kind === "image") {
    openViewer(file.name, h("img", { class: "file-image", src: address, alt: file.name }), buttons);
    return;
  }
  try {
    const answer = file.size ? await get(address, { headers: { range: `bytes=0-${MOST_TEXT_BYTES - 1}` } }) : null;
    let text = answer ? await answer.text() : "";
    if (file.name.endsWith(".json") && file.size <= MOST_TEXT_BYTES) {
      try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* shown as it is */ }
    }
    const cut = file.size > MOST_TEXT_BYTES && h("p", { class: "quiet small" }, `the first ${bytes(MOST_TEXT_BYTES)} of ${bytes(file.size)}`);
    openViewer(file.name, [cut || null, h("pre", { class: "text" }, text || "(empty)")], buttons);
  } catch (error) {
    openViewer(file.name, h("p", { class: "problem" }, error.message), buttons);
  }
}

viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
viewer.addEventListener("close", () => { turn = () => {}; delete viewer.dataset.image; viewer.replaceChildren(); });
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") turn(1);
  if (event.key === "ArrowLeft") turn(-1);
});

// Going from view to view

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
  const seen = last.stamps; // from before the view asks: what changes from now on makes it stale
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!isRefresh && viewer.open) viewer.close();
  let built;
  try {
    built = await view(new URLSearchParams(query), ...(pattern.exec(path) || []).slice(1));
  } catch (error) {
    if (isRefresh) return; // what is shown stays
    built = { title: "Not found", content: [h("div", { class: "card empty" }, h("h3", {}, "This cannot be shown"), h("p", { class: "quiet" }, error.message), h("a", { href: "#/" }, "Back to the overview"))] };
  }
  if (number !== shows) return;
  document.title = `${built.title} · Local Supervisely`;
  current = { update: () => {}, stamps: [], ...built, seen };
  refreshed = Date.now();
  main.replaceChildren(...current.content.filter(Boolean));
  current.update(last);
  if (!isRefresh) window.scrollTo(0, 0);
}

async function ask() {
  last = await json("/page/api/live");
}

async function poll() {
  try {
    await ask();
    connection.textContent = "";
    const isStale = current.stamps.some((name) => last.stamps[name] !== current.seen[name]);
    if (isStale && Date.now() - refreshed > REFRESH_MS) await show({ isRefresh: true });
    else current.update(last);
    for (const element of document.querySelectorAll("[data-since]")) element.textContent = `running for ${duration(element.dataset.since)}`;
  } catch (error) {
    connection.textContent = error.status === 401 ? "signed out: open the address with the token again" : "the instance does not answer";
  }
  setTimeout(poll, document.hidden ? 5 * POLL_MS : POLL_MS);
}

window.addEventListener("hashchange", () => show());
ask().catch(() => {}).then(() => show()).then(poll);
