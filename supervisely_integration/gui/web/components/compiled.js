/* A table cell, which may be formatted. It is no Vue template, unlike on the platform: a template in
 * the name of a model would run its expressions. */

export const compiled = {
  props: { template: { type: [String, Number], default: "" } },
  template: `<span v-markup="template"></span>`,
};
