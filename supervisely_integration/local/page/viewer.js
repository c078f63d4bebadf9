// The dialog for images and files.

import { chip } from "./cards.js";
import { bytes, get, h, json, s } from "./dom.js";

const MAX_TEXT_BYTES = 200_000;

export const viewer = document.getElementById("viewer");

function openViewer(title, body, buttons = []) {
  viewer.replaceChildren(
    h("div", { class: "viewer-top" }, h("h2", { title }, title), buttons, h("button", { class: "button", type: "button", "aria-label": "Close", onclick: () => viewer.close() }, "Close")),
    h("div", { class: "viewer-body" }, body));
  if (!viewer.open) viewer.showModal();
}

let turn = () => {};

export async function showImage(images, index) {
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
  if (viewer.dataset.image !== String(image.id)) return; // another image was opened in the meantime
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
  openViewer(image.name, [canvas, h("div", { class: "chips" }, legend.length ? legend : h("span", { class: "quiet" }, "no objects")),
    h("p", { class: "quiet small number" }, `${found.width}×${found.height}${found.tags.length ? `, tags: ${found.tags.join(", ")}` : ""}`)], buttons);
}

function shapeOf(item, outline) {
  const text = `${item.title}${item.tags.length ? ` (${item.tags.join(", ")})` : ""}`;
  const look = { class: "shape", stroke: item.color, fill: item.color, "data-title": item.title };
  const list = outline.points.map((p) => p.join(",")).join(" ");
  const [[x, y], end] = outline.points;
  const title = s("title", {}, text);
  if (outline.kind === "box") return s("rect", { ...look, x, y, width: end[0] - x, height: end[1] - y }, title);
  if (outline.kind === "point") return s("path", { ...look, d: `M${x} ${y}h.001`, "stroke-linecap": "round", style: { strokeWidth: "9px" } }, title);
  return s(outline.kind === "polygon" ? "polygon" : "polyline", { ...look, points: list, ...(outline.kind === "line" ? { fill: "none" } : {}) }, title);
}

export async function showFile(file) {
  turn = () => {};
  delete viewer.dataset.image;
  const address = `/file-storage/${file.id}`;
  const buttons = [h("a", { class: "button", href: `${address}?download=1`, download: file.name.split("/").pop() }, "Download")];
  if (file.kind === "image") {
    openViewer(file.name, h("img", { class: "file-image", src: address, alt: file.name }), buttons);
    return;
  }
  try {
    const answer = file.size ? await get(address, { headers: { range: `bytes=0-${MAX_TEXT_BYTES - 1}` } }) : null;
    let text = answer ? await answer.text() : "";
    if (file.name.endsWith(".json") && file.size <= MAX_TEXT_BYTES) {
      try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not valid JSON: show the text */ }
    }
    const cut = file.size > MAX_TEXT_BYTES && h("p", { class: "quiet small" }, `the first ${bytes(MAX_TEXT_BYTES)} of ${bytes(file.size)}`);
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
