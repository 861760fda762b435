"""What a recipe can name: every table of the project, each line a name and where its object lies.

An extension is one class or function, one line here and one test. An object is imported when it is
first named; nothing registers itself.
"""

from limbeck.contracts.config import Table

STAGES: Table = {
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
"""Modules with a `Config` and `run(config, *, work)`."""

MODELS: Table = {
    "moe": "limbeck.models.builders:MoeModel",
    "dense": "limbeck.models.builders:DenseModel",
    "vision": "limbeck.models.vision.builder:VisionModel",
}
"""Fresh models: each a Config whose `build` makes one."""

READERS: Table = {
    "jsonl": "limbeck.data.readers.jsonl:Config",
    "csv": "limbeck.data.readers.csv:Config",
    "parquet": "limbeck.data.readers.parquet:Config",
    "hub": "limbeck.data.readers.hub:Config",
    "triples": "limbeck.data.readers.triples:Config",
    "knowledge": "limbeck.data.readers.pack_facts:Config",
    "images": "limbeck.data.readers.image_archive:Config",
    "labelled": "limbeck.data.readers.classification:Config",
}
"""Sources of records: each a ReaderConfig whose `read` yields them."""

FILTERS: Table = {
    "normalize_light": "limbeck.data.filters.normalization.light:NormalizeLight",
    "normalize_zh": "limbeck.data.filters.normalization.zh:NormalizeZh",
    "length": "limbeck.data.filters.length:Length",
    "in_evaluation": "limbeck.data.filters.in_evaluation:InEvaluation",
    "duplicates": "limbeck.data.filters.dedup:Duplicates",
    "quality": "limbeck.data.filters.quality:Quality",
}
"""What records pass between the readers and the splits: each a FilterConfig whose `run` does it."""

OBJECTIVES: Table = {
    "next_token": "limbeck.objectives.next_token:NextToken",
    "soft_target": "limbeck.distillation.losses.soft_target:SoftTarget",
    "cross_tokenizer": "limbeck.distillation.losses.cross_tokenizer:CrossTokenizer",
    "contrastive": "limbeck.objectives.contrastive:Contrastive",
    "dpo": "limbeck.reinforcement.dpo:Dpo",
    "grpo": "limbeck.reinforcement.grpo:Grpo",
}
"""What training minimises."""

DIVERGENCES: Table = {
    "forward_kl": "limbeck.distillation.losses.divergences:ForwardKl",
    "reverse_kl": "limbeck.distillation.losses.divergences:ReverseKl",
    "jensen_shannon": "limbeck.distillation.losses.divergences:JensenShannon",
    "skew_forward": "limbeck.distillation.losses.divergences:SkewForward",
    "skew_reverse": "limbeck.distillation.losses.divergences:SkewReverse",
    "total_variation": "limbeck.distillation.losses.divergences:TotalVariation",
    "adaptive": "limbeck.distillation.losses.divergences:Adaptive",
}
"""How far a student's distribution is from its teacher's, for `soft_target`."""

CODECS: Table = {
    "plain": "limbeck.distillation.signals.top_k_float:Plain",
    "top": "limbeck.distillation.signals.top_k_packed:TopTokens",
    "sampled": "limbeck.distillation.signals.importance_sampled:SampledTokens",
}
"""How `record` stores a teacher's distributions: each a Codec."""

REWARDS: Table = {
    "facts": "limbeck.reinforcement.rewards:facts",
    "form": "limbeck.reinforcement.rewards:form",
    "refusal": "limbeck.reinforcement.rewards:refusal",
    "brevity": "limbeck.reinforcement.rewards:brevity",
}
"""What `grpo` can reward: each a function of an answer and of the domain's answer format."""

CRITERIA: Table = {
    "l1": "limbeck.pruning.criteria:L1",
    "group_l2": "limbeck.pruning.criteria:GroupL2",
    "norm_product": "limbeck.pruning.criteria:NormProduct",
}
"""Which channels and heads to prune first: each a Criterion."""

FORMATS: Table = {
    "float32": "limbeck.quantization.formats.floats:Float32",
    "bfloat16": "limbeck.quantization.formats.floats:BFloat16",
    "int8": "limbeck.quantization.formats.int8:Int8",
    "int4": "limbeck.quantization.formats.sized_only:Int4",
    "int2": "limbeck.quantization.formats.sized_only:Int2",
    "ternary": "limbeck.quantization.formats.sized_only:Ternary",
}
"""Number formats: each a Format. A QuantizedFormat is what `quantize` trains for and stores."""

RUNTIMES: Table = {
    "transformers": "limbeck.runtimes.transformers:TransformersRuntime",
    "onnx": "limbeck.runtimes.onnx.runtime:OnnxRuntime",
}
"""What bundles are written for and answer in: each a Runtime."""

TASKS: Table = {
    "recall": "limbeck.evaluation.tasks:Recall",
    "choice": "limbeck.evaluation.tasks:Choice",
    "triage": "limbeck.evaluation.tasks:Triage",
    "finding": "limbeck.evaluation.tasks:Finding",
    "intent": "limbeck.evaluation.tasks:Intent",
}
"""How the answers to a kind of question are scored: each a Task."""

PRUNERS: Table = {
    "halving": "limbeck.tuning.config:Halving",
    "median": "limbeck.tuning.config:Median",
    "none": "limbeck.tuning.config:Never",
}
"""When `limbeck tune` stops a trial early."""

TABLES = {
    "stages": STAGES,
    "models": MODELS,
    "readers": READERS,
    "filters": FILTERS,
    "objectives": OBJECTIVES,
    "divergences": DIVERGENCES,
    "codecs": CODECS,
    "rewards": REWARDS,
    "criteria": CRITERIA,
    "formats": FORMATS,
    "runtimes": RUNTIMES,
    "tasks": TASKS,
    "pruners": PRUNERS,
}
"""Every table, by the name that `limbeck list` knows it under."""
