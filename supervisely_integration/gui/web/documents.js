/* The two documents that an app and its page share: `data` (content) and `state` (values of widgets).
 *
 * The app sends changes as JSON patches over a WebSocket. The page sends its state with every event.
 * See the SDK's app/content.py.
 */

const FIRST_WAIT_MS = 500;
const MAX_WAIT_MS = 5000;
const KINDS = ["data", "state"];

const copy = (value) => JSON.parse(JSON.stringify(value));

const keysOf = (patch) =>
  patch.flatMap(({ path, from }) => [path, from ?? path])
    .map((pointer) => jsonpatch.unescapePathComponent(pointer.split("/")[1] ?? ""));

/** Apply a patch to a document. Unchanged parts remain the same objects: Element treats a new list as
 * a selection by the user, which would send the state to the app again. */
function patched(document, patch) {
  const fresh = { ...document };
  for (const key of keysOf(patch)) {
    if (fresh[key] === document[key] && key in fresh) fresh[key] = copy(fresh[key]);
  }
  return jsonpatch.applyPatch(fresh, copy(patch)).newDocument;
}

async function fetchDocument(kind) {
  const response = await fetch(`./sly/${kind}`, { method: "POST" });
  if (!response.ok) throw new Error(`${kind}: status ${response.status}`);
  return response.json();
}

/** Keeps `view.data` and `view.state` equal to the app's, and `view.connection` up to date. */
export class Documents {
  constructor(view) {
    this.view = view; // { data, state, connection }
    this.base = {}; // documents of the app
    this.pending = []; // patches until the next frame
    this.isFetching = true; // patches cannot be applied before both documents are loaded
    this.isLate = false; // whether a patch arrived during the request
    this.wait_ms = FIRST_WAIT_MS;
  }

  connect() {
    const address = new URL("sly/ws", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address);
    this.reconnect = () => socket.close();
    socket.onopen = () => this.refresh().catch(this.reconnect);
    socket.onmessage = (event) => this.receive(JSON.parse(event.data));
    socket.onclose = () => {
      this.view.connection = "lost";
      setTimeout(() => this.connect(), this.wait_ms);
      this.wait_ms = Math.min(2 * this.wait_ms, MAX_WAIT_MS);
    };
  }

  /** Fetch both documents. Values set since the last event are kept, unless the app changed them. */
  async refresh() {
    this.pending = [];
    this.isFetching = true;
    do {
      this.isLate = false;
      const fetched = await Promise.all(KINDS.map(fetchDocument));
      const known = this.base.data;
      // A restarted app has other widgets, so the page must be reloaded.
      if (known && Object.keys(fetched[0]).some((key) => !(key in known))) return location.reload();
      KINDS.forEach((kind, i) => this.update(kind, fetched[i]));
      this.view.connection = "open";
      this.wait_ms = FIRST_WAIT_MS;
    } while (this.isLate); // a patch may arrive before a response without its change
    this.isFetching = false;
  }

  update(kind, fetched) {
    const changes = this.base[kind] ? jsonpatch.compare(this.base[kind], fetched) : null;
    this.base[kind] = fetched;
    if (changes === null) this.view[kind] = copy(fetched);
    else this.apply(kind, changes, this.view);
  }

  receive(message) {
    if (this.isFetching) {
      this.isLate = true;
      return;
    }
    if (!this.pending.length) requestAnimationFrame(() => this.flush());
    this.pending.push(message);
  }

  flush() {
    const messages = this.pending;
    this.pending = [];
    for (const kind of KINDS) {
      const patch = messages.flatMap((message) => message[kind] ?? []);
      if (!patch.length) continue;
      if (!this.apply(kind, patch, this.base)) return this.refresh().catch(this.reconnect);
      this.apply(kind, patch, this.view);
    }
  }

  /** Apply a patch; returns false if it does not apply. Its widgets then get the app's values, and
   * text that was typed into others is kept. */
  apply(kind, patch, holder) {
    try {
      holder[kind] = patched(holder[kind], patch);
      return true;
    } catch {
      const known = keysOf(patch).filter((key) => key in this.base[kind]);
      const values = known.map((key) => [key, copy(this.base[kind][key])]);
      holder[kind] = { ...holder[kind], ...Object.fromEntries(values) };
      return false;
    }
  }

  /** Whether a person changed a widget's value: Element also reports changes that the app made. */
  isChanged(widget) {
    const known = this.base.state?.[widget];
    const shown = this.view.state?.[widget];
    return known === undefined || jsonpatch.compare({ known }, { known: shown }).length > 0;
  }

  /** Send an event with the state; returns the app's error, or null. */
  async post(path, more) {
    const state = copy(this.view.state);
    this.base.state = copy(state);
    const response = await fetch(`.${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ state, context: {}, ...more }),
    });
    if (response.ok) return null;
    const body = await response.json().catch(() => ({}));
    const detail = body.detail ?? {};
    return {
      title: detail.title ?? "The app reports an error",
      message: detail.message ?? body.message ?? `${path} answered with status ${response.status}`,
    };
  }
}
