"""A server's likeliest tokens as ids of the corpus's own tokenizer.

A token is found by its bytes, exactly; a position by how many bytes of the answer stand before it.
What has no equal joins the rest of the mass, and is counted by name. Left out: teachers that cut
text differently throughout; their answers are better learnt as text.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from transformers import PreTrainedTokenizerBase

from limbeck.distillation.endpoint.responses import Candidate, TokenLogprobs
from limbeck.distillation.tokenizer_alignment import token_texts
from limbeck.models.chat_tokens import end_token_id

NO_MASS = -80.0
"""Log-probability that stands for none."""


@dataclass(frozen=True)
class Labels:
    """The teacher's distribution at each token of an answer and at its end."""

    ids: Int[np.ndarray, "positions top"]
    logs: Float[np.ndarray, "positions top"]
    """Log-probabilities."""
    tail: Float[np.ndarray, " positions"]
    """Log of the mass of all other tokens."""
    num_returned: int
    """Tokens that the server returned."""
    num_aligned: int
    """Of those, positions where the corpus's tokenizer has the very token of the answer."""
    missed: Mapping[str, int]
    """Candidates at such positions that the vocabulary does not hold, with how often."""


class TokenTable:
    """The tokens of a tokenizer by what they write."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.end = end_token_id(tokenizer)
        self.vocab = len(tokenizer)
        texts = token_texts(tokenizer)
        self._bytes = {
            id_: token.encode() if (text := texts[id_]) is None else text
            for token, id_ in tokenizer.get_vocab().items()
        }
        self._specials = dict(
            zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
        )
        special = set(tokenizer.all_special_ids)
        self._ids = {data: id_ for id_, data in self._bytes.items() if id_ not in special and data}
        # Where fewer tokens than places were found: tokens that no answer holds come first.
        order = [*sorted(special - {self.end}), *range(self.vocab - 1, -1, -1)]
        self._fillers = list(dict.fromkeys(id_ for id_ in order if id_ != self.end))

    def find(self, candidate: Candidate) -> int | None:
        """The id of a token, or nothing where the vocabulary has no equal."""
        if candidate.text in self._specials:
            return self._specials[candidate.text]
        return self._ids.get(candidate.data)

    def align(self, tokens: Sequence[TokenLogprobs], *, raw: str, top: int) -> Labels:
        """Labels for the answer `raw.strip()` and its end; where the server returned nothing, the
        answer's own token has all the mass."""
        answer = raw.strip()
        ids = self.tokenizer.encode(answer, add_special_tokens=False)
        pieces = [self._bytes.get(id_, b"") for id_ in ids]
        starts = np.cumsum([0, *map(len, pieces)]).tolist()
        width = max(1, min(top, self.vocab - 1))
        logs = np.full((len(ids) + 1, width), NO_MASS, np.float32)
        logs[:, 0] = 0.0
        tail = np.full(len(ids) + 1, NO_MASS, np.float32)
        own = (*ids, self.end)
        chosen = [[id_] for id_ in own]
        places: dict[int, int] = {}
        if b"".join(pieces) == answer.encode():  # a tokenizer that rewrites text has no places
            places = {start: index for index, start in enumerate(starts)}
        num_aligned, missed = 0, Counter[str]()
        for place, item in self._byte_offsets(tokens, raw=raw):
            row = places.get(place, -1)
            # Where text is cut otherwise, a likely token's mass would count as that of the rest.
            if row < 0 or self.find(item.chosen) != own[row]:
                continue
            found = self._match(item, width, missed)
            if not found:
                continue
            num_aligned += 1
            chosen[row] = list(found)
            logs[row] = NO_MASS
            logs[row, : len(found)] = list(found.values())
            mass = float(np.exp(list(found.values())).sum())
            tail[row] = max(NO_MASS, np.log(max(1.0 - mass, 1e-30)))
        rows = np.asarray([self._fill(row, width) for row in chosen], np.int32)
        return Labels(rows, logs, tail, len(tokens), num_aligned, missed)

    def _byte_offsets(
        self, tokens: Sequence[TokenLogprobs], *, raw: str
    ) -> list[tuple[int, TokenLogprobs]]:
        """Byte offset of each returned token within the stripped answer; -1 once the tokens no
        longer spell it."""
        data, place = raw.encode(), 0
        lead = len(data) - len(raw.lstrip().encode())
        found = []
        for item in tokens:
            piece = item.chosen.data
            if place == len(data) and self.find(item.chosen) == self.end:
                piece = b""
            elif not data.startswith(piece, place):
                found.append((-1, item))
                continue
            found.append((place - lead, item))
            place += len(piece)
        return found

    def _match(self, item: TokenLogprobs, width: int, missed: Counter[str]) -> dict[int, float]:
        found: dict[int, float] = {}
        for candidate in sorted(item.top, key=lambda each: -each.log):
            id_ = self.find(candidate)
            if id_ is None:
                missed[candidate.text] += 1
            elif len(found) < width:
                found.setdefault(id_, max(NO_MASS, candidate.log))
        return found

    def _fill(self, ids: list[int], width: int) -> list[int]:
        spare = (id_ for id_ in self._fillers if id_ not in ids)
        return [*ids, *(next(spare) for _ in range(width - len(ids)))]
