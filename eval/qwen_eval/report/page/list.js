// A virtual list: any number of items, elements only for the visible rows.
const ROW = 56; // pixels, as in page.css
const SPARE = 8; // rows beyond either edge

class VirtualList {
  // box: the scrolling listbox. rows: the element inside it. fill(row, index): renders one item. chosen(index): called for the selected one.
  constructor(box, rows, fill, chosen) {
    Object.assign(this, { box, rows, fill, chosen, items: [], at: -1, drawn: "" });
    box.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(box);
    box.addEventListener("keydown", (event) => this.key(event));
    rows.addEventListener("click", (event) => {
      const row = event.target.closest("[role=option]");
      if (row) this.select(Number(row.dataset.position));
    });
  }

  // New items; the first is selected.
  show(items) {
    this.items = items;
    this.rows.style.setProperty("height", `${items.length * ROW}px`);
    this.box.scrollTop = 0;
    this.drawn = "";
    this.select(items.length ? 0 : -1);
  }

  select(position) {
    this.at = position;
    if (position >= 0) {
      const top = position * ROW;
      if (top < this.box.scrollTop) this.box.scrollTop = top;
      else if (top + ROW > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + ROW - this.box.clientHeight;
    }
    this.drawn = "";
    this.draw();
    this.chosen(position < 0 ? -1 : this.items[position]);
  }

  draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - SPARE);
    const last = Math.min(this.items.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + SPARE);
    if (this.drawn === `${first}-${last}`) return;
    this.drawn = `${first}-${last}`;
    this.rows.replaceChildren();
    for (let position = first; position < last; position++) {
      const row = element("div", "row");
      row.id = `item-${position}`;
      row.setAttribute("role", "option");
      row.setAttribute("aria-setsize", this.items.length);
      row.setAttribute("aria-posinset", position + 1);
      row.setAttribute("aria-selected", position === this.at);
      row.dataset.position = position;
      row.style.setProperty("top", `${position * ROW}px`);
      this.fill(row, this.items[position]);
      this.rows.append(row);
    }
    if (this.at >= first && this.at < last) this.box.setAttribute("aria-activedescendant", `item-${this.at}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / ROW) - 1);
    const steps = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey || !this.items.length) return;
    event.preventDefault();
    this.select(Math.min(this.items.length - 1, Math.max(0, this.at + steps[event.key])));
  }
}

// An element with a class and children; strings become text nodes, never HTML.
function element(tag, name = "", ...children) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...children);
  return made;
}
