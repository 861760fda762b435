// The page: its views, its settings, and the question. No library, no build step.

import { chat, clearChat, clearComparison, compare, showTurns } from "./chat.js";
import { showDashboard } from "./dashboard.js";
import { $, store } from "./elements.js";
import { showReview, translateReview } from "./review.js";
import { models, readModels } from "./service.js";
import { language, locale, switchLanguage, text } from "./text.js";

const VIEWS = ["chat", "compare", "load", "review"];
const REFRESH_MILLISECONDS = 2000;
let view = "chat";
let running = null;

function translate() {
  document.documentElement.lang = locale();
  for (const item of document.querySelectorAll("[data-text]")) item.textContent = text(item.dataset.text);
  for (const item of document.querySelectorAll("[data-label]")) item.setAttribute("aria-label", text(item.dataset.label));
  $("language").textContent = text("other");
  $("language").lang = language === "zh" ? "en" : "zh-CN";
  showTurns();
  showModels();
  translateReview();
  if (view === "load") showDashboard();
}

function showModels() {
  const chosen = $("model").value || models[0]?.id;
  $("model").replaceChildren(...models.map(({ id }) => new Option(id === "auto" ? text("auto") : id, id, false, id === chosen)));
}

function show(name) {
  view = name;
  for (const item of VIEWS) {
    $(`view-${item}`).hidden = item !== name;
    $(`tab-${item}`).setAttribute("aria-pressed", String(item === name));
  }
  const asks = name === "chat" || name === "compare";
  $("form").hidden = !asks;
  $("model-choice").hidden = name !== "chat";
  $("context-choice").hidden = name !== "chat";
  if (name === "load") showDashboard();
  if (name === "review") showReview();
}

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || running) return;
  running = new AbortController();
  $("send").disabled = true;
  $("stop").hidden = false;
  $("question").value = "";
  try {
    await (view === "compare" ? compare : chat)(question, running.signal);
  } finally {
    running = null;
    $("send").disabled = false;
    $("stop").hidden = true;
    if (!$("form").hidden) $("question").focus();
  }
});
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("form").requestSubmit();
  }
});
$("stop").addEventListener("click", () => running?.abort());
$("clear").addEventListener("click", () => {
  running?.abort();
  (view === "compare" ? clearComparison : clearChat)();
});
$("language").addEventListener("click", () => { switchLanguage(); translate(); });
$("theme").addEventListener("click", () => {
  const chosen = document.documentElement.dataset.theme;
  const isDark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = isDark ? "light" : "dark";
  store.set("theme", document.documentElement.dataset.theme);
});
for (const name of VIEWS) $(`tab-${name}`).addEventListener("click", () => show(name));
setInterval(() => { if (view === "load" && !document.hidden && !$("load-body").hidden) showDashboard(); }, REFRESH_MILLISECONDS);
if (store.get("theme")) document.documentElement.dataset.theme = store.get("theme");
translate();
document.addEventListener("key", () => readModels().then(showModels));
readModels().then(showModels);
