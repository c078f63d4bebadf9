// The views: each returns its title, content, and the stamps that make it stale.

import {
  NO_EXPERIMENTS, NO_PROJECTS, chip, empty, experimentCard, heading, metricsOf, pager, projectCard, showTasks,
  thumbnail,
} from "./cards.js";
import { bytes, h, json, plural, s, value } from "./dom.js";
import { showFile, showImage } from "./viewer.js";

const OVERVIEW_CARDS = 6;
const METRICS = { // title and note, by origin
  logs: ["Metrics of the best epoch", "Measured during training, on the validation split; best_f1 is the best F1 at IoU 0.5."],
  evaluation: ["Metrics of the model benchmark", "Measured after training. Its f1, precision and recall are means over IoU 0.5 to 0.95; "
    + "those of the training log and report.html are at IoU 0.5. Its mAP may differ from AP: see docs/benchmark.md."],
};

export async function overview() {
  const [projects, experiments] = await Promise.all([json("/page/api/projects"), json("/page/api/experiments")]);
  const tasks = h("div");
  const listed = experiments.experiments;
  return {
    title: "Overview",
    stamps: ["projects", "experiments"],
    content: [
      h("section", {}, heading("Projects", projects.total, projects.total > OVERVIEW_CARDS ? "#/projects" : null),
        projects.total ? h("div", { class: "cards" }, projects.projects.slice(0, OVERVIEW_CARDS).map(projectCard)) : NO_PROJECTS()),
      h("section", {}, heading("Tasks", undefined, "#/tasks"), tasks),
      h("section", {}, heading("Experiments", listed.length, listed.length > OVERVIEW_CARDS ? "#/experiments" : null),
        listed.length ? h("div", { class: "cards wide" }, listed.slice(0, OVERVIEW_CARDS).map(experimentCard)) : NO_EXPERIMENTS()),
    ],
    update: (state) => {
      const running = state.tasks.filter((t) => t.isRunning);
      showTasks(tasks, running.length ? running : state.tasks.slice(0, 3));
    },
  };
}

export async function projects(parameters) {
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

export async function project(parameters, id) {
  const page = Number(parameters.get("page")) || 1;
  const part = ["dataset", "collection"].flatMap((kind) => (parameters.get(kind) ? [[kind, parameters.get(kind)]] : [])).slice(0, 1);
  const address = (chosen, to) => new URLSearchParams([...chosen, ...(to > 1 ? [["page", to]] : [])]);
  const [found, images] = await Promise.all([
    json(`/page/api/projects/${id}`),
    json(`/page/api/projects/${id}/images?${address(part, page)}`),
  ]);
  const link = (chosen, to) => `#/projects/${id}?${address(chosen, to)}`;
  const set = (chosen, entry, text) => h("a", { class: "chip", href: link(chosen, 1), title: entry.description, "aria-current": String(chosen) === String(part) ? "true" : null },
    h("span", { class: "name" }, text), h("span", { class: "number" }, value(entry.images)));
  const collections = found.collections.map((c) => set([["collection", String(c.id)]], c, c.name));
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
          h("div", { class: "chips" }, set([], { images: found.images }, "all"), found.datasetList.map((d) => set([["dataset", String(d.id)]], d, d.path))),
          collections.length > 0 && [h("h2", {}, "Collections"), h("div", { class: "chips" }, collections)]),
        h("div", { class: "card panel" }, h("h2", {}, "Classes"),
          found.classes.length ? h("div", { class: "chips" }, found.classes.map((c) => chip(c, c.objects))) : h("p", { class: "quiet" }, "no classes"))),
      h("section", {}, heading("Images", images.total),
        images.total ? h("div", { class: "pictures" }, images.images.map((image, index) => pictureCard(image, index, images.images)))
          : empty("No images here", `This ${part.length ? part[0][0] : "project"} is empty.`),
        pager(page, images.pages, (to) => link(part, to))),
    ],
  };
}

function pictureCard(image, index, all) {
  return h("button", { class: "card picture", type: "button", onclick: () => showImage(all, index) }, thumbnail(image),
    h("span", { class: "body" }, h("span", { class: "name", title: image.name }, image.name),
      h("span", { class: "quiet small number" }, `${image.width}×${image.height}, ${plural(image.objects, "object")}`),
      image.tags.length > 0 && h("span", { class: "chips" }, image.tags.map((tag) => h("span", { class: "chip small", title: tag }, h("span", { class: "name" }, tag))))));
}

export async function tasks() {
  const box = h("div");
  return { title: "Tasks", content: [h("section", {}, heading("Tasks"), box)], update: (state) => showTasks(box, state.tasks) };
}

export async function experiments() {
  const found = (await json("/page/api/experiments")).experiments;
  return {
    title: "Experiments",
    stamps: ["experiments"],
    content: [h("section", {}, heading("Experiments", found.length),
      found.length ? h("div", { class: "cards wide" }, found.map(experimentCard)) : NO_EXPERIMENTS())],
  };
}

export async function experiment(parameters, id) {
  const found = await json(`/page/api/experiments/${id}`);
  const info = found.info;
  const facts = [
    ["Project", found.projectName === null ? `${found.projectId ?? "?"} (removed)` : h("a", { href: `#/projects/${found.projectId}` }, found.projectName)],
    ["Task", found.taskId], ["Model", found.model], ["Task type", info.task_type], ["Images", found.trainSize && `${value(found.trainSize)} for training, ${value(found.valSize ?? 0)} for validation`],
    ["Best checkpoint", info.best_checkpoint], ["Device", info.device], ["Finished", info.datetime], ["Folder", h("code", {}, found.folder)],
  ].filter(([, fact]) => fact !== undefined && fact !== null && fact !== "");
  const charts = [
    [["val/AP", "val/AP50"], "Precision by epoch"],
    [["train/loss"], "Training loss by step"],
    [["val/loss"], "Validation loss by epoch"],
  ].map(([names, title]) => [names.filter((n) => (found.curves[n] || []).length > 1), title]).filter(([names]) => names.length);
  const [title, note] = METRICS[found.metricsFrom];
  return {
    title: found.name,
    stamps: ["experiments"],
    content: [
      h("div", { class: "crumbs" }, h("a", { href: "#/experiments" }, "Experiments")),
      h("div", { class: "heading" }, h("h1", {}, found.name), reportLinks(found.files)),
      h("div", { class: "card panel" }, h("h2", {}, title), metricsOf(found, 40), h("p", { class: "quiet small" }, note)),
      charts.length > 0 && h("div", { class: "split", style: { marginTop: "18px" } }, charts.map(([names, title]) =>
        h("div", { class: "card panel" }, h("h2", {}, title), chart(names.map((n) => found.curves[n])), h("div", { class: "legend" },
          names.map((n, i) => h("span", {}, h("i", { class: i ? "second" : "" }), n)))))),
      h("div", { class: "split", style: { marginTop: "18px" } },
        h("div", { class: "card panel" }, h("h2", {}, "About"), h("table", {}, facts.map(([name, fact]) => h("tr", {}, h("th", {}, name), h("td", {}, fact instanceof Node ? fact : String(fact)))))),
        h("div", { class: "card panel" }, h("h2", {}, "Parameters"), found.hyperparameters ? h("pre", { class: "text" }, found.hyperparameters) : h("p", { class: "quiet" }, "not saved"))),
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

function chart(curves) {
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
    s("text", { x: left, y: height - 4 }, String(x0)), s("text", { x: width - 8, y: height - 4, "text-anchor": "end" }, String(x1)),
    curves.map((curve, i) => [
      s("polyline", { class: `curve ${i ? "second" : ""}`, points: curve.map((p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" ") }),
      curve.length <= 60 ? curve.map((p) => s("circle", { class: i ? "second" : "", cx: x(p[0]), cy: y(p[1]), r: 2.6 }, s("title", {}, `${p[0]}: ${value(p[1])}`))) : [],
    ]));
}
