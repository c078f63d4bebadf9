// Cards and other parts that several views share.

import { ago, bytes, duration, h, plural, share, value } from "./dom.js";

const MAX_CLASSES = 5; // on the card of a project

export function empty(title, text, command) {
  return h("div", { class: "card empty" }, h("h3", {}, title), h("p", { class: "quiet" }, text),
    command && h("code", {}, command));
}

export const NO_PROJECTS = () => empty("No projects yet", "Import one from a folder in Supervisely, COCO, YOLO or Pascal VOC format:",
  "python -m supervisely_integration.local import FOLDER");
export const NO_TASKS = () => empty("No tasks yet", "Start a training; its progress is shown here:",
  "python -m supervisely_integration.local train --project NAME");
export const NO_EXPERIMENTS = () => empty("No experiments yet",
  "A finished training stores its checkpoints, metrics and settings here.");

export function heading(title, count, more) {
  return h("div", { class: "heading" }, h("h2", {}, title),
    count !== undefined && h("span", { class: "quiet number" }, String(count)),
    more && h("a", { class: "more", href: more }, "Show all"));
}

export function chip(item, extra) {
  return h("span", { class: "chip", title: item.title }, h("span", { class: "dot", style: { background: item.color } }),
    h("span", { class: "name" }, item.title), extra !== undefined && h("span", { class: "quiet number" }, value(extra)));
}

export const thumbnail = (image) => h("img", {
  src: `/page/thumbnails/${image.id}?v=${encodeURIComponent(image.version)}`,
  alt: image.name, loading: "lazy", decoding: "async",
});

export function projectCard(project) {
  const kind = ["none", "one", "two", "three", "four"][project.covers.length];
  const classes = project.classes.slice(0, MAX_CLASSES);
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

export function showTasks(box, tasks) {
  const seen = JSON.stringify(tasks);
  if (box.dataset.seen === seen) return;
  box.dataset.seen = seen;
  // Start at the old width, so that the bar moves instead of jumping.
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

export function metricsOf(experiment, count = 5) {
  const entries = Object.entries(experiment.metrics).slice(0, count);
  if (!entries.length) return h("p", { class: "quiet small" }, experiment.isReadable ? "no metrics: the training ended before the first evaluation" : "experiment_info.json is not readable");
  return h("div", { class: "metrics" }, entries.map(([name, number]) =>
    h("div", { class: "metric" }, h("b", {}, share(name, number)), h("span", {}, name))));
}

export function experimentCard(experiment) {
  const sizes = experiment.trainSize ? `, ${value(experiment.trainSize)} + ${value(experiment.valSize ?? 0)} images` : "";
  return h("a", { class: "card", href: `#/experiments/${experiment.id}` }, h("div", { class: "body" },
    h("h3", {}, experiment.name),
    h("p", { class: "quiet small" }, `${experiment.model || experiment.framework || "unknown model"}${sizes}`),
    metricsOf(experiment),
    h("p", { class: "quiet small" }, `task ${experiment.taskId ?? "?"}, ${ago(experiment.createdAt)}, ${bytes(experiment.size)}`)));
}

export function pager(page, pages, link) {
  if (pages < 2) return null;
  const step = (to, text) => (to < 1 || to > pages
    ? h("button", { class: "button", disabled: true }, text)
    : h("a", { class: "button", href: link(to) }, text));
  return h("nav", { class: "pager", "aria-label": "Pages" }, step(page - 1, "Previous"),
    h("span", { class: "quiet number" }, `page ${page} of ${pages}`), step(page + 1, "Next"));
}
