/* A filter: a button that opens a list of checkboxes. */

export const choices = {
  props: {
    label: { type: String, default: "" },
    items: { type: Array, default: () => [] },
    selected: { type: Array, default: () => [] },
    options: { type: [String, Object], default: "" },
  },
  computed: {
    chosen() {
      return new Set(this.selected.map((each) => (typeof each === "object" ? each.id : each)));
    },
  },
  methods: {
    toggle(id, isOn) {
      const ids = new Set(this.chosen);
      if (isOn) ids.add(id);
      else ids.delete(id);
      this.$emit("update:selected", [...ids]);
    },
    close(event) {
      if (event.type === "focusout" && this.$el.contains(event.relatedTarget)) return;
      this.$el.open = false;
    },
  },
  template: `
    <details class="sly-choices" @focusout="close" @keydown.esc="close">
      <summary>
        {{ label }}<template v-if="chosen.size"> ({{ chosen.size }})</template>
        <i class="zmdi zmdi-chevron-down" aria-hidden="true"></i>
      </summary>
      <ul tabindex="-1">
        <li v-for="item in items" :key="item.id">
          <label>
            <input type="checkbox" :checked="chosen.has(item.id)"
              @change="toggle(item.id, $event.target.checked)"> {{ item.name || item.id }}
          </label>
        </li>
        <li v-if="!items.length" class="hint">No items</li>
      </ul>
    </details>`,
};
