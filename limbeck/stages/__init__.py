"""Verbs: each module reads artifacts, calls techniques, and writes one artifact."""

STAGES = {
    "prepare": "limbeck.stages.prepare",
    "train": "limbeck.stages.train",
    "record": "limbeck.stages.record",
    "label": "limbeck.stages.label",
    "distill": "limbeck.stages.distill",
    "prune": "limbeck.stages.prune",
    "quantize": "limbeck.stages.quantize",
    "extend": "limbeck.stages.extend",
    "convert": "limbeck.stages.convert",
    "export": "limbeck.stages.export",
    "evaluate": "limbeck.stages.evaluate",
}
