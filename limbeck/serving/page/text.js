// What the page says, in Chinese and in English.

import { store } from "./elements.js";

const TEXT = {
  zh: {
    skip: "跳到内容", views: "视图", chat: "对话", compare: "并排比较", load: "仪表盘", review: "审核", model: "模型", settings: "设置",
    theme: "明暗", empty: "提出一个问题。", compareHint: "同一个问题由所有模型回答。", tier: "模型", turns: "对话记录",
    state: "状态", running: "回答中", waiting: "排队", answered: "已回答", unknown: "不知道",
    meanSeconds: "平均秒数", p95Seconds: "95% 秒数", tokens: "词元", inFlight: "处理中的请求", question: "问题", send: "发送",
    stop: "停止", clear: "清空", machineMade: "机器生成，仅供参考；急症请立即拨打急救电话。", answer: "回答",
    keyTitle: "需要密钥", keyLabel: "密钥", keyUse: "使用", keyWrong: "密钥无效，请换一个。", keyOther: "换一个密钥",
    you: "你", auto: "自动", confidence: "把握", cancel: "取消",
    seconds: "秒", up: "有用", down: "没用", corrected: "正确答案", save: "提交", thanks: "已记录", failed: "失败", stopped: "已停止",
    other: "English", context: "带上前文",
    cost: "用量与成本", given: "收到的请求", answers: "回答", share: "占比", read: "读入词元", written: "写出词元",
    processor: "处理器秒数", money: "成本", total: "合计", noModel: "规则（无模型）",
    costNote: "收到的请求和词元包括未采用的草稿。",
    noPrice: "没有设定价格，所以没有金额：在配方的 serve.tiers 里设定 price。",
    somePrice: "有的模型没有价格，所以不能比较。",
    compared: "如果全部由 {tier} 回答：{money}", saved: "（节省 {ratio}）", dearer: "（现在多花 {ratio}）",
    notAllowed: "这个密钥无权查看。", unreachable: "读取失败：", offline: "连接不上服务器。", cut: "连接中断。", nothing: "（模型没有写出内容）", updated: "更新于 {time}",
    reviewHint: "等待人工判断的回答，最新的在前；内容已脱敏。采纳和改正会进入日志，可作训练数据。",
    reason: "原因", any: "全部", reload: "刷新", more: "更多", nothingWaits: "没有等待审核的回答。", waitingShown: "显示 {count} 条",
    accept: "采纳", correct: "改正", dismiss: "不采用", said: "读者意见", history: "前文", system: "系统提示", comment: "备注",
    verdicts: { accept: "已采纳", correct: "已改正", dismiss: "已标为不采用" },
    why: { thumbs_down: "被评为没用", corrected: "有人改正", unknown: "不知道", withheld: "被规则拦下", low_confidence: "把握低", audit: "抽查" },
    statuses: { answered: "已回答", declined: "未作答", withheld: "拦下", failed: "失败", cancelled: "已取消" },
    states: { starting: "启动中", ready: "就绪", restarting: "重启中", broken: "故障", stopped: "已停止", open: "暂停使用", "half open": "试用中" },
    reasons: { named: "指定", "smallest tier": "最小模型", escalated: "升级", degraded: "降级", fact: "知识条目", "emergency rule": "急症规则", "request rule": "处方规则" },
  },
  en: {
    skip: "Skip to the content", views: "Views", chat: "Chat", compare: "Side by side", load: "Dashboard", review: "Review", model: "Model", settings: "Settings",
    theme: "Light or dark", empty: "Ask a question.", compareHint: "Every model answers the same question.", tier: "Model", turns: "Conversation",
    state: "State", running: "Answering", waiting: "Waiting", answered: "Answered", unknown: "Unknown",
    meanSeconds: "Mean seconds", p95Seconds: "95 % within (s)", tokens: "Tokens", inFlight: "Requests being answered", question: "Question", send: "Send",
    stop: "Stop", clear: "Clear", machineMade: "Machine-made, for reference only; in an emergency call for help at once.", answer: "Answer",
    keyTitle: "A key is needed", keyLabel: "Key", keyUse: "Use it", keyWrong: "That key is not valid.", keyOther: "Use another key",
    you: "You", auto: "auto", confidence: "confidence", cancel: "Cancel",
    seconds: "s", up: "Helpful", down: "Not helpful", corrected: "The right answer", save: "Send", thanks: "Recorded", failed: "failed", stopped: "stopped",
    other: "中文", context: "With what was said before",
    cost: "Use and cost", given: "Requests given", answers: "Answers", share: "Share", read: "Tokens read", written: "Tokens written",
    processor: "Processor seconds", money: "Cost", total: "Total", noModel: "rules, no model",
    costNote: "Requests given and tokens include drafts that were not shown.",
    noPrice: "No price is set, so there is no money here: see price in the recipe's serve.tiers.",
    somePrice: "Some models have no price, so nothing can be compared.",
    compared: "If {tier} had answered everything: {money}", saved: " ({ratio} saved)", dearer: " ({ratio} more is spent now)",
    notAllowed: "This key may not see it.", unreachable: "Cannot be read:", offline: "The server cannot be reached.", cut: "The connection broke off.", nothing: "(The model wrote nothing.)", updated: "As of {time}",
    reviewHint: "Answers that wait for a person, newest first, with what identifies anyone taken out. Verdicts go to the journal, from where models can learn.",
    reason: "Reason", any: "All", reload: "Reload", more: "More", nothingWaits: "No answer waits for a review.", waitingShown: "{count} shown",
    accept: "Accept", correct: "Correct", dismiss: "Dismiss", said: "Readers said", history: "Before it", system: "Instructions", comment: "Comment",
    verdicts: { accept: "Accepted", correct: "Corrected", dismiss: "Dismissed" },
    why: { thumbs_down: "found not helpful", corrected: "corrected", unknown: "unknown", withheld: "withheld by a rule", low_confidence: "low confidence", audit: "drawn by chance" },
    statuses: { answered: "answered", declined: "declined", withheld: "withheld", failed: "failed", cancelled: "cancelled" },
    states: { starting: "starting", ready: "ready", restarting: "restarting", broken: "broken", stopped: "stopped", open: "left alone", "half open": "being tried" },
    reasons: { named: "named", "smallest tier": "smallest tier", escalated: "escalated", degraded: "degraded", fact: "stored fact", "emergency rule": "emergency rule", "request rule": "rule on prescriptions" },
  },
};

export let language = store.get("language", navigator.language.startsWith("zh") ? "zh" : "en");

/** The text of a name; `{...}` in it are filled in. */
export function text(name, values = {}) {
  const found = TEXT[language][name];
  return typeof found === "string" ? found.replace(/\{(\w+)\}/g, (_, key) => values[key]) : found;
}

/** As numbers and dates are written in it. */
export const locale = () => (language === "zh" ? "zh-CN" : "en");

export const percent = (ratio, digits = 0) => new Intl.NumberFormat(locale(), { style: "percent", maximumFractionDigits: digits }).format(ratio);

export function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  store.set("language", language);
}
