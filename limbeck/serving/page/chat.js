// The conversation, and one question to all models side by side.

import { $, announce, make, makeButton, store } from "./elements.js";
import { post, readEvents, tierNames } from "./service.js";
import { percent, text } from "./text.js";

const MAX_KEPT = 50;
const MAX_CONTEXT = 4;
let turns = store.get("turns", []);
let columns = [];

function describe({ limbeck, seconds, stopped }) {
  const parts = [];
  if (limbeck) parts.push(limbeck.tier, text("reasons")[limbeck.route_reason] ?? limbeck.route_reason, limbeck.source);
  if (typeof limbeck?.confidence === "number") parts.push(`${text("confidence")} ${percent(limbeck.confidence)}`);
  if (limbeck) parts.push(`${seconds.toFixed(2)} ${text("seconds")}`);
  if (stopped) parts.push(text("stopped"));
  return parts.filter(Boolean).join(" · ");
}

function fill(element, turn) {
  const classes = [turn.limbeck?.status, turn.error ? "error" : "", turn.pending ? "pending" : ""];
  element.className = [element.dataset.kind, ...classes].filter(Boolean).join(" ");
  element.querySelector(".answer").textContent = turn.error ? `${text("failed")}: ${turn.error}` : turn.answer;
  element.querySelector(".facts").textContent = describe(turn);
}

function makeAnswer(turn, { tag = "li", kind = "theirs" } = {}) {
  const element = make(tag, { "data-kind": kind }, make("span", { className: "hidden", content: text("answer") }), make("p", { className: "answer" }), make("p", { className: "facts" }));
  fill(element, turn);
  if (!turn.pending && turn.id && !turn.error) element.append(makeRating(turn));
  return element;
}

function makeRating(turn) {
  const box = make("div", { className: "rate" });
  const send = async (feedback) => {
    const response = await post("/v1/feedback", { id: turn.id, ...feedback });
    if (response.ok) turn.rated = feedback.rating;
    save();
    const message = response.ok ? text("thanks") : `${text("failed")}: ${(await response.json().catch(() => null))?.error?.message ?? response.status}`;
    box.replaceChildren(make("p", { className: "facts", content: message, role: "status" }));
  };
  const correct = () => { if (!box.querySelector("form")) box.append(makeCorrection(send)); };
  for (const rating of ["up", "down"]) {
    box.append(makeButton(text(rating), () => (rating === "up" ? send({ rating }) : correct()), { "aria-pressed": String(turn.rated === rating) }));
  }
  return box;
}

function makeCorrection(send) {
  const input = make("input", { maxlength: 20000 });
  const form = make("form", {}, make("label", { content: `${text("corrected")} ` }, input), make("button", { content: text("save") }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send({ rating: "down", corrected: input.value.trim() });
  });
  setTimeout(() => input.focus());
  return form;
}

export function showTurns() {
  $("empty").hidden = turns.length > 0;
  $("turns").replaceChildren(...turns.flatMap((turn) => [makeQuestion(turn), makeAnswer(turn)]));
  for (const { body, turn } of columns) fill(body, turn);
}

function makeQuestion({ question }) {
  return make("li", { className: "mine" }, make("span", { className: "hidden", content: text("you") }), make("p", { className: "answer", content: question }));
}

export function clearChat() {
  turns = [];
  save();
  showTurns();
}

export function clearComparison() {
  columns = [];
  $("asked").textContent = "";
  $("columns").replaceChildren();
}

function save() {
  store.set("turns", turns.filter((turn) => !turn.pending).slice(-MAX_KEPT));
}

async function answer(turn, model, messages, { signal, onChange }) {
  const started = performance.now();
  try {
    const response = await post("/v1/chat/completions", { model, messages, stream: true }, { signal });
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const event of readEvents(response)) {
      if (event.error) throw new Error(event.error.message);
      turn.id = event.id;
      turn.answer += event.choices[0]?.delta.content ?? "";
      if (event.limbeck) turn.limbeck = event.limbeck;
      turn.seconds = (performance.now() - started) / 1000;
      onChange();
    }
  } catch (error) {
    if (error.name === "AbortError") turn.stopped = true;
    else turn.error = error.message;
  }
  turn.seconds ??= (performance.now() - started) / 1000;
  turn.pending = false;
}

export async function chat(question, signal) {
  const messages = !$("context").checked ? [] : turns.filter((turn) => turn.answer && !turn.error && turn.limbeck?.status === "answered").slice(-MAX_CONTEXT)
    .flatMap((turn) => [{ role: "user", content: turn.question }, { role: "assistant", content: turn.answer }]);
  const turn = { question, answer: "", pending: true };
  turns.push(turn);
  $("empty").hidden = true;
  const element = makeAnswer(turn);
  $("turns").append(makeQuestion(turn), element);
  element.scrollIntoView({ block: "end" });
  await answer(turn, $("model").value, [...messages, { role: "user", content: question }], { signal, onChange: () => fill(element, turn) });
  save();
  const whole = makeAnswer(turn);
  element.replaceWith(whole);
  whole.scrollIntoView({ block: "end" });
  announce(whole.querySelector(".answer").textContent);
}

export async function compare(question, signal) {
  clearComparison();
  $("asked").textContent = question;
  await Promise.all(tierNames().map(async (id) => {
    const turn = { question, answer: "", pending: true };
    const body = makeAnswer(turn, { tag: "div", kind: "body" });
    columns.push({ body, turn });
    $("columns").append(make("article", { className: "column" }, make("h3", { content: id }), body));
    const onChange = () => fill(body, turn);
    await answer(turn, id, [{ role: "user", content: question }], { signal, onChange });
    onChange();
  }));
  announce(columns.map(({ turn }) => turn.answer).join("\n"));
}
