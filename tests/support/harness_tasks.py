"""Local tasks of lm-evaluation-harness, on texts that the tiny checkpoints can read."""

import json

import yaml

DOCUMENTS = [
    {"question": "高血压有哪些症状？", "options": ["头晕", "药", "检查"], "answer": 0},
    {"question": "What is it? ", "options": ["dizzy", "it", "What"], "answer": 1},
    {"question": "头晕 是哪个科室的问题，", "options": ["科室", "需要 做", "有"], "answer": 2},
    {"question": "药\n", "options": ["a", "b", "的"], "answer": 0},
    {
        "question": "头晕 dizzy 是哪个科室的问题，需要做什么检查？" * 2,
        "options": ["药", "有", "是"],
        "answer": 1,
    },
]
CHOICE = {
    "task": "tiny_choice",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "options",
    "doc_to_target": "answer",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
    ],
}
PERPLEXITY = {
    "task": "tiny_text",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{question}}",
    "metric_list": [
        {"metric": name, "aggregation": aggregation, "higher_is_better": False}
        for name, aggregation in (
            ("byte_perplexity", "weighted_perplexity"),
            ("bits_per_byte", "bits_per_byte"),
        )
    ],
}
GENERATE = {
    "task": "tiny_generate",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{options[answer]}}",
    "generation_kwargs": {"until": ["\n", "药"], "max_gen_toks": 12, "do_sample": False},
    "metric_list": [
        {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True},
    ],
}


def write_tasks(folder, *tasks, documents=DOCUMENTS):
    """Task files beside one file of documents."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in documents]
    (folder / "documents.jsonl").write_text("".join(lines), encoding="utf-8")
    for task in tasks or (CHOICE, PERPLEXITY, GENERATE):
        source = {
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": "documents.jsonl"}},
            "test_split": "test",
            "target_delimiter": " ",
        }
        text = yaml.safe_dump(source | task, allow_unicode=True, sort_keys=False)
        (folder / f"{task['task']}.yaml").write_text(text, encoding="utf-8")
    return folder
