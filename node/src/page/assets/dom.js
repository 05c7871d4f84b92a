// Elements from plain words. Text is always text: there is no way here to make markup of it.

const SVG = "http://www.w3.org/2000/svg";

// h("td.num", { title: "…" }, "text", child, [more])
export function h(shape, attributes, ...children) {
  const [tag, ...classes] = shape.split(".");
  return filled(document.createElement(tag || "div"), classes, attributes, children);
}

export function svg(shape, attributes, ...children) {
  const [tag, ...classes] = shape.split(".");
  return filled(document.createElementNS(SVG, tag), classes, attributes, children);
}

function filled(element, classes, attributes, children) {
  if (classes.length > 0) element.setAttribute("class", classes.join(" "));
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.setAttribute("class", [element.getAttribute("class"), value].filter(Boolean).join(" "));
    else if (name === "size") for (const [key, size] of Object.entries(value)) element.style.setProperty(key, size);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

export function card(title, more, ...children) {
  const head = title && h("header", null, h("h2", null, title), more && h("span.more", null, more));
  return h("section.card", null, head, children);
}

// A table whose columns are [title, class, cell of a row]. Rows with `href` lead there by click and by Enter.
export function table(columns, rows, href) {
  const head = h("tr", null, columns.map(([title, kind]) => h("th", { class: kind, scope: "col" }, title)));
  const body = rows.map((row) => {
    const cells = columns.map(([, kind, cell]) => h("td", { class: kind }, cell(row)));
    const to = href && href(row);
    return h("tr", to ? { class: "go", onclick: (event) => { if (!event.target.closest("a, button")) location.hash = to; } } : null, cells);
  });
  return h("div.scroll", null, h("table", null, h("thead", null, head), h("tbody", null, body)));
}

// Shares of a whole: [share of 1, colour class, title].
export function meter(parts, kind) {
  return h("div.meter", { class: kind }, parts.map(([share, colour, title]) =>
    h("i", { class: colour, title, size: { width: `${Math.max(0, Math.min(1, share)) * 100}%` } })));
}

export function buttons(choices, chosen, choose) {
  return h("span.seg", { role: "group" }, choices.map(([value, words]) =>
    h("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => choose(value) }, words)));
}

// Keeps what a person has in hand when a view is drawn anew: the focus, and how far things are scrolled.
export function redraw(root, ...children) {
  const held = document.activeElement && root.contains(document.activeElement) ? document.activeElement : null;
  const place = held && (held.getAttribute("data-key") || held.getAttribute("href"));
  const scrolled = [...root.querySelectorAll("[data-scroll]")].map((it) => [it.getAttribute("data-scroll"), it.scrollTop]);
  fill(root, children);
  for (const [name, top] of scrolled) {
    const there = root.querySelector(`[data-scroll="${CSS.escape(name)}"]`);
    if (there) there.scrollTop = top;
  }
  const again = place && root.querySelector(`[data-key="${CSS.escape(place)}"], [href="${CSS.escape(place)}"]`);
  if (again) again.focus({ preventScroll: true });
}
