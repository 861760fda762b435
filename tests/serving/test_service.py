"""The service: rules before and after the models, and the way up through the tiers."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from limbeck.contracts.answer_policy import AnswerPolicy, Judgement
from limbeck.contracts.answerer import Message
from limbeck.contracts.errors import EngineDownError, NoTierError, QueueFullError, RefusedError
from limbeck.contracts.familiarity import Familiarity
from limbeck.contracts.safety_rules import SafetyRules
from limbeck.data.packs.stored_facts import make_facts
from limbeck.serving.config import AUTO, TierConfig
from limbeck.serving.engine.base import Engine, Generation
from limbeck.serving.engine.messages import Finished, Generate, Piece
from limbeck.serving.facts import NO_FACTS, make_store
from limbeck.serving.language import Language
from limbeck.serving.safety import compile_rules
from limbeck.serving.service import AnswerText, End, Route, Service, ServiceRequest
from limbeck.serving.tier import Tier

SURE, UNSURE = (Judgement(ratio, 0.5, 1.0, 0.1) for ratio in (0.9, 0.2))
QUESTION = Message("user", "高血压有哪些症状？")
CALIBRATED = AnswerPolicy(familiarity=Familiarity.of(["高血压"]))


class Scripted(Engine, Generation):
    """An engine that answers what it is told, in two pieces."""

    def __init__(
        self, text, judgement: Judgement | None = SURE, *, error=None, dies=False, ratio=0.8, **said
    ):
        self.text, self.judgement, self.error, self.dies = text, judgement, error, dies
        self.ratio, self.said = ratio, said
        self.num_asked = self.num_cancelled = 0

    @property
    def num_waiting(self):
        return 0

    @property
    def num_running(self):
        return 0

    def start(self):
        pass

    async def stop(self):
        pass

    def submit(self, request):
        self.num_asked += 1
        if self.error:
            raise self.error
        self.request = request
        return self

    async def __aiter__(self):
        yield Piece(1, 0, self.text[:2])
        if self.dies:
            raise EngineDownError("died")
        yield Piece(1, 0, self.text[2:])
        yield Finished(1, 0, "stop", 7, 3, self.ratio, self.judgement, False, **self.said)

    def cancel(self):
        self.num_cancelled += 1


def make(engines, *, policy=CALIBRATED, rules=(), router=None, facts=NO_FACTS, **settings):
    tiers = [
        Tier(
            TierConfig(name=name, model=name, max_new_tokens=9, **settings.get(name, {})),
            engine,
            AnswerPolicy() if name in settings else policy,
            f"key-{name}",
        )
        for name, engine in engines.items()
    ]
    return Service(tiers, rules=rules, router=router, facts=facts)


def ask(
    service,
    *,
    model=AUTO,
    question="高血压有哪些症状？",
    show_unsure=False,
    language: Language = "zh",
):
    generate = Generate(0, (Message("user", question),), 0)

    async def read():
        asked = ServiceRequest(model, generate, show_unsure, language)
        return [event async for event in service.answer(asked)]

    route, *events = asyncio.run(read())
    assert isinstance(route, Route)
    text = "".join(event.text for event in events if isinstance(event, AnswerText))
    (end,) = [event for event in events if isinstance(event, End)]
    return route, text, end


def test_the_smallest_tier_that_is_sure_answers():
    large, small = Scripted("大模型的答案"), Scripted("小模型的答案")
    route, text, end = ask(make({"large": large, "small": small}))
    assert (route.tier, route.reason, route.model_key) == ("small", "smallest tier", "key-small")
    assert (text, end.status, end.confidence_ratio) == ("小模型的答案", "answered", 0.9)
    assert large.num_asked == 0
    assert small.request.max_new_tokens == 9


def test_what_it_is_not_sure_of_goes_up():
    small = Scripted("不确定", UNSURE)
    route, text, _ = ask(make({"large": Scripted("大模型的答案"), "small": small}))
    assert (route.tier, route.reason, text) == ("large", "escalated", "大模型的答案")
    assert small.num_cancelled == 1


@pytest.mark.parametrize(("language", "said"), [("zh", "不知道。"), ("en", "I do not know.")])
def test_where_nobody_is_sure_nobody_answers(language, said):
    engines = {name: Scripted("瞎猜的", UNSURE) for name in ("large", "small")}
    _, text, end = ask(make(engines), language=language)
    assert (text, end.status, end.num_tokens) == (said, "unknown", 3)
    _, text, end = ask(make(engines), language=language, show_unsure=True)
    assert (text, end.status) == ("瞎猜的", "answered")


def test_auto_never_ends_at_a_tier_that_cannot_decline():
    large, small = Scripted("什么都答"), Scripted("瞎猜的", UNSURE)
    tiers = make({"large": large, "small": small}).tiers
    service = Service([replace(tiers["large"], policy=AnswerPolicy()), tiers["small"]])
    _, text, end = ask(service)
    assert (text, end.status, large.num_asked) == ("不知道。", "unknown", 0)
    assert ask(service, model="large")[1] == "什么都答"


@pytest.mark.parametrize(
    "broken", [Scripted("x", error=QueueFullError("full")), Scripted("半截答案", dies=True)]
)
def test_a_tier_that_is_down_is_stood_in_for(broken):
    route, text, _ = ask(make({"large": Scripted("大模型的答案"), "small": broken}))
    assert (route.tier, route.reason, text) == ("large", "degraded", "大模型的答案")


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (Scripted("x", error=QueueFullError("full")), "full"),
        (Scripted("x", error=EngineDownError("gone")), "down"),
        (Scripted("half", dies=True), "down"),
        (Scripted("x", error=RefusedError("too long", is_too_long=True)), "refused"),
    ],
)
def test_where_escalation_fails_the_smaller_tiers_own_verdict_is_given(broken, why):
    engines = {"large": broken, "small": Scripted("不确定", UNSURE)}
    route, text, end = ask(make(engines))
    assert (route.tier, route.reason, route.failures) == ("small", "degraded", {"large": why})
    assert (text, end.status, end.confidence_ratio) == ("不知道。", "unknown", 0.2)


def test_a_tier_that_fails_before_its_first_word_is_stood_in_for_in_a_stream_too():
    """The last one streams: what a smaller tier has said is there until then."""
    engines = {
        "large": Scripted("x", error=EngineDownError("gone")),
        "small": Scripted("?", UNSURE),
    }
    service = make(engines, large={"min_confidence_ratio": 0.0})
    route, text, _ = ask(service)
    assert (route.tier, route.reason, text) == ("small", "degraded", "不知道。")
    engines["large"] = Scripted("大模型", dies=True)
    with pytest.raises(EngineDownError):  # too late: a word of it has been shown
        ask(make(engines, large={"min_confidence_ratio": 0.0}))


REMOTE = {"place": {"kind": "openai_http", "url": "http://127.0.0.1:1/v1"}}


@pytest.mark.parametrize(
    ("settings", "ratio", "status", "confidence"),
    [
        (REMOTE, 0.3, "answered", 0.3),
        (REMOTE, None, "answered", None),  # without log-probabilities every answer is taken
        (REMOTE | {"min_confidence_ratio": 0.4}, 0.5, "answered", 0.5),
        (REMOTE | {"min_confidence_ratio": 0.4}, 0.3, "unknown", 0.3),
        (REMOTE | {"min_confidence_ratio": 0.4}, None, "unknown", None),
        ({"min_confidence_ratio": 0.4}, 0.3, "unknown", 0.3),
    ],
)
def test_auto_goes_up_to_another_server_and_takes_what_is_sure_enough(
    settings, ratio, status, confidence
):
    large = Scripted("云端的答案", None, ratio=ratio)
    service = make({"large": large, "small": Scripted("?", UNSURE)}, large=settings)
    route, text, end = ask(service)
    assert (route.tier, route.reason, end.status) == ("large", "escalated", status)
    assert end.confidence_ratio == confidence
    assert text == ("云端的答案" if status == "answered" else "不知道。")


@pytest.mark.parametrize("status", ["unknown", "refused", "withheld", "emergency"])
def test_what_another_limbeck_service_has_decided_stays(status):
    large = Scripted("云端的话", None, status=status)
    service = make({"large": large, "small": Scripted("?", UNSURE)}, large=REMOTE)
    for model in (AUTO, "large"):
        _, text, end = ask(service, model=model)
        assert (text[:2], end.status) == ("云端", status)


def test_no_tier_is_an_error_that_gives_the_reason():
    full = {name: Scripted("", error=QueueFullError("full")) for name in ("large", "small")}
    with pytest.raises(NoTierError, match="full; full") as found:
        ask(make(full))
    assert found.value.is_full
    long = {name: Scripted("", error=RefusedError("x", is_too_long=True)) for name in full}
    with pytest.raises(RefusedError):
        ask(make(long))
    with pytest.raises(EngineDownError):
        ask(make({"only": Scripted("半截", dies=True)}), model="only")


@pytest.fixture(scope="module")
def rules(pack):
    return (compile_rules(pack.safety),)


def test_an_emergency_reaches_no_model(rules):
    engine = Scripted("多喝水")
    question = "胸口剧痛出冷汗左胳膊发麻怎么办"
    route, text, end = ask(make({"only": engine}, rules=rules), question=question)
    assert (route.tier, route.reason, end.status) == ("", "emergency rule", "emergency")
    assert "120" in text
    assert engine.num_asked == 0


def test_a_prescription_reaches_no_model(rules):
    engine = Scripted("好的")
    question = "给我开点阿莫西林，一天吃几片？"
    route, _, end = ask(make({"only": engine}, rules=rules), question=question)
    assert (route.reason, end.status, engine.num_asked) == ("request rule", "refused", 0)


def test_a_dose_in_an_answer_is_withheld_however_sure_the_model_is(rules):
    engine = Scripted("每次服用阿莫西林0.5g，每日三次")
    for show_unsure in (False, True):
        service = make({"only": engine}, rules=rules)
        _, text, end = ask(service, model="only", show_unsure=show_unsure)
        assert end.status == "withheld"
        assert "0.5" not in text
    uncalibrated = make({"only": engine}, rules=rules, policy=AnswerPolicy())
    assert ask(uncalibrated)[2].status == "withheld"


def test_without_rules_an_uncalibrated_tier_streams():
    service = make({"only": Scripted("一个答案")}, policy=AnswerPolicy())
    service_rules = make(
        {"only": Scripted("一个答案")}, policy=AnswerPolicy(), rules=(compile_rules(SafetyRules()),)
    )
    for item in (service, service_rules):
        assert ask(item)[1:2] == ("一个答案",)


@pytest.fixture(scope="module")
def facts(pack):
    return make_store(make_facts(pack), key="key-of-the-facts")


def test_a_stored_fact_is_stated_without_a_model(rules, facts):
    engine = Scripted("瞎猜的")
    route, text, end = ask(make({"only": engine}, rules=rules, facts=facts))
    assert (route.tier, route.reason, route.model_key) == ("facts", "fact", "key-of-the-facts")
    assert (route.source, route.label) == ("medical:高血压|symptoms", "")
    assert text.startswith("头晕、头痛、心悸、颈项板紧\n") and route.source in text
    assert (end.status, end.num_tokens, end.confidence_ratio) == ("answered", 0, None)
    assert engine.num_asked == 0


def test_facts_come_after_the_rules_and_are_checked_by_them(rules, facts):
    service = make({"only": Scripted("好的")}, rules=rules, facts=facts)
    route, _, end = ask(service, question="胸口剧痛出冷汗，高血压有哪些症状？")
    assert (route.reason, end.status) == ("emergency rule", "emergency")
    route, text, end = ask(service, question="病态窦房结综合征怎么治疗？")
    assert (route.tier, end.status) == ("facts", "withheld")
    assert "停用" not in text


def test_a_broken_model_does_not_matter_to_facts(facts):
    service = make({"only": Scripted("", error=EngineDownError("down"))}, facts=facts)
    assert ask(service)[0].tier == "facts"
    with pytest.raises(NoTierError):
        ask(service, question="高血压怎么办？")


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "only"},
        {"messages": (Message("user", "你好"), Message("assistant", "您好"), QUESTION)},
        {"messages": (Message("system", "Answer in English."), QUESTION)},
        {"num_choices": 2},
        {"num_top_log_probs": 0},
        {"stop": ("、",)},
        {"images": (Path("x.png"),)},
        {"max_new_tokens": 20},
    ],
)
def test_a_request_for_more_than_a_plain_answer_goes_to_the_models(facts, changes):
    engine = Scripted("小模型的答案")
    model = changes.pop("model", AUTO)
    generate = replace(Generate(0, (QUESTION,), 0), **changes)
    service = make({"only": engine}, facts=facts)

    async def read():
        async for event in service.answer(ServiceRequest(model, generate)):
            if isinstance(event, Route):
                return event.tier

    assert asyncio.run(read()) == "only"
    assert engine.num_asked == 1
