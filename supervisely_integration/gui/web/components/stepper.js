/* The numbered steps of the page. */

export const stepper = {
  props: { active: { type: Number, default: 0 } },
  provide() {
    return { stepper: this };
  },
  data: () => ({ items: [] }),
  template: `<ol class="sly-stepper"><slot></slot></ol>`,
};

export const stepperItem = {
  inject: ["stepper"],
  props: { name: { type: String, default: "" } },
  created() {
    this.stepper.items.push(this);
  },
  beforeDestroy() {
    this.stepper.items = this.stepper.items.filter((item) => item !== this);
  },
  computed: {
    number() {
      return this.stepper.items.indexOf(this) + 1;
    },
    status() {
      if (this.number === this.stepper.active) return "current";
      return this.number < this.stepper.active ? "done" : "ahead";
    },
  },
  template: `
    <li class="sly-step" :class="status" :aria-current="status === 'current' ? 'step' : null">
      <div class="sly-step-mark" aria-hidden="true">
        <i v-if="status === 'done'" class="zmdi zmdi-check"></i>
        <span v-else>{{ number }}</span>
      </div>
      <div class="sly-step-content">
        <h3 v-if="name">{{ name }}</h3>
        <slot></slot>
      </div>
    </li>`,
};
