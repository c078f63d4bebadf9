/* The page of an app: the SDK's templates with Vue 2, Element UI 1.x and local components. */

import { markElements } from "./accessibility.js";
import { components } from "./components/all.js";
import { openInstanceLinks } from "./links.js";
import { markup } from "./markup.js";

ELEMENT.locale(ELEMENT.lang.en);
Vue.use(ELEMENT);
Vue.config.productionTip = false;
Vue.mixin(markElements);
Vue.directive("markup", markup);
for (const [name, component] of Object.entries(components)) Vue.component(name, component);

const root = document.getElementById("sly-app");
root.hidden = false;
new Vue({ el: root });
openInstanceLinks();
