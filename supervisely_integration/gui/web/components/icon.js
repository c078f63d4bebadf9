/* A symbol or thumbnail next to a title. Images of other servers are not loaded. */

import { imageAddress } from "../links.js";

export const icon = {
  props: { options: { type: Object, default: () => ({}) } },
  data: () => ({ isBroken: false }),
  computed: {
    image() {
      return this.isBroken ? null : imageAddress(this.options.imageUrl);
    },
    symbol() {
      if (this.options.className) return this.options.className;
      return /image-storage/.test(this.options.imageUrl) ? "zmdi zmdi-image" : "zmdi zmdi-code";
    },
    style() {
      const { color = "#5a6772", bgColor = "#eef2f7" } = this.options;
      return this.image ? {} : { color, backgroundColor: bgColor === "#FFFFFF" ? "#eef2f7" : bgColor };
    },
  },
  template: `
    <span class="sly-icon" :style="style" aria-hidden="true">
      <img v-if="image" :src="image" alt="" @error="isBroken = true">
      <i v-else :class="symbol"></i>
    </span>`,
};
