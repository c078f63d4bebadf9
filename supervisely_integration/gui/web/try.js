/* Detect objects in an image, and draw the boxes above the confidence threshold. */

const LOWEST_SCORE = 0.01; // requested once; the slider filters in the browser
const LABEL_PX = 15;
const SMALL_PX = 480; // smaller images are enlarged
const NO_ANSWER = "The app does not respond: it has ended or is unreachable.";
const NO_MODEL = "No model is deployed. Deploy one on the app's page, then choose the image again.";

const part = Object.fromEntries([...document.querySelectorAll("[id]")].map((e) => [e.id, e]));
let classes = [];
let prediction = null;
let pending = new AbortController();

/** Send a request; returns the response, or throws an error with the app's message. */
async function ask(path, options = {}) {
  const answer = await fetch(path, { method: "POST", ...options }).catch((error) => {
    throw error.name === "AbortError" ? error : new Error(NO_ANSWER);
  });
  if (answer.ok) return answer;
  const { message } = await answer.json().catch(() => ({}));
  throw new Error(message || `The app answered with status ${answer.status}.`);
}

/** Describe the deployed model; returns whether one is deployed. */
async function describeModel() {
  const { is_deployed: isDeployed } = await (await ask("./get_status")).json();
  if (isDeployed) {
    const info = await (await ask("./get_session_info")).json();
    const [height, width] = info.input_size_hw;
    const { checkpoint_name: file, device, runtime } = info;
    classes = (await (await ask("./get_model_meta")).json()).classes.map(({ title }) => title);
    part.model.textContent = `${info.model_name}, ${file}, ${runtime} on ${device}, input ${width}x${height}`;
  } else {
    part.model.textContent = "No model is deployed";
  }
  return isDeployed;
}

function tell(message) {
  part.problem.textContent = message;
  part.problem.hidden = !message;
}

/** Run one detection; a later one replaces it. */
async function start(name, read) {
  pending.abort();
  const current = pending = new AbortController();
  const { signal } = current;
  tell("");
  part.result.hidden = true;
  part.summary.textContent = `Detecting objects in ${name} ...`;
  prediction = null;
  try {
    if (!await describeModel()) throw new Error(NO_MODEL);
    const image = await read(signal);
    const found = await predict(image, name, signal);
    if (signal.aborted) return;
    found.isDisplayed = await show(image, name, found);
    if (signal.aborted) return;
    prediction = found;
    draw();
  } catch (error) {
    if (signal.aborted) return;
    part.summary.textContent = "";
    tell(error.message);
  }
}

async function predict(image, name, signal) {
  const body = new FormData();
  body.append("files", image, name);
  body.append("state", JSON.stringify({ settings: { confidence_threshold: LOWEST_SCORE } }));
  const answer = await ask("./inference_image", { body, signal });
  const { annotation } = await answer.json();
  return {
    ...annotation.size,
    times: timesOf(answer.headers.get("server-timing") || ""),
    objects: annotation.objects.map(readObject).sort((a, b) => b.score - a.score),
  };
}

/** An object of the response; the last row and column belong to its box. */
function readObject({ classTitle, points, tags }) {
  const [[left, top], [right, bottom]] = points.exterior;
  const score = tags.find((tag) => tag.name.startsWith("confidence")).value;
  return { name: classTitle, score, left, top, width: right - left + 1, height: bottom - top + 1 };
}

/** Milliseconds by name, from "preprocess;dur=1.5, inference;dur=20". */
function timesOf(header) {
  return Object.fromEntries(
    [...header.matchAll(/(\w+);dur=([\d.]+)/g)].map(([, name, time]) => [name, Number(time)]));
}

/** Show the image, or a gray area; returns whether the browser can display the file. */
async function show(image, name, { width, height }) {
  URL.revokeObjectURL(part.image.src);
  const scale = SMALL_PX / Math.max(width, height);
  part.image.style.width = scale > 1 ? `${width * scale}px` : "";
  Object.assign(part.image, { src: URL.createObjectURL(image), alt: name });
  const isDisplayed = await part.image.decode().then(() => true, () => false);
  part.image.parentElement.classList.toggle("undisplayed", !isDisplayed);
  if (!isDisplayed) {
    const blank = document.createElement("canvas");
    Object.assign(blank, { width: width * scale, height: height * scale });
    part.image.src = blank.toDataURL();
    await part.image.decode();
  }
  return isDisplayed;
}

function draw() {
  const threshold = Number(part.threshold.value);
  part["shown-threshold"].textContent = threshold.toFixed(2);
  if (!prediction) return;
  const { width, height, objects, times, isDisplayed } = prediction;
  const shown = objects.filter((object) => object.score >= threshold);
  part.result.hidden = false;
  const boxes = shown.map((object) => boxOf(object, prediction));
  part.boxes.replaceChildren(...boxes);
  part.rows.replaceChildren(...shown.map((object, index) => rowOf(object, boxes[index])));
  const total = Object.values(times).reduce((sum, time) => sum + time, 0);
  const count = `${shown.length} ${shown.length === 1 ? "object" : "objects"}`;
  part.summary.textContent = `${count} with a score of at least ${threshold.toFixed(2)} in ${width}x${height} pixels. `
    + `Inference time ${total.toFixed(1)} ms (model ${(times.inference ?? 0).toFixed(1)} ms). `
    + (isDisplayed ? "" : "This browser cannot display the file: the boxes are on a gray area.");
}

function boxOf({ name, score, left, top, width, height }, size) {
  const box = document.createElement("div");
  box.className = "try-box";
  const percent = (value, whole) => `${100 * value / whole}%`;
  Object.assign(box.style, {
    left: percent(left, size.width),
    top: percent(top, size.height),
    width: percent(width, size.width),
    height: percent(height, size.height),
  });
  box.style.setProperty("--color", `hsl(${classes.indexOf(name) * 137.5 % 360} 75% 34%)`);
  box.classList.toggle("inside", top / size.height * part.image.clientHeight < LABEL_PX);
  const label = document.createElement("span");
  label.textContent = `${name} ${score.toFixed(2)}`;
  box.append(label);
  return box;
}

function rowOf({ name, score, left, top, width, height }, box) {
  const row = document.createElement("tr");
  for (const text of [name, score.toFixed(3), left, top, width, height]) {
    row.insertCell().textContent = text;
  }
  row.addEventListener("mouseenter", () => box.classList.add("marked"));
  row.addEventListener("mouseleave", () => box.classList.remove("marked"));
  return row;
}

function startFile(file) {
  if (file) start(file.name || "the image", async () => file);
}

async function download(url, signal) {
  const body = JSON.stringify({ state: { image_url: url } });
  const headers = { "Content-Type": "application/json" };
  return (await ask("./gui/image", { body, headers, signal })).blob();
}

part.file.addEventListener("change", () => startFile(part.file.files[0]));
part.file.addEventListener("click", () => { part.file.value = ""; }); // the same file again
part.source.addEventListener("submit", (event) => {
  event.preventDefault();
  const url = part.url.value.trim();
  if (url) start(url, (signal) => download(url, signal));
});
part.threshold.addEventListener("input", draw);
document.addEventListener("paste", (event) => startFile(event.clipboardData.files[0]));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  startFile(event.dataTransfer.files[0]);
});
window.addEventListener("focus", () => describeModel().catch(() => {}));
if (part.file.files.length) startFile(part.file.files[0]); // chosen while the page was loading
else describeModel().catch((error) => tell(error.message));
