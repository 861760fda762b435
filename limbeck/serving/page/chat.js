// The conversation, and one question to all models side by side.

import { $, announce, keepEnd, make, makeButton, store } from "./elements.js";
import { post, readError, readEvents, tierNames } from "./service.js";
import { percent, text } from "./text.js";

const MAX_KEPT = 50;
const MAX_CONTEXT = 4;
let turns = store.get("turns", []);
let columns = [];
/** Of a turn, the element that shows its answer now. */
const elements = new WeakMap();

function describe({ limbeck, seconds, stopped, error, answer }) {
  const parts = [];
  if (limbeck) parts.push(limbeck.tier, text("reasons")[limbeck.route_reason] ?? limbeck.route_reason, limbeck.source);
  if (typeof limbeck?.confidence === "number") parts.push(`${text("confidence")} ${percent(limbeck.confidence)}`);
  if (limbeck) parts.push(`${seconds.toFixed(2)} ${text("seconds")}`);
  if (stopped) parts.push(text("stopped"));
  if (error && answer) parts.push(`${text("failed")}: ${error}`);
  return parts.filter(Boolean).join(" · ");
}

function fill(turn) {
  const element = elements.get(turn);
  const fault = turn.answer ? "broken" : "error";
  const classes = [turn.limbeck?.status, turn.error ? fault : "", turn.pending ? "pending" : ""];
  element.className = [element.dataset.kind, ...classes].filter(Boolean).join(" ");
  element.querySelector(".answer").textContent = turn.answer || explainEmpty(turn);
  element.querySelector(".facts").textContent = describe(turn);
}

function explainEmpty({ error, pending, stopped }) {
  if (error) return `${text("failed")}: ${error}`;
  return pending || stopped ? "" : text("nothing");
}

function makeAnswer(turn, { tag = "li", kind = "theirs" } = {}) {
  const element = make(tag, { "data-kind": kind }, make("span", { className: "hidden", content: text("answer") }), make("p", { className: "answer", dir: "auto" }), make("p", { className: "facts" }));
  elements.set(turn, element);
  fill(turn);
  if (!turn.pending && turn.id && !turn.error) element.append(makeRating(turn));
  return element;
}

function makeRating(turn) {
  const box = make("div", { className: "rate" });
  const note = make("p", { className: "facts", role: "status" });
  const send = async (feedback) => {
    const response = await post("v1/feedback", { id: turn.id, ...feedback });
    note.textContent = response.ok ? text("thanks") : `${text("failed")}: ${await readError(response)}`;
    if (!response.ok) return box.append(note);
    turn.rated = feedback.rating;
    save();
    box.replaceChildren(note);
  };
  const correct = () => { if (!box.querySelector("form")) box.append(makeCorrection(send)); };
  for (const rating of ["up", "down"]) {
    box.append(makeButton(text(rating), () => (rating === "up" ? send({ rating }) : correct()), { "aria-pressed": String(turn.rated === rating) }));
  }
  return box;
}

function makeCorrection(send) {
  const input = make("input", { dir: "auto" });
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
  columns.forEach(fill);
}

function makeQuestion({ question }) {
  return make("li", { className: "mine" }, make("span", { className: "hidden", content: text("you") }), make("p", { className: "answer", dir: "auto", content: question }));
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

/** Keeps the conversation; what is being answered counts as stopped, should the page be left. */
function save() {
  store.set("turns", turns.slice(-MAX_KEPT).map((turn) => (turn.pending ? { ...turn, pending: false, stopped: true } : turn)));
}

/** What another tab has kept, with what is being answered here. */
function merge() {
  const own = turns.filter(({ pending }) => pending);
  const kept = store.get("turns", []).map((turn) => own.find(({ key }) => key === turn.key) ?? turn);
  turns = [...kept, ...own.filter((turn) => !kept.includes(turn))];
  if (!$("turns").querySelector("form")) showTurns();
}

addEventListener("storage", ({ key }) => { if (key === "turns") merge(); });
addEventListener("pagehide", () => { if (turns.some(({ pending }) => pending)) save(); });

async function answer(turn, model, messages, { signal }) {
  const started = performance.now();
  try {
    const response = await post("v1/chat/completions", { model, messages, stream: true }, { signal });
    if (!response.ok) throw new Error(await readError(response));
    for await (const event of readEvents(response)) {
      if (event.error) throw new Error(event.error.message);
      turn.id = event.id;
      turn.answer += event.choices[0]?.delta.content ?? "";
      if (event.limbeck) turn.limbeck = event.limbeck;
      turn.seconds = (performance.now() - started) / 1000;
      keepEnd(() => fill(turn));
    }
    if (!turn.limbeck) turn.error = text("cut"); // the last event of an answer has it
  } catch (error) {
    if (error.name === "AbortError") turn.stopped = true;
    else turn.error = error instanceof TypeError ? text("cut") : error.message;
  }
  turn.seconds ??= (performance.now() - started) / 1000;
  turn.pending = false;
}

export async function chat(question, signal) {
  const messages = !$("context").checked ? [] : turns.filter((turn) => turn.answer && !turn.error && turn.limbeck?.status === "answered").slice(-MAX_CONTEXT)
    .flatMap((turn) => [{ role: "user", content: turn.question }, { role: "assistant", content: turn.answer }]);
  const turn = { key: `${Date.now()}-${Math.random()}`, question, answer: "", pending: true };
  turns.push(turn);
  save();
  $("empty").hidden = true;
  const element = makeAnswer(turn);
  $("turns").append(makeQuestion(turn), element);
  element.scrollIntoView({ block: "end" });
  await answer(turn, $("model").value || "auto", [...messages, { role: "user", content: question }], { signal });
  if (!turns.includes(turn)) return; // cleared meanwhile
  save();
  const shown = elements.get(turn);
  const whole = makeAnswer(turn);
  keepEnd(() => shown.replaceWith(whole));
  announce(whole.querySelector(".answer").textContent);
}

export async function compare(question, signal) {
  clearComparison();
  $("asked").textContent = question;
  await Promise.all(tierNames().map(async (id) => {
    const turn = { question, answer: "", pending: true };
    const body = makeAnswer(turn, { tag: "div", kind: "body" });
    columns.push(turn);
    $("columns").append(make("article", { className: "column" }, make("h3", { content: id }), body));
    await answer(turn, id, [{ role: "user", content: question }], { signal });
    fill(turn);
  }));
  announce(columns.map(({ answer }) => answer).join("\n"));
}
