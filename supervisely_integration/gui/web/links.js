/* Translates links of the platform ("/projects/1/stats") to paths of a local instance. */

const { instance, instancePage } = document.documentElement.dataset;
const PATHS = [
  [/^\/projects\/(\d+)/, (id) => `${instancePage}#/projects/${id}`],
  [/^\/net\/[^/]+\/tensorboard\//, () => "./tensorboard/"],
  [/^\/nn\/experiments\/(\d+)/, (id) => `${instancePage}#/experiments/${id}`],
  [/^\/(model-benchmark|files)\b/, () => `${instancePage}#/experiments`],
];

/** Address on the instance for a path of the platform; null for other paths. */
function onInstance(path) {
  for (const [pattern, address] of PATHS) {
    const found = pattern.exec(path);
    if (found) return address(found[1]);
  }
  return null;
}

/** Address of an image that the page may load, or null. */
export function imageAddress(address) {
  if (!address) return null;
  const own = new URL(address, document.baseURI);
  if (own.origin === location.origin) return own.href;
  const found = instance && /^\/image-storage\/([1-9]\d*)$/.exec(own.pathname);
  return found && own.origin === new URL(instance).origin ? `./gui/thumbnails/${found[1]}` : null;
}

/** Redirect clicks on links of the platform to the instance or the app. */
export function openInstanceLinks() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    if (!link) return;
    const address = instance && onInstance(link.getAttribute("href").replace(instance, ""));
    if (address) link.href = address;
    if (event.target.closest("a > button:not(:disabled)")) {
      event.preventDefault(); // only some browsers follow a link through a button in it
      window.open(link.href, "_blank");
    }
  }, true);
}
