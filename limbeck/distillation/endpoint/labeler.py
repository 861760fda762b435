"""Labels training records with a server's answers, preferences or log-probabilities."""

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from limbeck.contracts.answerer import alternate
from limbeck.contracts.errors import EndpointError
from limbeck.contracts.json_data import JsonMapping, JsonObject
from limbeck.contracts.records import Record
from limbeck.distillation.agreement import take_samples
from limbeck.distillation.endpoint.client import CallError, CompletionRequest, Endpoint
from limbeck.distillation.endpoint.responses import read_answer, read_logprobs
from limbeck.distillation.endpoint.token_alignment import Labels, TokenTable
from limbeck.distillation.label_forms.config import Answers, LabelForm, Preferences
from limbeck.env.progress import Advance
from limbeck.env.seeds import mix_seeds

SERVER_SEED_BITS = 31
"""Many servers read a seed as a 32-bit integer with a sign."""

ScoreAnswers = Callable[[Sequence[str], Record], Sequence[float]]
"""How good each of several answers to a record's question is."""


@dataclass(frozen=True)
class Labelled:
    """A record with the teacher's answer."""

    record: Record
    labels: Labels | None = None
    without_pair: str = ""
    """Why there is no worse answer, where one is needed."""
    others: tuple[Record, ...] = ()
    """Further samples, each as a record of its own."""
    agreement_ratio: float = 1.0
    """Of the answer with the other samples."""


class Labeler:
    """Labels one record at a time."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        write: LabelForm,
        system: str,
        max_new_tokens: int,
        score: ScoreAnswers,
        table: TokenTable,
    ) -> None:
        self.endpoint = endpoint
        self.write = write
        self.system = system
        self.max_new_tokens = max_new_tokens
        self.score = score
        self.table = table

    async def __call__(self, record: Record) -> Labelled:
        """The labelled record.

        Raises:
            CallError: there is no usable answer.
            EndpointError: there will be none for any record.
        """
        return await self.write.label(record, labeler=self)

    async def read_log_probs(self, record: Record, *, top: int) -> Labelled:
        """An answer with the likeliest tokens at each of its places."""
        # At temperature 1 all servers mean the same probabilities.
        fields = {"temperature": 1.0, "logprobs": True, "top_logprobs": top}
        response = await self._request(record, fields)
        raw, tokens = read_answer(response), read_logprobs(response)
        labels = self.table.align(tokens, raw=raw, top=top)
        return Labelled(replace_answer(record, raw.strip()), labels)

    async def answer(self, record: Record, *, write: Answers) -> Labelled:
        """The answers that are taken of several samples."""
        samples = await self._sample(record, write, seed=write.seed)
        taken = take_samples(
            samples, keep=write.keep, min_agreement_ratio=write.min_agreement_ratio
        )
        texts = [str(samples[place]) for place in taken.places]
        return label_record(
            [replace_answer(record, text) for text in texts], agreement_ratio=taken.agreement_ratio
        )

    async def compare(self, record: Record, *, write: Preferences) -> Labelled:
        """The best of several samples, and the worst as the rejected answer."""
        samples = await self._sample(record, write)
        texts = [item for item in samples if not isinstance(item, CallError)]
        if len(texts) < 2:
            raise [item for item in samples if isinstance(item, CallError)][-1]
        scores = list(self.score(texts, record))
        best, worst = scores.index(max(scores)), scores.index(min(scores))
        found = replace_answer(record, texts[best])
        if len(set(texts)) == 1:
            return Labelled(found, without_pair="all_alike")
        if scores[best] == scores[worst]:
            return Labelled(found, without_pair="none_better")
        return Labelled(dataclasses.replace(found, rejected=texts[worst]))

    async def _sample(
        self, record: Record, write: Answers | Preferences, *, seed: int | None = None
    ) -> list[str | CallError]:
        """So many answers to one question, or why there is none."""
        found: list[str | CallError] = []
        for index in range(write.samples):
            fields: JsonObject = {"temperature": write.temperature}
            if seed is not None and self.endpoint.config.seed_field:
                mixed = mix_seeds(seed, index, num_bits=SERVER_SEED_BITS)
                fields[self.endpoint.config.seed_field] = mixed
            purpose = "answer" if write.samples == 1 else f"sample {index}"
            try:
                response = await self._request(record, fields, purpose=purpose)
                found.append(read_answer(response).strip())
            except CallError as error:
                found.append(error)
        return found

    async def _request(
        self, record: Record, fields: JsonMapping, *, purpose: str = "answer"
    ) -> JsonObject:
        turns = alternate([*record.history, record.question], system=record.system or self.system)
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        request = CompletionRequest(messages, self.max_new_tokens, fields, record.id, purpose)
        return await self.endpoint.call(request)


def replace_answer(record: Record, answer: str) -> Record:
    """The record with another answer; what was marked in the old one goes with it."""
    marked = tuple(item for item in record.entities if item.part == "question")
    return dataclasses.replace(record, answer=answer, rejected="", entities=marked)


def label_record(records: Sequence[Record], *, agreement_ratio: float) -> Labelled:
    """The samples of one question that are taken; after the first, each has an id of its own."""
    first, *others = records
    numbered = (
        dataclasses.replace(item, id=f"{item.id}.{number}")
        for number, item in enumerate(others, start=2)
    )
    return Labelled(first, others=tuple(numbered), agreement_ratio=agreement_ratio)


async def label_all(
    records: Sequence[Record], *, labeler: Labeler, advance: Advance
) -> list[Labelled | CallError]:
    """The result for each record; `max_concurrent` of them are in flight at the same time.

    Raises:
        EndpointError: no further call can succeed; all calls in flight have ended by then.
    """
    endpoint = labeler.endpoint
    found: dict[int, Labelled | CallError] = {}
    queue = iter(enumerate(records))

    async def work() -> None:
        for index, record in queue:
            try:
                found[index] = await labeler(record)
            except CallError as error:
                if endpoint.stopping:
                    return
                found[index] = error
            result = found[index]
            endpoint.count_outcome(result if isinstance(result, CallError) else None)
            advance(1, note=f"{endpoint.call_log.spent:.4g} spent")

    num_workers = min(endpoint.config.max_concurrent, len(records))
    workers = [asyncio.create_task(work()) for _ in range(num_workers)]
    try:
        await asyncio.gather(*workers)
    except EndpointError as error:
        await endpoint.stop()
        await asyncio.gather(*workers, return_exceptions=True)
        num = sum(isinstance(item, Labelled) for item in found.values())
        raise EndpointError(f"{error} ({num:,} of {len(records):,} records are labelled)") from None
    finally:
        await endpoint.close()
    return [found[index] for index in range(len(records))]
