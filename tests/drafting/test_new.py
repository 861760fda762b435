"""`limbeck new`: from a stranger's file to a recipe that runs."""

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from limbeck.cli.main import app
from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Record
from limbeck.data.readers.base import check_file
from limbeck.drafting.findings import FileFindings, Lengths
from limbeck.drafting.languages import find_language
from tests.support.drafted_files import clauses, draw, lines, pictured
from tests.support.forked_children import fork_children
from tests.support.published_checkpoints import STUDENTS, make_checkpoint

STUDENT = (
    "student.student={kind: dense, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, "
    "num_key_value_heads: 1, head_dim: 16, intermediate_size: 32}"
)


def test_a_file_of_contract_clauses_runs_to_its_report(new, tmp_path, monkeypatch):
    """Rows about images among them are of no model of the recipe."""
    draw(tmp_path, 4)
    text, code, recipe = new("contract clauses.jsonl", lines([*clauses(116), *pictured(4)]))
    assert code == 0, text
    assert "120 read, 120 usable" in text
    assert "latin 100%" in text
    assert "<|im_end|>" in text
    assert recipe["corpus"]["sources"][0]["name"] == "contract-clauses"
    words = ["run", tmp_path / "mine.yaml", "--runs", tmp_path / "runs"]
    for override in (
        STUDENT,
        "student.training.max_steps=2",
        "int8.training.max_steps=2",
        "report.max_questions=4",
        "report.max_new_tokens=4",
        "report.profile={questions: 1, rounds: 1, thread_counts: [1]}",
        f"corpus.sources.0.path={tmp_path / 'contract clauses.jsonl'}",
        f"corpus.sources.0.image_folder={tmp_path}",
    ):
        words += ["--set", override]
    fork_children(set_attribute=monkeypatch.setattr)
    done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "runs" / "mine" / "report" / "report.json").read_text())
    names = [row["name"] for row in report["rows"]]
    assert {"teacher", "student", "int8", "bundle"} <= set(names)
    records = (tmp_path / "runs" / "mine" / "corpus" / "records" / "train.jsonl").read_text()
    assert "% [net] reserve." in records


def test_messages_with_instructions_and_turns(new):
    rows = [
        {
            "messages": [
                {"role": "system", "content": "Answer briefly."},
                {"role": "user", "content": f"Hello {number}"},
                {"role": "assistant", "content": "Hi."},
                {"role": "user", "content": "And now?"},
                {"role": "assistant", "content": f"Now {number}."},
            ]
        }
        for number in range(30)
    ]
    text, code, _ = new("chat.jsonl", lines(rows))
    assert code == 0, text
    assert "60 usable" in text
    assert "with earlier turns 30" in text
    assert "with instructions 60" in text
    assert "<|im_start|>system Answer briefly.<|im_end|>" in text


def test_a_table_in_gb18030_with_labels(new):
    rows = [f"头晕{number}怎么办,{'内科' if number % 2 else '外科'}" for number in range(60)]
    table = ("query,label\n" + "\n".join(rows)).encode("gb18030")
    text, code, recipe = new("query.csv", table, "--question", "query", "--answer", "label")
    assert code == 0, text
    assert "zh 100%" in text
    assert "labels 2:" in text
    source = recipe["corpus"]["sources"][0]
    assert source["columns"] == {"question": ["query"], "answer": "label"}


def test_likely_columns_are_taken_and_reported(new):
    table = "ask;reply\n" + "".join(f"Frage {n}?;Antwort {n}, ja\n" for n in range(30))
    text, code, recipe = new("fragen.csv", table)
    assert code == 0, text
    assert "took column 'ask' for the question and 'reply' for the answer" in text
    source = recipe["corpus"]["sources"][0]
    assert source["columns"] == {"question": ["ask"], "answer": "reply"}


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.jsonl", "", (), "is empty"),
        ("a.jsonl", "\n\n", (), "no"),
        ("a.csv", "x,y\n1,2\n", (), "say which"),
        ("a.csv", "query,reply\n1,2\n", ("--question", "querry"), "write --question query"),
        ("a.csv", "colour,height\n1,2\n", (), "say which hold what with --question"),
        ("a.docx", "PK", (), "ends in none of"),
        ("a.xlsx", b"PK\x03\x04\0\0", (), "save the sheet as CSV"),
        ("a.txt", "-- MySQL dump 10.13\n", (), "is a dump of MySQL, not rows of text"),
        ("a.csv", "".join(f"Word {n} of prose, " for n in range(90)), (), "put a line of names"),
        ("a.csv", b"PK\x03\x04" + bytes(range(256)) * 9, (), "save the sheet as CSV"),
        (
            "a.csv",
            b"PAR1\0\0" + bytes(99),
            (),
            "is a Parquet file, not rows of text; give its name the end",
        ),
        ("a.csv", b"question,answer\n" + bytes(999), (), "a.csv:2: holds zero bytes"),
        ("a.jsonl", "{}", (), "an object without keys"),
        (
            "a.json",
            '{"data": {"items": [{"q": 1}, {"q": 2}]}}',
            (),
            "'data.items' holds a list of 2",
        ),
        (
            "a.json",
            json.dumps({"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": []}]}]}),
            (),
            "hold more objects in 'paragraphs': write an object for each question",
        ),
        ("a.json", '{"question": ["a", "b"], "answer": ["c", "d"]}', (), "an object for each row"),
        ("a.jsonl", "{'question': 1}\n" * 20, (), "write one JSON object a line"),
        ("a.jsonl", lines([{"question": "a", "answer": True}]), (), "write a text there"),
        ("a.jsonl", lines([{"question": "a", "answer": None}]), (), "fill them in"),
        ("a.jsonl", lines([{"messages": "user: hi"}]), (), "'messages' is a text and no JSON"),
        ("a.jsonl", lines([{"talk": [{"human": "q", "assistant": "a"}]}] * 2), (), "rename it"),
        ("a.jsonl", lines(clauses(20)), ("--question", "answer"), "cannot be both"),
        (
            "a.jsonl",
            lines([{"question": "q", "answers": {"text": ["a"]}}]),
            (),
            "--answer answers.text.0 reads one value",
        ),
        ("a.jsonl", "", ("--data", "https://example.org/a.jsonl"), "download the file"),
        ("a.json", '[{"question": "a", "answer": "b"}, {"ques', (), "only the broken line is lost"),
        ("a.jsonl", lines(clauses(3)), (), "holds 3 usable records"),
        ("a.jsonl", lines({"text": f"Plain {n}."} for n in range(60)), (), "is plain text: no row"),
        (
            "a.jsonl",
            lines({"question": f"Is {n} odd?", "answer": "yes"} for n in range(60)),
            (),
            "every answer is 'yes'",
        ),
        (
            "a.jsonl",
            lines({"question": "Odd?", "answer": f"{n}"} for n in range(60)),
            (),
            "every question is 'Odd?'",
        ),
        ("a.jsonl", lines(clauses(20)), ("--language", "klingon"), "write it as ISO 639 does"),
        ("a.jsonl", lines(clauses(20)), ("--student", "nowhere"), "no such folder"),
        ("a.jsonl", lines(clauses(60)), ("--task", "classify"), "its answers are no labels"),
        ("a.jsonl", lines(clauses(20)), ("--teacher", "nowhere"), "no such folder"),
    ],
)
def test_what_cannot_be_used_is_named(new, name, content, options, message):
    text, code, recipe = new(name, content, *options)
    assert code == 1, text
    assert message in text
    assert "Traceback" not in text
    assert recipe is None


def drugs(write):
    return [
        {"question": f"Which drugs does text {n} name?", "answer": write(["aspirin", f"d{n}", "x"])}
        for n in range(30)
    ]


@pytest.mark.parametrize(
    ("write", "options", "settings"),
    [
        (lambda items: items, (), {}),
        (lambda items: {"drugs": items}, (), {}),
        (json.dumps, (), {}),
        ("; ".join, (), {"item_separator": ";"}),
        ("、".join, (), {"item_separator": "、"}),
        ("\n".join, (), {"item_separator": "\n"}),
        (lambda items: ", 5 mg; ".join(items), ("--separator", ";"), {"item_separator": ";"}),
        (" and ".join, ("--separator", " and "), {"item_separator": " and "}),
    ],
)
def test_answers_to_be_extracted_are_lists(write, options, settings, new):
    text, code, recipe = new("drugs.jsonl", lines(drugs(write)), "--task", "extract", *options)
    assert code == 0, text
    assert "30 usable" in text
    source = recipe["corpus"]["sources"][0]
    assert source["answers"] == "list"
    assert {name: source[name] for name in source if name == "item_separator"} == settings


@pytest.mark.parametrize(
    ("write", "options", "message"),
    [
        (", 5 mg; ".join, ("--task", "extract"), "several separators (';' in 100%, ',' in 100%)"),
        (lambda items: items[1], ("--task", "extract"), "neither JSON nor lists"),
        (lambda items: items, (), "--task extract reads answers that are lists"),
        (lambda items: [{"start": 0, "end": 3}], ("--task", "extract"), "span_without_text"),
        ("; ".join, ("--separator", ";"), "--separator is for --task extract"),
    ],
)
def test_what_cannot_be_extracted_is_named(write, options, message, new):
    text, code, recipe = new("drugs.jsonl", lines(drugs(write)), *options)
    assert code == 1
    assert message in text, text
    assert recipe is None


def test_text_decoded_wrongly_before_is_shown(new):
    rows = [
        {"question": f"Où {n} ?".encode().decode("cp1252"), "answer": f"{n}"} for n in range(30)
    ]
    text, code, _ = new("a.jsonl", lines(rows))
    assert code == 0
    assert "decoded wrongly before" in text and "entries 30" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "a.jsonl"), "also give --teacher"),
        (("--teacher", "models/a"), "also give --data"),
    ],
)
def test_what_is_missing_is_named(options, message):
    result = CliRunner().invoke(app, ["new", "own.yaml", *options], catch_exceptions=False)
    assert result.exit_code == 1
    assert message in result.output


def test_folders_are_distinguished_from_files(new, tmp_path):
    (tmp_path / "a.jsonl").mkdir()
    (tmp_path / "nothing").mkdir()
    for data, message in (("a.jsonl", "is a folder named like a file"), ("nothing", "is an empty")):
        text, code, _ = new("b.jsonl", lines(clauses(20)), "--data", data)
        assert code == 1
        assert message in text


def test_what_is_no_file_is_named(new, tmp_path):
    """A pipe would be waited for without end."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "link.jsonl").symlink_to("nowhere.jsonl")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "a.csv").write_text("question,answer\n")
    for data, message in (
        ("pipe.jsonl", "is a pipe or a device"),
        ("link.jsonl", "is a link to 'nowhere.jsonl', where no file is"),
        ("name-\udcff.jsonl", "has a name that is not UTF-8"),
        ("tables", "name one file of it: 'a.csv'"),
    ):
        text, code, _ = new("b.jsonl", lines(clauses(20)), "--data", data)
        assert code == 1
        assert message in text


def test_what_may_not_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text("{}")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(DataError, match="may not be read: permission denied"):
        check_file(tmp_path / "a.jsonl")


def test_columns_inside_objects_are_named_by_their_path(new):
    rows = [
        {"ticket": {"subject": f"Printer {n}", "body": {"text": "broken"}}, "reply": f"Restart {n}"}
        for n in range(30)
    ]
    text, code, _ = new("a.jsonl", lines(rows))
    assert code == 1
    assert "has the columns 'reply', 'ticket.subject', 'ticket.body.text'" in text
    words = ("--question", "ticket.subject", "--answer", "reply")
    text, code, recipe = new("a.jsonl", lines(rows), *words)
    assert code == 0, text
    assert "Printer 0" in text
    assert recipe["corpus"]["sources"][0]["columns"]["question"] == ["ticket.subject"]
    text, code, _ = new(
        "a.jsonl", lines(rows), "--force", "--question", "ticket.subjekt", *words[2:]
    )
    assert "write --question ticket.subject" in text


def test_damaged_lines_cost_themselves_and_can_be_printed(new):
    """Half a pair of surrogates, and zero bytes."""
    rows = lines(clauses(200)).encode()
    damaged = b'{"question": "half \\ud83d", "answer": "x"}\n{"question": "a\0b", "answer": "x"}\n'
    text, code, _ = new("a.jsonl", rows + damaged)
    assert code == 0, text
    assert "202 read, 200 usable" in text
    assert "2 undecodable: a.jsonl:201 half \\ud83d; a.jsonl:202" in text


def test_what_would_stop_the_run_is_reported_before(new):
    rows = lines(clauses(40)) + "{broken\n" * 10
    text, code, recipe = new("a.jsonl", rows)
    assert code == 0, text
    assert "the run will stop: 10 of 50 rows (20.0%)" in text
    assert "`max_dropped_ratio` above 0.2 on" in text
    assert "40 records are few" in text
    assert recipe["plan"]["record_tokens"] > 10
    text, _, _ = new("a.jsonl", lines(clauses(120)), "--force")
    assert "note:" not in text


def test_columns_that_nothing_reads_are_named(new):
    rows = [{"id": n, "question": f"Q{n}?", "[/b]": "c", "answer": f"Ja {n},5"} for n in range(30)]
    text, code, _ = new("a.jsonl", lines(rows), "--language", "de")
    assert code == 0 and "0,5" not in text.replace("Ja 0,5", ""), text
    text, code, _ = new("a.jsonl", lines(rows), "--force")
    assert "answers hold numbers such as 0,5; where a comma" in text
    assert "columns not read 'id', '[/b]'" in " ".join(text.split())


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("pattern", "change", "message"),
    [
        ("*.safetensors", cut_short, "is cut short or damaged"),
        ("*.safetensors", Path.unlink, "lacks model-00001"),
        ("config.json", Path.unlink, "no config.json"),
        ("tokenizer_config.json", Path.unlink, "no tokenizer_config.json"),
    ],
)
def test_models_that_are_not_whole_are_named(new, teacher, tmp_path, pattern, change, message):
    for option in ("--teacher", "--student"):
        folder = tmp_path / f"broken{option}"
        shutil.copytree(teacher, folder)
        for path in folder.glob(pattern):
            change(path)
        text, code, recipe = new("a.jsonl", lines(clauses(20)), option, str(folder))
        assert code == 1
        assert message in text
        assert recipe is None


def test_a_teacher_without_a_template_is_noted(new, teacher, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(teacher, folder)
    (folder / "chat_template.jinja").unlink()
    text, code, _ = new("a.jsonl", lines(clauses(20)), "--teacher", str(folder))
    assert code == 0, text
    assert "has no chat template, so its conversations are written plainly" in text


def test_records_longer_than_a_model_reads_are_reported(new, teacher, tmp_path):
    folder = tmp_path / "short"
    shutil.copytree(teacher, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": 80}))
    rows = [{"question": f"{place} " * 90, "answer": f"{place}"} for place in range(20)]
    text, code, recipe = new("a.jsonl", lines(rows), "--teacher", str(folder))
    assert code == 0, text
    assert "is made for 80: longer ones are cut" in text
    assert recipe["student"]["batching"]["max_length"] == 80


def test_a_question_of_several_columns(new):
    rows = [{"query": f"Which {n}?", "note": "n " * 400, "reply": f"{n}"} for n in range(20)]
    words = ("--question", "query", "--question", "note", "--answer", "reply")
    text, code, recipe = new("a.jsonl", lines(rows), *words)
    assert code == 0, text
    assert recipe["corpus"]["sources"][0]["columns"]["question"] == ["query", "note"]
    assert "[...] n n n" in text
    text, code, _ = new("a.jsonl", lines(rows), "--force", *words[:3], "nite", *words[4:])
    assert code == 1 and "has no column 'nite'" in text


def test_a_recipe_is_not_overwritten(new, tmp_path):
    (tmp_path / "mine.yaml").write_text("corpus: {}\n")
    text, code, recipe = new("a.jsonl", lines(clauses(20)))
    assert code == 1
    assert "--force" in text
    assert recipe == {"corpus": {}}
    text, code, recipe = new("a.jsonl", lines(clauses(20)), "--force")
    assert code == 0, text
    assert list(recipe) == ["corpus", "student", "int8", "bundle", "report", "plan"]


def test_the_demo_is_a_start_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["new", "own.yaml", "--from-demo"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, ["check", "own.yaml"], catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("高血压 BP > 140/90 mmHg 怎么办", "zh"),
        ("頭痛がするときは", "ja"),
        ("두통이 있을 때", "ko"),
        ("Was hilft bei Kopfschmerzen?", "latin"),
        ("Что делать?", "cyrillic"),
        ("12 / 4 = 3", "other"),
    ],
)
def test_languages_are_found_by_their_scripts(text, language):
    assert find_language(text) == language


def test_few_short_answers_are_labels():
    def find(answers):
        records = (Record(str(n), f"q{n}", text, "g", "s") for n, text in enumerate(answers))
        return FileFindings(tuple(records)).labels

    assert find(["b", "a", "a", "a", "b"] * 4) == ("a", "b")
    assert find([str(number) for number in range(20)]) == ()
    assert find(["a" * 50, "b"] * 10) == ()


def test_lengths():
    found = Lengths.of(["a" * length for length in range(1, 102)])
    assert (found.median, found.most, found.longest) == (51, 96, 101)


def test_students_of_publishers_are_continued(new, tmp_path):
    make_checkpoint(tmp_path / "small", build=STUDENTS["qwen3"])
    text, code, recipe = new("a.jsonl", lines(clauses(40)), "--student", "small")
    assert code == 0, text
    assert recipe["student"]["student"] == "small"
    assert recipe["student"]["training"]["learning_rate"] < 0.001
