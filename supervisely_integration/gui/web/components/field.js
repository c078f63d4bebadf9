/* A title and a description with an icon, above their content. */

export const field = {
  props: { title: { type: String, default: "" }, description: { type: String, default: "" } },
  template: `
    <div class="sly-field">
      <div class="sly-field-head">
        <slot name="icon"></slot>
        <div>
          <div class="sly-field-title"><slot name="title">{{ title }}</slot></div>
          <div v-if="description || $slots.description" class="sly-field-description">
            <slot name="description">{{ description }}</slot>
          </div>
        </div>
      </div>
      <div v-if="$slots.default" class="sly-field-content"><slot></slot></div>
    </div>`,
};
