/* The app's log, loaded while the window is shown. */

const PERIOD_MS = 1000;
const MAX_WAIT_MS = 30_000; // while the app does not respond
const MAX_LINES = 2000;

export const logs = {
  props: { taskId: { type: Number, default: null } },
  data: () => ({ lines: [], after: 0, wait_ms: PERIOD_MS }),
  mounted() {
    this.load();
  },
  beforeDestroy() {
    clearTimeout(this.timer);
  },
  methods: {
    async load() {
      const response = await fetch(`./gui/logs?after=${this.after}`).catch(() => null);
      if (response?.ok) this.show(await response.json());
      this.wait_ms = response?.ok ? PERIOD_MS : Math.min(2 * this.wait_ms, MAX_WAIT_MS);
      this.timer = setTimeout(() => this.load(), this.wait_ms);
    },
    show(fresh) {
      if (!fresh.length) return;
      const box = this.$el;
      const isAtEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
      this.after = fresh[fresh.length - 1].number;
      this.lines = [...this.lines, ...fresh].slice(-MAX_LINES);
      if (isAtEnd) this.$nextTick(() => (box.scrollTop = box.scrollHeight));
    },
  },
  template: `
    <div class="sly-logs" role="log" tabindex="0" aria-label="Log of the app">
      <div v-for="line in lines" :key="line.number" :class="line.level">
        <time>{{ line.time }}</time><span>{{ line.text }}</span>
      </div>
    </div>`,
};
