/* A notification box. */

export const notification = {
  props: { options: { type: [Object, String], default: "" } },
  template: `
    <div class="notification-box notification-box-warning" role="note">
      <i class="notification-box-icon zmdi zmdi-alert-triangle" aria-hidden="true"></i>
      <div>
        <div class="notification-box-title"><slot name="title"></slot></div>
        <slot></slot>
      </div>
    </div>`,
};
