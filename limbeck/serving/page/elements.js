// Elements of the page, and what the browser remembers.

export const $ = (id) => document.getElementById(id);

export const store = {
  get(name, fallback) {
    try { return JSON.parse(localStorage.getItem(name)) ?? fallback; } catch { return fallback; }
  },
  set(name, value) {
    try { localStorage.setItem(name, JSON.stringify(value)); } catch { /* private windows keep nothing */ }
  },
};

/** A new element; its content is text, never markup. */
export function make(tag, { className = "", content = "", ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (content !== "") element.textContent = content;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function makeButton(content, onClick, attributes = {}) {
  const button = make("button", { content, type: "button", ...attributes });
  button.addEventListener("click", onClick);
  return button;
}

export function makeCell(content, { isHead = false } = {}) {
  return isHead ? make("th", { content, scope: "row" }) : make("td", { content: String(content) });
}

/** Changes what is shown; whoever was at its end stays there, and nobody else is moved. */
export function keepEnd(change) {
  const near = 40;
  const ends = [$("content"), document.documentElement].filter((box) => box.scrollTop + box.clientHeight > box.scrollHeight - near);
  change();
  for (const box of ends) box.scrollTop = box.scrollHeight;
}

/** Tells a screen reader, once. */
export function announce(message) {
  $("said").textContent = message;
}
