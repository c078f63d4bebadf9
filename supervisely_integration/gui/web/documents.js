/* The two documents that an app and its page share: `data` (what is shown) and `state` (what is set).
 *
 * The app sends changes as JSON patches over a WebSocket; the page sends its whole state along with
 * every event. See the SDK's app/content.py.
 */

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 5000;
const KINDS = ["data", "state"];

const copy = (value) => JSON.parse(JSON.stringify(value));

/** The document after a patch. Parts that it leaves alone stay the same objects: Element takes another
 * list for a choice that the user has made, and that would send the state to the app again. */
function patched(document, patch) {
  const fresh = { ...document };
  for (const pointer of patch.flatMap(({ path, from }) => [path, from ?? path])) {
    const key = jsonpatch.unescapePathComponent(pointer.split("/")[1] ?? "");
    if (fresh[key] === document[key] && key in fresh) fresh[key] = copy(fresh[key]);
  }
  return jsonpatch.applyPatch(fresh, copy(patch)).newDocument;
}

async function fetchDocument(kind) {
  const response = await fetch(`./sly/${kind}`, { method: "POST" });
  if (!response.ok) throw new Error(`${kind}: status ${response.status}`);
  return response.json();
}

/** Keeps `view.data` and `view.state` the same as the app's, and says whether it is there. */
export class Documents {
  constructor(view) {
    this.view = view; // { data, state, connection }
    this.base = {}; // what the app has
    this.pending = []; // patches until the next frame
    this.isFetching = true; // until both documents are here, patches have nothing to fit on
    this.isLate = false; // whether one came meanwhile
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
      this.wait_ms = Math.min(2 * this.wait_ms, LONGEST_WAIT_MS);
    };
  }

  /** Fetch both documents. What the user has set since the last event stays, unless the app changed it. */
  async refresh() {
    this.pending = [];
    this.isFetching = true;
    do {
      this.isLate = false;
      const fetched = await Promise.all(KINDS.map(fetchDocument));
      const known = this.base.data;
      // Another process of the app has other widgets: its page is another one, too.
      if (known && Object.keys(fetched[0]).some((key) => !(key in known))) return location.reload();
      KINDS.forEach((kind, i) => this.take(kind, fetched[i]));
      this.view.connection = "open";
      this.wait_ms = FIRST_WAIT_MS;
    } while (this.isLate); // a change may overtake the answer that lacks it
    this.isFetching = false;
  }

  take(kind, fetched) {
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

  /** Whether the patch fits; the page falls back to what the app has. */
  apply(kind, patch, holder) {
    try {
      holder[kind] = patched(holder[kind], patch);
      return true;
    } catch {
      holder[kind] = copy(this.base[kind]);
      return false;
    }
  }

  /** Send an event with the state; returns the error that the app answers, if it does. */
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
