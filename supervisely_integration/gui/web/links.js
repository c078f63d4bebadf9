/* Links of the platform ("/projects/1/stats") on an instance for one machine, which has other paths. */

const { instance, instancePage } = document.documentElement.dataset;
const PATHS = [
  [/^\/projects\/(\d+)/, (id) => `${instancePage}#/projects/${id}`],
  [/^\/net\/[^/]+\/tensorboard\//, () => "./tensorboard/"],
  [/^\/nn\/experiments\/(\d+)/, (id) => `${instancePage}#/experiments/${id}`],
  [/^\/(model-benchmark|files)\b/, () => `${instancePage}#/experiments`],
];

/** Where something is to be found that has another place on the platform; null for other paths. */
function onInstance(path) {
  for (const [pattern, place] of PATHS) {
    const found = pattern.exec(path);
    if (found) return place(found[1]);
  }
  return null;
}

/** Address of a picture that the page may load, or null. */
export function pictureOf(address) {
  if (!address) return null;
  const own = new URL(address, document.baseURI);
  if (own.origin === location.origin) return own.href;
  const found = instance && /^\/image-storage\/([1-9]\d*)$/.exec(own.pathname);
  return found && own.origin === new URL(instance).origin ? `./gui/thumbnails/${found[1]}` : null;
}

/** Send clicks on links of the platform to where that is here: the instance, or the app itself. */
export function openInstanceLinks() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    if (!link) return;
    const place = instance && onInstance(link.getAttribute("href").replace(instance, ""));
    if (place) link.href = place;
    if (event.target.closest("a > button:not(:disabled)")) {
      event.preventDefault(); // browsers differ in whether a button in a link follows it
      window.open(link.href, "_blank");
    }
  }, true);
}
