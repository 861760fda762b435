// Load, latency, use and cost of the tiers, read off the service's metrics.

import { $, make, makeCell } from "./elements.js";
import { call, explain, models, readModels, tierNames } from "./service.js";
import { locale, percent, text } from "./text.js";

const MAX_POINTS = 60;
const load = [];
let found = {};

/** Samples by the name of their metric, of Prometheus's text format. */
function readMetrics(content) {
  const samples = {};
  for (const line of content.split("\n")) {
    const match = /^([a-z_]+)(?:\{(.*)\})? ([-\d.e+]+)$/.exec(line);
    if (!match) continue;
    const labels = Object.fromEntries([...(match[2] ?? "").matchAll(/(\w+)="([^"]*)"/g)].map(([, name, value]) => [name, value]));
    (samples[match[1]] ??= []).push({ labels, value: Number(match[3]) });
  }
  return samples;
}

function select(name, wanted = {}) {
  return (found[name] ?? []).filter(({ labels }) => Object.entries(wanted).every(([label, value]) => labels[label] === value));
}

const total = (name, wanted) => select(name, wanted).reduce((sum, { value }) => sum + value, 0);

/** As Prometheus's histogram_quantile: linear within a bucket, the last bound beyond all. */
function quantile(ratio, name, wanted) {
  const bounds = new Map();
  for (const { labels, value } of select(`${name}_bucket`, wanted)) bounds.set(labels.le, (bounds.get(labels.le) ?? 0) + value);
  const buckets = [...bounds].map(([bound, count]) => ({ bound: bound === "+Inf" ? Infinity : Number(bound), count })).sort((a, b) => a.bound - b.bound);
  const rank = ratio * (buckets.at(-1)?.count ?? 0);
  if (!rank) return null;
  let below = { bound: 0, count: 0 };
  for (const bucket of buckets) {
    if (bucket.count >= rank) return bucket.bound === Infinity ? below.bound : below.bound + (bucket.bound - below.bound) * (rank - below.count) / (bucket.count - below.count);
    below = bucket;
  }
  return null;
}

const count = (value) => new Intl.NumberFormat(locale(), { maximumFractionDigits: 0 }).format(value);
const seconds = (value, digits) => (value === null ? "–" : new Intl.NumberFormat(locale(), { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value));
const money = (value, currency) => new Intl.NumberFormat(locale(), { style: "currency", currency, minimumFractionDigits: 2, maximumSignificantDigits: 4, roundingPriority: "morePrecision" }).format(value);

export async function showDashboard() {
  const response = await call("metrics");
  $("load-note").hidden = response.ok;
  $("load-body").hidden = !response.ok;
  if (!response.ok) return explain($("load-note"), response, { again: showDashboard });
  found = readMetrics(await response.text());
  await readModels();
  showTiers();
  showCost();
  showGraph();
  $("load-time").textContent = text("updated", { time: new Date().toLocaleTimeString(locale()) });
}

function showTiers() {
  const name = "gen_ai_server_request_duration_seconds";
  const states = new Map(models.map(({ id, limbeck }) => [id, limbeck?.state === "ready" && limbeck.circuit !== "closed" ? limbeck.circuit : limbeck?.state]));
  $("load").replaceChildren(...namesWithAnswers().filter(Boolean).map((tier) => {
    const state = states.get(tier) ?? "–";
    const answered = { gen_ai_response_model: tier, error_type: "" };
    const number = total(`${name}_count`, answered);
    const mean = number ? total(`${name}_sum`, answered) / number : null;
    const cells = [text("states")[state] ?? state, count(total("limbeck_running", { tier })), count(total("limbeck_waiting", { tier })),
      count(total("limbeck_answers_total", { tier, status: "answered" })), count(total("limbeck_answers_total", { tier, status: "unknown" })),
      seconds(mean, 3), seconds(quantile(0.95, name, answered), 3)];
    return make("tr", {}, makeCell(tier, { isHead: true }), ...cells.map((content) => makeCell(content)));
  }));
}

/** Tiers of the recipe, then what answers without a model. */
function namesWithAnswers() {
  const known = tierNames();
  const others = select("limbeck_answers_total").map(({ labels }) => labels.tier).filter((tier) => !known.includes(tier));
  return [...known, ...new Set(others)];
}

function showCost() {
  const names = namesWithAnswers();
  const all = total("limbeck_answers_total");
  const currency = select("limbeck_cost_total")[0]?.labels.currency;
  const priced = names.filter((tier) => select("limbeck_cost_total", { tier }).length);
  const rows = names.map((tier) => {
    const isModel = tierNames().includes(tier);
    const answers = total("limbeck_answers_total", { tier });
    const processor = select("limbeck_tier_processor_seconds_total", { tier });
    const cells = [count(answers), all ? percent(answers / all, 1) : "–",
      priced.includes(tier) ? money(total("limbeck_cost_total", { tier }), currency) : "–",
      ...(isModel ? [count(total("limbeck_tier_requests_total", { tier })), count(total("limbeck_tier_tokens_total", { tier, type: "input" })),
        count(total("limbeck_tier_tokens_total", { tier, type: "output" }))] : ["–", "–", "–"]),
      processor.length ? seconds(processor[0].value, 1) : "–"];
    return make("tr", {}, makeCell(tier || text("noModel"), { isHead: true }), ...cells.map((content) => makeCell(content)));
  });
  const spent = total("limbeck_cost_total");
  const sums = [count(all), "", currency ? money(spent, currency) : "–", count(total("limbeck_tier_requests_total")),
    count(total("limbeck_tier_tokens_total", { type: "input" })), count(total("limbeck_tier_tokens_total", { type: "output" })),
    seconds(total("limbeck_tier_processor_seconds_total"), 1)];
  $("cost").replaceChildren(...rows, make("tr", { className: "sum" }, makeCell(text("total"), { isHead: true }), ...sums.map((content) => makeCell(content))));
  $("cost-compared").textContent = compareCost(spent, currency);
}

function compareCost(spent, currency) {
  if (!currency) return text("noPrice");
  const [other] = select("limbeck_cost_if_largest_total");
  if (!other) return text("somePrice");
  const shown = text("compared", { tier: tierNames()[0], money: money(other.value, currency) });
  if (!other.value || spent === other.value) return shown;
  const ratio = percent(Math.abs(1 - spent / other.value), 1);
  return shown + text(spent < other.value ? "saved" : "dearer", { ratio });
}

function showGraph() {
  load.push(total("limbeck_in_flight"));
  if (load.length > MAX_POINTS) load.shift();
  const most = Math.max(1, ...load);
  $("graph").querySelector("polyline").setAttribute("points", load.map((value, place) => `${place * 5},${58 - (value / most) * 55}`).join(" "));
  $("graph").setAttribute("aria-label", `${text("inFlight")}: ${load.at(-1)}`);
  $("in-flight").textContent = count(load.at(-1));
}
