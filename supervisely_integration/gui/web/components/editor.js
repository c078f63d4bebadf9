/* A text editor with line numbers and syntax colors: a plain text field over a colored copy.
 *
 * Undo, tab navigation, screen readers and zoom work as in any text field. */

const LINE_PX = 20;
const PARTS = {
  yaml: [/^(\s*-?\s*)([\w.]+)(:)/, /(^|\s)(#.*)$/],
  json: [/^(\s*)("[^"]*")(\s*:)/, /$.^/],
};

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** Split a line into [kind, text] pairs. */
function pieces(line, [key, comment]) {
  const remark = comment.exec(line);
  const code = remark ? line.slice(0, remark.index) : line;
  const rest = line.slice(code.length);
  const named = key.exec(code);
  const name = named ? [["", named[1]], ["key", named[2]]] : [];
  return [...name, ["", code.slice(name.map(([, text]) => text).join("").length)], ["comment", rest]];
}

export const editor = {
  props: { value: { type: String, default: "" }, options: { type: Object, default: () => ({}) } },
  data: () => ({ isEdited: false }),
  watch: {
    async mark(mark) {
      this.isEdited = false;
      await this.$nextTick();
      if (mark) this.$el.querySelector(".wrong").scrollIntoView({ block: "center" });
    },
  },
  computed: {
    /** The line with an error, until the text is edited. */
    mark() {
      return this.options.mark ?? null;
    },
    shownMark() {
      return this.isEdited ? null : this.mark;
    },
    language() {
      return String(this.options.mode ?? "").split("/").pop();
    },
    text() {
      const isJson = this.language === "json" && this.options.formatJsonOnInit;
      return isJson ? pretty(this.value ?? "") : this.value ?? "";
    },
    lines() {
      const parts = PARTS[this.language];
      return this.text.split("\n").map((line) => (parts ? pieces(line, parts) : [["", line]]));
    },
    style() {
      const height = this.options.maxLines ? `${this.options.maxLines * LINE_PX + 16}px` : null;
      return { maxHeight: `min(${height ?? "400px"}, 62vh)`, minHeight: "56px" };
    },
  },
  methods: {
    edit(text) {
      this.isEdited = true;
      this.$emit("input", text);
    },
  },
  template: `
    <div class="sly-editor">
      <div class="sly-editor-scroll" :style="style">
        <pre aria-hidden="true"><div v-for="(line, i) in lines"
          :class="{ wrong: shownMark && i + 1 === shownMark.line }"
          ><span v-for="[kind, text] in line"
          :class="kind">{{ text }}</span></div></pre>
        <textarea :value="text" :readonly="options.readOnly" spellcheck="false" wrap="off"
          autocapitalize="off" autocomplete="off"
          :aria-label="options.readOnly ? 'Settings' : 'Hyperparameters, as YAML'"
          :aria-invalid="shownMark ? 'true' : null" @input="edit($event.target.value)"></textarea>
      </div>
      <p v-if="shownMark" class="sly-editor-error" role="alert">
        <i class="zmdi zmdi-alert-circle" aria-hidden="true"></i> {{ shownMark.reason }}
      </p>
      <div class="sly-editor-controls"><slot name="controls"></slot></div>
    </div>`,
};
