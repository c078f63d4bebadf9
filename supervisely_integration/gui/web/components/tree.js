/* A selector in a tree of datasets: every node is a checkbox or a radio button. */

const flat = (items, depth = 0) =>
  (items ?? []).flatMap((item) => [{ item, depth }, ...flat(item.children, depth + 1)]);

let number = 0;

export const tree = {
  props: {
    items: { type: Array, default: () => [] },
    value: { type: [Array, Object, String, Number], default: null },
    options: { type: Object, default: () => ({}) },
    disabled: { type: Boolean, default: false },
  },
  data: () => ({ name: `tree-${(number += 1)}` }),
  computed: {
    rows() {
      return flat(this.items);
    },
    chosen() {
      const given = this.value ?? [];
      const all = Array.isArray(given) ? given : [given];
      return new Set(all.map((each) => (typeof each === "object" ? each.id : each)));
    },
  },
  methods: {
    toggle(id, isOn) {
      const isMany = this.options.multiple !== false;
      const ids = new Set(isMany ? this.chosen : []);
      if (isOn) ids.add(id);
      else ids.delete(id);
      const nodes = this.rows.map((row) => row.item).filter((item) => ids.has(item.id));
      const values = nodes.map(({ id, label }) =>
        this.options.valueFormat === "object" ? { id, label } : id);
      this.$emit("input", isMany ? values : values[0] ?? null);
    },
  },
  template: `
    <ul class="sly-tree">
      <li v-for="{ item, depth } in rows" :key="item.id" :style="{ paddingLeft: depth * 18 + 'px' }">
        <label>
          <input :type="options.multiple === false ? 'radio' : 'checkbox'" :name="name"
            :checked="chosen.has(item.id)" :disabled="disabled"
            @change="toggle(item.id, $event.target.checked)">
          <i class="zmdi zmdi-folder" aria-hidden="true"></i> {{ item.label }}
        </label>
      </li>
      <li v-if="!rows.length" class="hint">No items</li>
    </ul>`,
};
