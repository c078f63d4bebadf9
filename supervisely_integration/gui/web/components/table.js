/* A table that the app sorts, searches and paginates. */

export const table = {
  props: {
    columns: { type: Array, default: () => [] },
    columnsOptions: { type: Array, default: () => [] },
    data: { type: Array, default: () => [] },
    disabled: { type: Boolean, default: false },
    options: { type: Object, default: () => ({}) },
    page: { type: Number, default: 1 },
    pageSize: { type: Number, default: 10 },
    projectMeta: { type: Object, default: null },
    search: { type: String, default: "" },
    selectedRadioIdx: { type: Number, default: null },
    selectedRows: { type: Array, default: () => [] },
    showHeader: { type: Boolean, default: true },
    sort: { type: Object, default: () => ({}) },
    total: { type: Number, default: 0 },
  },
  computed: {
    pages() {
      return Math.max(1, Math.ceil(this.total / this.pageSize));
    },
  },
  methods: {
    ask(property, value) {
      this.$emit(`update:${property}`, value);
      this.$emit("filters-changed");
    },
    isSortable(index) {
      return !this.columnsOptions?.[index]?.disableSort;
    },
    order(index) {
      if (this.sort.column !== index) return null;
      return this.sort.order === "desc" ? "descending" : "ascending";
    },
    sortBy(index) {
      const order = this.order(index) === "ascending" ? "desc" : "asc";
      this.ask("sort", { column: index, order });
    },
    name(row) {
      return `Row ${row.idx + 1}`;
    },
  },
  template: `
    <div class="sly-table" :inert="disabled">
      <div v-if="showHeader" class="sly-table-head">
        <input type="search" class="el-input__inner" :value="search" placeholder="Search"
          aria-label="Search in the table" @input="ask('search', $event.target.value)">
        <slot name="header-left-side-end"></slot>
      </div>
      <div class="sly-table-scroll">
        <table class="classes-table">
          <thead>
            <tr>
              <th v-if="options.isRadio" class="narrow"></th>
              <th v-for="(column, i) in columns" :key="column" :aria-sort="order(i)">
                <button v-if="isSortable(i)" type="button" @click="sortBy(i)">
                  {{ column }}
                  <i v-if="order(i)" class="zmdi" aria-hidden="true" :class="order(i) === 'ascending'
                    ? 'zmdi-caret-up' : 'zmdi-caret-down'"></i>
                </button>
                <template v-else>{{ column }}</template>
              </th>
            </tr>
          </thead>
          <tbody>
            <tr v-for="row in data" :key="row.idx">
              <td v-if="options.isRadio" class="narrow">
                <input type="radio" :name="'row-' + _uid" :checked="row.idx === selectedRadioIdx"
                  :aria-label="name(row)" @change="$emit('update:selected-rows', [row])">
              </td>
              <td v-for="(cell, i) in row.items" :key="i">
                <slot v-if="columnsOptions && columnsOptions[i] && columnsOptions[i].customCell"
                  name="cell-content" :row="row" :column="columns[i]" :cell-value="cell" :idx="i"></slot>
                <template v-else>{{ cell }}</template>
              </td>
            </tr>
            <tr v-if="!data.length">
              <td class="hint" :colspan="columns.length + 1">No data</td>
            </tr>
          </tbody>
        </table>
      </div>
      <nav v-if="pages > 1" class="sly-table-pages" aria-label="Pages of the table">
        <button type="button" :disabled="page <= 1" @click="ask('page', page - 1)">Previous</button>
        page {{ page }} of {{ pages }}
        <button type="button" :disabled="page >= pages" @click="ask('page', page + 1)">Next</button>
      </nav>
    </div>`,
};
