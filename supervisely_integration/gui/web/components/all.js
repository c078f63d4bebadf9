/* Components for the tags of the SDK's templates that Element UI does not define. */

import { app } from "./app.js";
import { card } from "./card.js";
import { choices } from "./choices.js";
import { editor } from "./editor.js";
import { field } from "./field.js";
import { icon } from "./icon.js";
import { compiled } from "./compiled.js";
import { logs } from "./logs.js";
import { notification } from "./notification.js";
import { runApp } from "./run_app.js";
import { stepper, stepperItem } from "./stepper.js";
import { table } from "./table.js";
import { tags } from "./tags.js";
import { tree } from "./tree.js";

export const components = {
  "sly-app": app,
  "sly-card": card,
  "sly-dropdown-checkbox-selection": choices,
  "sly-editor": editor,
  "sly-field": field,
  "sly-html-compiler": compiled,
  "sly-icon": icon,
  "sly-logs": logs,
  "sly-notification-2": notification,
  "sly-run-app-button": runApp,
  "sly-select-tag": tags,
  "sly-stepper": stepper,
  "sly-stepper-item": stepperItem,
  "sly-tree-select": tree,
  "fast-table": table,
};
