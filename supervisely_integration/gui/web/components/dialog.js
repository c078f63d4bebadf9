/* A modal message in the browser's own dialog element. */

import { plain } from "../markup.js";

const ICONS = {
  info: "zmdi-info",
  success: "zmdi-check-circle",
  warning: "zmdi-alert-triangle",
  error: "zmdi-alert-circle",
};

export const dialog = {
  props: {
    title: { type: String, default: "" },
    message: { type: String, default: "" },
    status: { type: String, default: "info" },
  },
  computed: {
    icon() {
      return ICONS[this.status] ?? ICONS.info;
    },
    text() {
      return plain(this.message);
    },
  },
  mounted() {
    this.$el.showModal();
  },
  template: `
    <dialog class="app-dialog" :class="status" aria-labelledby="app-dialog-title"
      aria-describedby="app-dialog-text" @cancel.prevent="$emit('close')">
      <i class="zmdi" :class="icon" aria-hidden="true"></i>
      <div>
        <h2 id="app-dialog-title">{{ title }}</h2>
        <p id="app-dialog-text">{{ text }}</p>
        <button type="button" class="el-button el-button--primary" autofocus
          @click="$emit('close')">OK</button>
      </div>
    </dialog>`,
};
