// The page: chat, tiers side by side, load. No library, no build step.

const TEXT = {
  zh: {
    skip: "跳到输入框", views: "视图", chat: "对话", compare: "并排比较", load: "负载", model: "模型",
    theme: "明暗", empty: "提出一个问题。", compareHint: "同一个问题由所有模型回答。", tier: "模型",
    state: "状态", running: "回答中", waiting: "排队", answered: "已回答", unknown: "不知道",
    meanSeconds: "平均秒数", tokens: "生成词元", inFlight: "处理中的请求", question: "问题", send: "发送",
    stop: "停止", clear: "清空", machineMade: "机器生成，仅供参考；急症请立即拨打急救电话。",
    keyTitle: "需要密钥", keyLabel: "密钥", keyUse: "使用", you: "你", auto: "自动", confidence: "把握",
    seconds: "秒", up: "有用", down: "没用", corrected: "正确答案", save: "提交", thanks: "已记录", failed: "失败",
    other: "English", context: "带上前文",
    reasons: { named: "指定", "smallest tier": "最小模型", escalated: "升级", degraded: "降级", fact: "知识条目", "emergency rule": "急症规则", "request rule": "处方规则" },
  },
  en: {
    skip: "Skip to the question", views: "Views", chat: "Chat", compare: "Side by side", load: "Load", model: "Model",
    theme: "Light or dark", empty: "Ask a question.", compareHint: "Every model answers the same question.", tier: "Model",
    state: "State", running: "Answering", waiting: "Waiting", answered: "Answered", unknown: "Unknown",
    meanSeconds: "Mean seconds", tokens: "Tokens written", inFlight: "Requests in the house", question: "Question", send: "Send",
    stop: "Stop", clear: "Clear", machineMade: "Machine-made, for reference only; in an emergency call for help at once.",
    keyTitle: "A key is needed", keyLabel: "Key", keyUse: "Use it", you: "You", auto: "auto", confidence: "confidence",
    seconds: "s", up: "Helpful", down: "Not helpful", corrected: "The right answer", save: "Send", thanks: "Recorded", failed: "failed",
    other: "中文", context: "With what was said before",
    reasons: { named: "named", "smallest tier": "smallest tier", escalated: "escalated", degraded: "degraded", fact: "stored fact", "emergency rule": "emergency rule", "request rule": "rule on prescriptions" },
  },
};
const $ = (id) => document.getElementById(id);
const store = {
  get(name, fallback) {
    try { return JSON.parse(localStorage.getItem(name)) ?? fallback; } catch { return fallback; }
  },
  set(name, value) {
    try { localStorage.setItem(name, JSON.stringify(value)); } catch { /* private windows keep nothing */ }
  },
};
let language = store.get("language", navigator.language.startsWith("zh") ? "zh" : "en");
let turns = store.get("turns", []);
let key = sessionStorage.getItem("key") ?? "";
let view = "chat";
let models = [];
let running = null;
const load = [];

const text = (name) => TEXT[language][name];

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const item of document.querySelectorAll("[data-text]")) item.textContent = text(item.dataset.text);
  for (const item of document.querySelectorAll("[data-label]")) item.setAttribute("aria-label", text(item.dataset.label));
  $("language").textContent = text("other");
  $("language").lang = language === "zh" ? "en" : "zh-CN";
  showTurns();
  showModels();
}

function headers() {
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function call(path, options = {}) {
  for (;;) {
    const response = await fetch(path, { ...options, headers: headers() });
    if (response.status !== 401) return response;
    await askKey();
  }
}

function askKey() {
  const dialog = $("key-dialog");
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      key = $("key").value.trim();
      sessionStorage.setItem("key", key);
      resolve();
    }, { once: true });
  });
}

async function readModels() {
  const response = await call("/v1/models");
  models = (await response.json()).data ?? [];
  showModels();
}

function showModels() {
  const chosen = $("model").value || models[0]?.id;
  $("model").replaceChildren(...models.map(({ id }) => {
    const option = new Option(id === "auto" ? text("auto") : id, id);
    option.selected = id === chosen;
    return option;
  }));
}

function make(tag, { className = "", content = "" } = {}) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (content) element.textContent = content;
  return element;
}

function describe({ limbeck, seconds }) {
  if (!limbeck) return "";
  const parts = [limbeck.tier, text("reasons")[limbeck.route_reason], limbeck.source];
  if (limbeck.confidence !== null && limbeck.confidence !== undefined) parts.push(`${text("confidence")} ${Math.round(limbeck.confidence * 100)} %`);
  parts.push(`${seconds.toFixed(2)} ${text("seconds")}`);
  return parts.filter(Boolean).join(" · ");
}

function fill(element, turn) {
  element.className = ["theirs", turn.limbeck?.status, turn.error ? "error" : "", turn.pending ? "pending" : ""].filter(Boolean).join(" ");
  element.querySelector(".answer").textContent = turn.error ? `${text("failed")}: ${turn.error}` : turn.answer;
  element.querySelector(".facts").textContent = describe(turn);
}

function makeAnswer(turn) {
  const element = make("li");
  element.append(make("p", { className: "answer" }), make("p", { className: "facts" }));
  fill(element, turn);
  if (!turn.pending && turn.id) element.append(makeRating(turn));
  return element;
}

function makeRating(turn) {
  const box = make("div", { className: "rate" });
  const send = async (feedback) => {
    const response = await call("/v1/feedback", { method: "POST", body: JSON.stringify({ id: turn.id, ...feedback }) });
    turn.rated = response.ok ? feedback.rating ?? turn.rated ?? "down" : undefined;
    save();
    const said = make("p", { className: "facts", content: response.ok ? text("thanks") : text("failed") });
    said.setAttribute("role", "status");
    box.replaceChildren(said);
  };
  for (const rating of ["up", "down"]) {
    const button = make("button", { content: text(rating) });
    button.type = "button";
    button.setAttribute("aria-pressed", String(turn.rated === rating));
    button.addEventListener("click", () => (rating === "up" ? send({ rating }) : box.append(makeCorrection(send))), { once: rating === "down" });
    box.append(button);
  }
  return box;
}

function makeCorrection(send) {
  const form = make("form");
  const label = make("label", { content: `${text("corrected")} ` });
  const input = make("input");
  input.maxLength = 20000;
  label.append(input);
  form.append(label, make("button", { content: text("save") }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send({ rating: "down", corrected: input.value.trim() });
  });
  setTimeout(() => input.focus());
  return form;
}

function showTurns() {
  $("empty").hidden = turns.length > 0;
  $("turns").replaceChildren(...turns.flatMap((turn) => {
    const mine = make("li", { className: "mine" });
    mine.append(make("p", { className: "answer", content: turn.question }));
    return [mine, makeAnswer(turn)];
  }));
}

function save() {
  store.set("turns", turns.filter((turn) => !turn.pending).slice(-50));
}

async function* readEvents(response) {
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

async function answer(turn, model, messages, { signal, onChange }) {
  const started = performance.now();
  try {
    const response = await call("/v1/chat/completions", {
      method: "POST", signal, body: JSON.stringify({ model, messages, stream: true }),
    });
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
    if (error.name !== "AbortError") turn.error = error.message;
  }
  turn.seconds ??= (performance.now() - started) / 1000;
  turn.pending = false;
}

async function chat(question, signal) {
  const messages = !$("context").checked ? [] : turns.filter((turn) => turn.answer && !turn.error && turn.limbeck?.status === "answered").slice(-4)
    .flatMap((turn) => [{ role: "user", content: turn.question }, { role: "assistant", content: turn.answer }]);
  const turn = { question, answer: "", pending: true };
  turns.push(turn);
  showTurns();
  const element = $("turns").lastElementChild;
  element.scrollIntoView({ block: "end" });
  await answer(turn, $("model").value, [...messages, { role: "user", content: question }], { signal, onChange: () => fill(element, turn) });
  save();
  showTurns();
  $("turns").lastElementChild?.scrollIntoView({ block: "end" });
}

async function compare(question, signal) {
  const tiers = models.filter(({ id }) => id !== "auto");
  $("columns").replaceChildren();
  await Promise.all(tiers.map(async ({ id }) => {
    const turn = { question, answer: "", pending: true };
    const column = make("article", { className: "column" });
    const body = make("div");
    body.append(make("p", { className: "answer" }), make("p", { className: "facts" }));
    column.append(make("h3", { content: id }), body);
    $("columns").append(column);
    const onChange = () => fill(body, turn);
    await answer(turn, id, [{ role: "user", content: question }], { signal, onChange });
    onChange();
  }));
}

function readMetrics(content) {
  const found = {};
  for (const line of content.split("\n")) {
    const match = /^([a-z_]+)(?:\{(.*)\})? ([-\d.e+]+)$/.exec(line);
    if (!match) continue;
    const labels = Object.fromEntries([...(match[2] ?? "").matchAll(/(\w+)="([^"]*)"/g)].map(([, name, value]) => [name, value]));
    (found[match[1]] ??= []).push({ labels, value: Number(match[3]) });
  }
  return found;
}

async function showLoad() {
  const response = await call("/metrics");
  if (!response.ok) return;
  const found = readMetrics(await response.text());
  const total = (name, wanted) => (found[name] ?? []).filter(({ labels }) => Object.entries(wanted).every(([label, value]) => labels[label] === value))
    .reduce((sum, { value }) => sum + value, 0);
  await readModels();
  const rows = models.filter(({ id }) => id !== "auto").map(({ id, limbeck }) => ({ tier: id, state: limbeck.state }));
  if (total("limbeck_answers_total", { tier: "facts" })) rows.push({ tier: "facts", state: "–" });
  $("load").replaceChildren(...rows.map(({ tier, state }) => {
    const row = make("tr");
    const head = make("th", { content: tier });
    head.scope = "row";
    const answered = { gen_ai_response_model: tier, error_type: "" };
    const count = total("gen_ai_server_request_duration_seconds_count", answered);
    const mean = count ? total("gen_ai_server_request_duration_seconds_sum", answered) / count : 0;
    const cells = [state, total("limbeck_running", { tier }), total("limbeck_waiting", { tier }),
      total("limbeck_answers_total", { tier, status: "answered" }), total("limbeck_answers_total", { tier, status: "unknown" }),
      mean.toFixed(3), total("limbeck_tokens_total", { tier, type: "output" })];
    row.append(head, ...cells.map((content) => make("td", { content: String(content) })));
    return row;
  }));
  load.push(total("limbeck_in_flight", {}));
  if (load.length > 60) load.shift();
  const most = Math.max(1, ...load);
  $("graph").querySelector("polyline").setAttribute("points", load.map((value, place) => `${place * 5},${58 - (value / most) * 55}`).join(" "));
}

function show(name) {
  view = name;
  for (const item of ["chat", "compare", "load"]) {
    $(`view-${item}`).hidden = item !== name;
    $(`tab-${item}`).setAttribute("aria-pressed", String(item === name));
  }
  $("form").hidden = name === "load";
  if (name === "load") showLoad();
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
    $("question").focus();
  }
});
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("form").requestSubmit();
  }
});
$("stop").addEventListener("click", () => running?.abort());
$("clear").addEventListener("click", () => { turns = []; save(); showTurns(); $("columns").replaceChildren(); });
$("language").addEventListener("click", () => { language = language === "zh" ? "en" : "zh"; store.set("language", language); translate(); });
$("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark"
    || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  store.set("theme", document.documentElement.dataset.theme);
});
for (const name of ["chat", "compare", "load"]) $(`tab-${name}`).addEventListener("click", () => show(name));
setInterval(() => { if (view === "load" && !document.hidden) showLoad(); }, 2000);
if (store.get("theme")) document.documentElement.dataset.theme = store.get("theme");
translate();
readModels();
