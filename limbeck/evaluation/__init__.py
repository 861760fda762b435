"""How good, fast and small a model is, and the report that says so."""

TASKS = {
    "recall": "limbeck.evaluation.tasks:recall",
    "choice": "limbeck.evaluation.tasks:choice",
    "triage": "limbeck.evaluation.tasks:triage",
    "finding": "limbeck.evaluation.tasks:finding",
    "intent": "limbeck.evaluation.tasks:intent",
}
