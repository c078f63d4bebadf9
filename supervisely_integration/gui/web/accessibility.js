/* ARIA attributes for Element UI's widgets, which have none. */

let number = 0;
const idOf = (element) => (element.id ||= `gui-${(number += 1)}`);

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (element && element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
}

/** Label a control with its column or the title of its field. */
function nameByField(control, element) {
  if (!control || control.hasAttribute("aria-label")) return;
  const cell = element.closest("td");
  const column = cell && element.closest("table").querySelectorAll("th")[cell.cellIndex];
  if (column) return set(control, { "aria-label": column.textContent.trim() });
  const title = element.closest(".sly-field")?.querySelector(".sly-field-title");
  if (title) set(control, { "aria-labelledby": idOf(title) });
}

function nameCheckbox(element) {
  const input = element.querySelector("input");
  if (element.textContent.trim()) return;
  const row = element.closest("tr");
  const title = element.parentElement.querySelector(".sly-field-title");
  if (element.closest("thead")) set(input, { "aria-label": "Select all" });
  else if (row) set(input, { "aria-label": row.textContent.trim().replace(/\s+/g, " ") });
  else if (title) set(input, { "aria-labelledby": idOf(title) });
}

const MARKS = {
  /** Hide icon-font letters from screen readers; make a link around a button one tab stop. */
  SlyApp(element) {
    for (const link of element.querySelectorAll("a[href='']:not([hidden])")) link.hidden = true;
    for (const inner of element.querySelectorAll("a > button")) set(inner, { tabindex: -1 });
    const symbols = element.querySelectorAll("i.zmdi:not([aria-hidden]), i[class*=el-icon]:not([aria-hidden])");
    for (const symbol of symbols) set(symbol, { "aria-hidden": true });
  },
  ElCheckbox: nameCheckbox,
  ElInput: (element) => nameByField(element.querySelector("input, textarea"), element),
  ElInputNumber: (element) => nameByField(element.querySelector("input"), element),
  ElRadio(element) {
    const group = element.closest("table, .el-tabs__nav, .el-radio-group");
    // Radio buttons of one name are one tab stop, with arrow keys between them.
    if (group) set(element.querySelector("input"), { name: `radio-${idOf(group)}` });
  },
  ElTabs: (element) => set(element.querySelector(".el-tabs__nav"), { role: "radiogroup" }),
  ElSelect(element, select) {
    const input = element.querySelector("input.el-input__inner");
    const menu = select.$refs.popper?.$el;
    set(input, { role: "combobox", "aria-haspopup": "listbox", "aria-expanded": select.visible });
    if (menu) {
      set(menu.querySelector("ul") ?? menu, { role: "listbox" });
      set(input, { "aria-controls": idOf(menu) });
    }
    nameByField(input, element);
  },
  ElOption: (element, option) =>
    set(element, { role: "option", "aria-selected": Boolean(option.itemSelected) }),
  ElSlider(element) {
    const row = element.closest("tr")?.querySelector("td")?.textContent.trim();
    set(element.querySelector("input"), { "aria-label": `Percent of ${row ?? "items"}` });
  },
  ElProgress(element, bar) {
    const title = element.parentElement?.querySelector(".progress-title");
    set(element, {
      role: "progressbar",
      "aria-valuemin": 0,
      "aria-valuemax": 100,
      "aria-valuenow": Math.round(bar.percentage),
      "aria-label": title ? title.textContent.trim() : "Progress",
    });
  },
  ElButton(element) {
    if (!element.textContent.trim()) {
      const isRefresh = element.querySelector(".zmdi-refresh");
      set(element, { "aria-label": isRefresh ? "Refresh" : "Button" });
    }
  },
};

function mark() {
  const element = this.$el;
  if (element?.nodeType === Node.ELEMENT_NODE) MARKS[this.$options.name]?.(element, this);
}

/** Mixin for all components. */
export const markElements = { mounted: mark, updated: mark };
