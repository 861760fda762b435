// Answers that wait for a person, and the verdicts of reviewers.

import { $, announce, make, makeButton } from "./elements.js";
import { call, explain, post, readModels, tierNames } from "./service.js";
import { locale, percent, text } from "./text.js";

const REASONS = ["thumbs_down", "corrected", "unknown", "withheld", "low_confidence", "audit"];
let items = [];
let next = null;
let latest = 0;

/** The first page of the queue, as the filters choose. */
export async function showReview() {
  const place = ++latest;
  $("review-more").hidden = true;
  await readModels();
  if (place !== latest) return;
  translateReview();
  await readPage(0);
}

/** One page of it; where another one is wanted meanwhile, this one is given up. */
async function readPage(before) {
  const place = ++latest;
  const query = new URLSearchParams({ limit: 20, before });
  for (const name of ["reason", "tier"]) if ($(`review-${name}`).value) query.set(name, $(`review-${name}`).value);
  const response = await call(`v1/review?${query}`);
  if (place !== latest) return;
  if (!before) {
    items = [];
    $("queue").replaceChildren();
    $("review-count").textContent = "";
  }
  $("review-note").hidden = response.ok;
  $("review-more").hidden = true;
  if (!response.ok) return explain($("review-note"), response, { again: showReview });
  const page = await response.json();
  if (place !== latest) return;
  next = page.next;
  $("review-more").hidden = next === null;
  items.push(...page.data);
  $("queue").append(...page.data.map(makeItem));
  showCount();
}

function showCount() {
  $("review-count").textContent = items.length ? text("waitingShown", { count: items.length }) : text("nothingWaits");
}

/** Filters in the language of the page, and the items as they are. */
export function translateReview() {
  fillSelect($("review-reason"), REASONS.map((reason) => [reason, text("why")[reason]]));
  fillSelect($("review-tier"), tierNames().map((tier) => [tier, tier]));
  if (!items.length) return;
  $("queue").replaceChildren(...items.map(makeItem));
  showCount();
}

function fillSelect(element, options) {
  const chosen = element.value;
  element.replaceChildren(new Option(text("any"), ""), ...options.map(([value, label]) => new Option(label, value)));
  element.value = options.some(([value]) => value === chosen) ? chosen : "";
}

function makeItem(item) {
  const time = new Date(item.time).toLocaleString(locale(), { dateStyle: "medium", timeStyle: "short" });
  const confidence = item.confidence === null ? "" : `${text("confidence")} ${percent(item.confidence)}`;
  const facts = [time, item.tier, text("statuses")[item.status], confidence].filter(Boolean).join(" · ");
  const reasons = make("ul", { className: "chips" }, ...item.reasons.map((reason) => make("li", { content: text("why")[reason] })));
  const card = make("li", { className: "card", "data-id": item.id }, make("h3", { content: item.question, dir: "auto", tabindex: -1 }), make("p", { className: "facts", content: facts }), reasons);
  if (item.system) card.append(makeFold("system", [item.system]));
  if (item.history.length) card.append(makeFold("history", item.history));
  card.append(make("p", { className: "label", content: text("answer") }), make("p", { className: "answer quote", dir: "auto", content: item.answer || "–" }));
  const said = item.feedback.map(describeOpinion).filter(Boolean);
  if (said.length) card.append(make("p", { className: "label", content: text("said") }), make("ul", { className: "opinions" }, ...said.map((content) => make("li", { content }))));
  card.append(makeVerdict(item, card));
  return card;
}

function makeFold(name, lines) {
  return make("details", {}, make("summary", { content: text(name) }), ...lines.map((content) => make("p", { className: "answer quote", dir: "auto", content })));
}

function describeOpinion({ by, rating, corrected, comment }) {
  const parts = [rating === "none" ? "" : text(rating), corrected && `${text("corrected")}: ${corrected}`, comment && `${text("comment")}: ${comment}`].filter(Boolean);
  return parts.length ? `${by}: ${parts.join("; ")}` : "";
}

function makeVerdict(item, card) {
  const input = make("textarea", { rows: 2, dir: "auto" });
  input.value = item.feedback.map(({ corrected }) => corrected).filter(Boolean).at(-1) ?? "";
  const correct = make("button", { content: text("correct"), className: "main" });
  const note = make("p", { className: "facts", role: "status" });
  const update = () => { correct.disabled = !input.value.trim(); };
  const send = (verdict) => judge(item, card, { verdict, note, corrected: verdict === "correct" ? input.value.trim() : "" });
  input.addEventListener("input", update);
  update();
  const form = make("form", { className: "verdict" }, make("label", {}, make("span", { content: text("corrected") }), input),
    make("div", { className: "actions" }, correct, makeButton(text("accept"), () => send("accept")), makeButton(text("dismiss"), () => send("dismiss"))), note);
  form.addEventListener("submit", (event) => { event.preventDefault(); send("correct"); });
  return form;
}

async function judge(item, card, { verdict, corrected, note }) {
  const buttons = card.querySelectorAll("button");
  for (const button of buttons) button.disabled = true;
  const response = await post("v1/review", { id: item.id, verdict, corrected });
  if (!response.ok) {
    for (const button of buttons) button.disabled = false;
    return explain(note, response, { again: () => judge(item, card, { verdict, corrected, note }) });
  }
  const follower = card.nextElementSibling ?? card.previousElementSibling;
  items = items.filter(({ id }) => id !== item.id);
  card.remove();
  announce(text("verdicts")[verdict]);
  (follower?.querySelector("h3") ?? $("review-title")).focus();
  showCount();
}

$("review-more").addEventListener("click", () => readPage(next));
$("review-reload").addEventListener("click", showReview);
for (const name of ["reason", "tier"]) $(`review-${name}`).addEventListener("change", showReview);
