"""Two tokenizations of one text: spans of the same bytes, and no smaller ones that could be."""

import random

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.train_tokenizer import train_tokenizer
from limbeck.distillation.tokenizer_alignment import TokenSpellings, align, share_outcomes
from tests.support.byte_level_tokenizer import pack_lines, train_byte_level

LETTERS = "高血压有哪些症状头晕心悸、。？abc THE heart failure\n\t  é龘鬱ß😀👩‍⚕️🩺123"


@pytest.fixture(scope="module")
def spellings(tmp_path_factory):
    lines = pack_lines()
    characters = train_tokenizer(
        lines, folder=tmp_path_factory.mktemp("characters"), config=TokenizerConfig()
    )
    return {
        "small": TokenSpellings(train_byte_level(lines, num_tokens=400)),
        "large": TokenSpellings(train_byte_level(lines, num_tokens=3000)),
        "trimmed": TokenSpellings(train_byte_level(lines[::2], num_tokens=900, trim=True)),
        "characters": TokenSpellings(characters),
        "marked": TokenSpellings(_marked(lines)),
    }


def _marked(lines):
    """Marked spaces and lower case: its tokens do not write the text as it stands."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=2500, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>"
    )


def texts(count=60):
    rng = random.Random(5)
    lines = [rng.choice(pack_lines()) for _ in range(count)]
    drawn = ["".join(rng.choices(LETTERS, k=rng.randint(1, 40))) for _ in range(count)]
    return [*lines, *drawn, "龘", "😀", " a", "a "]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("small", "large"),
        ("large", "small"),
        ("small", "characters"),
        ("trimmed", "large"),
        ("characters", "trimmed"),
        ("large", "large"),
    ],
)
def test_spans_write_the_same_bytes_and_are_the_smallest(spellings, left, right):
    left, right = spellings[left], spellings[right]
    cut_in_the_middle = 0
    for text, ours, theirs in zip(
        texts(), left.encode(texts()), right.encode(texts()), strict=True
    ):
        sides = align(ours.ends, theirs.ends)
        pieces = [
            _by_span(spelling, encoded.ids, spans)
            for spelling, encoded, spans in zip((left, right), (ours, theirs), sides, strict=True)
        ]
        assert pieces[0] == pieces[1]
        assert b"".join(pieces[0]) == text.encode()
        boundaries = [
            _ends(spelling, encoded.ids) for spelling, encoded in ((left, ours), (right, theirs))
        ]
        assert len(pieces[0]) == len(boundaries[0] & boundaries[1])
        cut_in_the_middle += sum(_is_partial(left.texts[token]) for token in ours.ids)
    assert cut_in_the_middle > 20


def _by_span(spelling, ids, spans):
    pieces = [b""] * (max(spans) + 1)
    for token, span in zip(ids, spans, strict=True):
        pieces[span] += spelling.texts[token]
    return pieces


def _ends(spelling, ids):
    found, total = set(), 0
    for token in ids:
        total += len(spelling.texts[token])
        found.add(total)
    return found


def _is_partial(piece):
    try:
        piece.decode()
    except UnicodeDecodeError:
        return True
    return False


def test_changed_text_is_aligned_by_its_characters(spellings):
    text = "The Heart 高血压 FAILS龘。"
    ours, theirs = (spellings[name].encode([text])[0] for name in ("marked", "large"))
    spans = align(ours.ends, theirs.ends)
    rebuilt = _by_span(spellings["large"], theirs.ids, spans[1])
    assert b"".join(rebuilt).decode() == text
    written = _by_span(spellings["marked"], ours.ids, spans[0])
    assert [piece.strip() for piece in written] == [
        piece.decode().lower().strip().encode() for piece in rebuilt
    ]
    assert len(rebuilt) > 6


def test_a_side_that_was_cut_has_no_further_spans():
    assert align([1, 3, 6, 7], [2, 3]) == ([0, 0, -1, -1], [0, 0])
    assert align([], [2]) == ([], [-1])


def test_outcomes_are_the_longest_shared_beginning(spellings):
    student, teacher = spellings["characters"], spellings["large"]
    found = share_outcomes(student, teacher)
    ids = {text: index for index, text in enumerate(teacher.texts) if text}
    student_ids = {text: index for index, text in enumerate(student.texts) if text}
    word = next(
        text
        for text in ids
        if len(text) == 6
        and not _is_partial(text)
        and len(text.decode()) == 2
        and {text[:3]} <= ids.keys() & student_ids.keys()
    )
    assert found.teacher[ids[word]] == found.student[student_ids[word[:3]]]
    ends = (
        found.student[student.tokenizer.eos_token_id],
        found.teacher[teacher.tokenizer.eos_token_id],
    )
    assert ends == (found.shared, found.shared)
    assert {found.teacher[index] for index in ids.values()} <= set(range(found.shared))
    same = share_outcomes(student, student)
    assert len({same.student[index] for index in student_ids.values()}) == len(student_ids)


def test_the_spelling_of_byte_tokens(spellings):
    for name in ("small", "characters"):
        assert {bytes([value]) for value in range(256)} <= {*spellings[name].texts}
