/* A selector of project tags. */

export const tags = {
  props: {
    projectId: { type: Number, default: null },
    tags: { type: [String, Array], default: null },
    options: { type: Object, default: () => ({}) },
    disabled: { type: Boolean, default: false },
  },
  data: () => ({ offered: [], isMissing: false }),
  watch: { projectId: { immediate: true, handler: "load" } },
  methods: {
    async load() {
      if (this.projectId === null) return;
      const response = await fetch(`./gui/projects/${this.projectId}/tags`).catch(() => null);
      this.isMissing = !response?.ok;
      this.offered = this.isMissing ? [] : await response.json();
    },
  },
  template: `
    <div class="sly-select-tag">
      <el-select :value="tags" :multiple="Boolean(options.multiple)" :disabled="disabled" filterable
        placeholder="Select a tag" no-data-text="The project has no tags"
        @input="$emit('update:tags', $event)">
        <el-option v-for="tag in offered" :key="tag.name" :label="tag.name" :value="tag.name">
          <span class="dot" :style="{ backgroundColor: tag.color }" aria-hidden="true"></span>
          {{ tag.name }}
        </el-option>
      </el-select>
      <p v-if="isMissing" role="alert" class="hint">
        Could not load the project's tags. <button type="button" @click="load">Try again</button>
      </p>
    </div>`,
};
