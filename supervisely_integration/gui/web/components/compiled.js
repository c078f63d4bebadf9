/* A table cell that may contain a Vue template; most are plain text. */

export const compiled = {
  props: {
    template: { type: [String, Number], default: "" },
    data: { type: Object, default: () => ({}) },
    state: { type: Object, default: () => ({}) },
    params: { type: Object, default: () => ({}) },
  },
  render(h) {
    const text = String(this.template ?? "");
    if (!/[<{]/.test(text)) return h("span", text);
    const part = { ...Vue.compile(`<span>${text}</span>`), props: ["data", "state", "params"] };
    return h(part, { props: { data: this.data, state: this.state, params: this.params } });
  },
};
