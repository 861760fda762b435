// Calls of the service, with the key of whoever uses the page.

import { $, make, makeButton } from "./elements.js";
import { text } from "./text.js";

let key = sessionStorage.getItem("key") ?? "";
let asking = null;
export let models = [];

/** A response; where a key is needed, people are asked for one until it fits or they give up.
 *
 * Paths are relative to the page's, which a proxy may have put anywhere. Where the service cannot be reached, the response is an error as the service's own. */
export async function call(path, options = {}) {
  for (;;) {
    const used = key;
    const headers = { "Content-Type": "application/json", ...(used ? { Authorization: `Bearer ${used}` } : {}) };
    const response = await fetch(path, { ...options, headers }).catch((error) => {
      if (error.name === "AbortError") throw error;
      return new Response(JSON.stringify({ error: { message: text("offline") } }), { status: 503 });
    });
    if (response.status !== 401) return response;
    if (used === key && !(await askKey())) return response;
  }
}

export const post = (path, content, options = {}) => call(path, { ...options, method: "POST", body: JSON.stringify(content) });

/** Whether somebody entered a key. */
export function askKey() {
  asking ??= openDialog().finally(() => { asking = null; });
  return asking;
}

function openDialog() {
  const dialog = $("key-dialog");
  $("key-wrong").hidden = !key;
  $("key").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const isGiven = dialog.returnValue === "use" && $("key").value.trim() !== "";
      if (isGiven) {
        key = $("key").value.trim();
        sessionStorage.setItem("key", key);
        document.dispatchEvent(new Event("key"));
      }
      resolve(isGiven);
    }, { once: true });
  });
}

/** What is wrong; of what a proxy answers in the service's place, the status. */
export async function readError(response) {
  const found = await response.json().catch(() => null);
  return found?.error?.message ?? `HTTP ${response.status}`;
}

/** Shows in an element why something could not be read. */
export async function explain(element, response, { again }) {
  const message = response.status === 403 ? text("notAllowed") : text("unreachable");
  element.replaceChildren(make("span", { content: `${message} ${await readError(response)}` }));
  if (response.status === 403 || response.status === 401) {
    element.append(" ", makeButton(text("keyOther"), async () => { if (await askKey()) again(); }));
  }
}

export async function readModels() {
  const response = await call("v1/models");
  if (response.ok) models = (await response.json()).data;
  return models;
}

export const tierNames = () => models.map(({ id }) => id).filter((id) => id !== "auto");

/** The events of a stream. */
export async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}
