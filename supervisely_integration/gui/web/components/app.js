/* The frame of the page: title, connection status, documents and dialog. */

import { Documents } from "../documents.js";
import { dialog } from "./dialog.js";

export const app = {
  name: "SlyApp",
  components: { "app-dialog": dialog },
  props: { name: { type: String, default: "" } },
  data: () => ({
    data: null,
    state: null,
    connection: "opening",
    failure: null,
    busy: {},
    instance: document.documentElement.dataset.instancePage,
    links: JSON.parse(document.documentElement.dataset.links),
  }),
  computed: {
    problem() {
      if (this.failure) return { ...this.failure, status: "error" };
      if (!this.state?.slyAppShowDialog) return null;
      const { slyAppDialogTitle, slyAppDialogMessage, slyAppDialogStatus } = this.data;
      return { title: slyAppDialogTitle, message: slyAppDialogMessage, status: slyAppDialogStatus };
    },
  },
  created() {
    this.documents = new Documents(this);
    this.documents.connect();
  },
  methods: {
    /** Send an event to the app; ignores a button whose last request is pending, and a change that
     * came from the app: the state of the page would overwrite what the app changes meanwhile. */
    async post(path, more) {
      const [, widget, event] = path.split("/");
      if (event === "button_clicked_cb" && this.busy[path]) return;
      this.$set(this.busy, path, true);
      try {
        await this.$nextTick(); // an input number reports a change before it sets the value
        if (event === "value_changed" && !this.documents.isChanged(widget)) return;
        const error = await this.documents.post(path, more);
        // A failed training opens the app's own dialog, which gives the reason; its patch may come
        // later than this response.
        if (error) await this.documents.refresh();
        if (error && !this.state.slyAppShowDialog) this.failure = error;
      } catch {
        // The app has ended, which the status line shows.
      } finally {
        this.$delete(this.busy, path);
      }
    },
    /** Close the dialog, also for the app: it would open again when the page is reloaded. */
    async close() {
      if (this.failure) {
        this.failure = null;
        return;
      }
      this.state.slyAppShowDialog = false;
      await this.documents.post("/sly/state").catch(() => null); // the app has ended
    },
  },
  template: `
    <div class="app">
      <header class="app-header">
        <h1>{{ name }}</h1>
        <p class="app-connection" role="status">
          <template v-if="connection === 'lost'">
            <i class="zmdi zmdi-alert-circle" aria-hidden="true"></i>
            The app does not respond: it has ended or is unreachable. This is its last state.
          </template>
        </p>
        <nav>
          <a v-for="[address, title] in links" :key="address" :href="address">{{ title }}</a>
          <a v-if="instance" :href="instance" target="_blank">Projects and experiments</a>
        </nav>
      </header>
      <main v-if="state && data">
        <slot :post="post" :state="state" :data="data" :session="null" :is-static-version="false"
          :public-api-instance="null"></slot>
      </main>
      <p v-else class="app-loading" role="status">Loading ...</p>
      <app-dialog v-if="problem" v-bind="problem" @close="close"></app-dialog>
    </div>`,
};
