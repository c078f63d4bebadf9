/* A card of the page. A locked card shows the reason and hides its content. */

let number = 0;

export const card = {
  props: {
    title: { type: String, default: "" },
    subtitle: { type: String, default: "" },
    options: { type: Object, default: () => ({}) },
    disabled: { type: [Boolean, Object], default: false },
    collapsed: { type: Boolean, default: false },
  },
  data() {
    return { id: `card-${(number += 1)}`, isCollapsed: this.collapsed };
  },
  computed: {
    isLocked() {
      return typeof this.disabled === "object" ? Boolean(this.disabled?.disabled) : this.disabled;
    },
    isOpen() {
      return !this.isLocked && !(this.options.collapsable && this.isCollapsed);
    },
  },
  watch: {
    collapsed(value) {
      this.isCollapsed = value;
    },
  },
  template: `
    <section class="sly-card" :class="{ locked: isLocked }" :aria-labelledby="id"
      :aria-disabled="String(isLocked)">
      <div class="sly-card-head">
        <div>
          <h2 :id="id">{{ title }}</h2>
          <p v-if="subtitle">{{ subtitle }}</p>
        </div>
        <p v-if="isLocked" class="sly-card-lock">
          <i class="zmdi zmdi-lock" aria-hidden="true"></i> {{ disabled.message || "Locked" }}
        </p>
        <slot name="header"></slot>
        <button v-if="options.collapsable && !isLocked" type="button" class="sly-card-toggle"
          :aria-expanded="String(isOpen)" :aria-controls="id + '-content'"
          @click="isCollapsed = !isCollapsed">
          {{ isOpen ? "Hide" : "Show" }}
          <i class="zmdi" :class="isOpen ? 'zmdi-chevron-up' : 'zmdi-chevron-down'"
            aria-hidden="true"></i>
        </button>
      </div>
      <div v-show="isOpen" :id="id + '-content'" class="sly-card-content">
        <slot></slot>
      </div>
    </section>`,
};
