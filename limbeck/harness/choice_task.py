"""Exported questions with options, as lm-evaluation-harness asks them of any model of its own.

A task file names the class here. lm-eval's own class for such tasks leaves out what a chat template
writes before an answer, and counts white space that ends a prompt as a part of each answer.
"""

from collections.abc import Callable, Mapping
from typing import Any, final

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from typing_extensions import override

from limbeck.models.chat import PROBE_ANSWER


@final
class ChoiceTask(ConfigurableTask):
    """`limbeck.harness.scoring.sum_options` reads the results."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        # lm-eval hands over the whole file, and knows no key `class` in what it reads of it.
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    @override
    def construct_requests(
        self, doc: dict[str, Any], ctx: str | list[str], **kwargs: Any
    ) -> list[Instance]:
        """Each option with each token that ends answers, and what stands before every answer."""
        assert isinstance(ctx, str), "exported questions have one context each"
        renders = kwargs.pop("apply_chat_template", False)
        template = kwargs.pop("chat_template", None)
        opening = find_opening(template) if renders and template else ""
        texts = [opening + option + end for option in doc["options"] for end in doc["ends"]]
        blank = ctx[len(ctx.rstrip()) :]
        given = doc["given"]
        # A model of another template may open answers otherwise: then its opening counts.
        if given and (blank + opening).startswith(given):
            texts.append(given[len(blank) :])
        return [
            Instance("loglikelihood", doc=doc, arguments=(ctx, text), idx=place, **kwargs)
            for place, text in enumerate(texts)
        ]


def find_opening(template: Callable[..., str]) -> str:
    """What a model's chat template writes between a prompt and an answer, such as a blank.

    `template` renders a list of messages, as lm-eval's models do.
    """
    turns = [{"role": "user", "content": "?"}]
    prompt = template(turns)
    answered = [*turns, {"role": "assistant", "content": PROBE_ANSWER}]
    whole = template(answered, add_generation_prompt=False)
    if not (whole.startswith(prompt) and whole.endswith(PROBE_ANSWER)):
        return ""  # such a template changes earlier turns, and says nothing of how answers open
    return whole[len(prompt) : -len(PROBE_ANSWER)]
