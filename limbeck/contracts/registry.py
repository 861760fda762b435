"""What a recipe can name: every table of the project, each line a name and where its object lies.

An extension is one class or function, one line here and one test. An object is imported when it is
first named; nothing registers itself.
"""

from limbeck.contracts.config import Table

STAGES: Table = {
    "prepare": "limbeck.stages.config.prepare:Config",
    "train": "limbeck.stages.config.train:Config",
    "record": "limbeck.stages.config.record:Config",
    "label": "limbeck.stages.config.label:Config",
    "distill": "limbeck.stages.config.distill:Config",
    "prune": "limbeck.stages.config.prune:Config",
    "quantize": "limbeck.stages.config.quantize:Config",
    "extend": "limbeck.stages.config.extend:Config",
    "convert": "limbeck.stages.config.convert:Config",
    "dequantize": "limbeck.stages.config.dequantize:Config",
    "merge": "limbeck.stages.config.merge:Config",
    "export": "limbeck.stages.config.export:Config",
    "route": "limbeck.stages.config.route:Config",
    "evaluate": "limbeck.stages.config.evaluate:Config",
}
"""Steps of a recipe: each a StageConfig whose `run` makes one artifact."""

MODELS: Table = {
    "moe": "limbeck.models.config:MoeModel",
    "dense": "limbeck.models.config:DenseModel",
    "vision": "limbeck.models.config:VisionModel",
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
    "questions": "limbeck.data.readers.questions:Config",
    "journal": "limbeck.data.readers.journal:Config",
}
"""Sources of records: each a ReaderConfig whose `read` yields them."""

FILTERS: Table = {
    "length": "limbeck.data.filters.length:Length",
    "in_evaluation": "limbeck.data.filters.in_evaluation:InEvaluation",
    "duplicates": "limbeck.data.filters.dedup:Duplicates",
    "quality": "limbeck.data.filters.quality:Quality",
}
"""What records pass between the readers and the splits: each a FilterConfig whose `run` does it."""

OBJECTIVES: Table = {
    "next_token": "limbeck.objectives.config:NextToken",
    "soft_target": "limbeck.distillation.losses.config:SoftTarget",
    "cross_tokenizer": "limbeck.distillation.losses.config:CrossTokenizer",
    "contrastive": "limbeck.objectives.config:Contrastive",
    "dpo": "limbeck.reinforcement.config:Dpo",
    "grpo": "limbeck.reinforcement.config:Grpo",
}
"""What training minimises."""

DIVERGENCES: Table = {
    "forward_kl": "limbeck.distillation.losses.config:ForwardKl",
    "reverse_kl": "limbeck.distillation.losses.config:ReverseKl",
    "jensen_shannon": "limbeck.distillation.losses.config:JensenShannon",
    "skew_forward": "limbeck.distillation.losses.config:SkewForward",
    "skew_reverse": "limbeck.distillation.losses.config:SkewReverse",
    "total_variation": "limbeck.distillation.losses.config:TotalVariation",
    "adaptive": "limbeck.distillation.losses.config:Adaptive",
}
"""How far a student's distribution is from its teacher's, for `soft_target`."""

CODECS: Table = {
    "plain": "limbeck.distillation.signals.config:Plain",
    "top": "limbeck.distillation.signals.config:TopTokens",
    "sampled": "limbeck.distillation.signals.config:SampledTokens",
}
"""How `record` stores a teacher's distributions: each a Codec."""

QUESTION_CHOICES: Table = {
    "all": "limbeck.distillation.question_choice.config:All",
    "random": "limbeck.distillation.question_choice.config:RandomQuestions",
    "diverse": "limbeck.distillation.question_choice.config:Diverse",
    "uncertain": "limbeck.distillation.question_choice.config:Uncertain",
}
"""Which of its questions `label` asks: each a QuestionChoice."""

LABEL_FORMS: Table = {
    "answers": "limbeck.distillation.label_forms.config:Answers",
    "preferences": "limbeck.distillation.label_forms.config:Preferences",
    "logprobs": "limbeck.distillation.label_forms.config:Logprobs",
}
"""What `label` writes of a teacher's answers: each a LabelForm."""

REWARDS: Table = {
    "facts": "limbeck.reinforcement.rewards:Facts",
    "form": "limbeck.reinforcement.rewards:Form",
    "refusal": "limbeck.reinforcement.rewards:Refusal",
    "brevity": "limbeck.reinforcement.rewards:Brevity",
}
"""What `grpo` can reward: each a Reward."""

CRITERIA: Table = {
    "contribution": "limbeck.pruning.criteria:Contribution",
    "taylor": "limbeck.pruning.criteria:Taylor",
    "mean_abs": "limbeck.pruning.criteria:MeanAbs",
    "l1": "limbeck.pruning.criteria:L1",
    "group_l2": "limbeck.pruning.criteria:GroupL2",
    "norm_product": "limbeck.pruning.criteria:NormProduct",
    "reap": "limbeck.pruning.criteria:Reap",
    "random": "limbeck.pruning.criteria:RandomScores",
}
"""Which channels, heads and experts to prune first: each a Criterion."""

FORMATS: Table = {
    "float32": "limbeck.quantization.formats.floats:Float32",
    "bfloat16": "limbeck.quantization.formats.floats:BFloat16",
    "int8": "limbeck.quantization.formats.int8:Int8",
    "int4": "limbeck.quantization.formats.int4:Int4",
    "int2": "limbeck.quantization.formats.two_bits:Int2",
    "ternary": "limbeck.quantization.formats.two_bits:Ternary",
}
"""Number formats: each a Format. A QuantizedFormat is what `quantize` trains for and stores."""

RUNTIMES: Table = {
    "transformers": "limbeck.runtimes.transformers:TransformersRuntime",
    "onnx": "limbeck.runtimes.onnx.runtime:OnnxRuntime",
    "gguf": "limbeck.runtimes.gguf.runtime:GgufRuntime",
}
"""What bundles are written for and answer in: each a Runtime."""

TASKS: Table = {
    "recall": "limbeck.evaluation.tasks:Recall",
    "choice": "limbeck.evaluation.tasks:MultipleChoice",
    "triage": "limbeck.evaluation.tasks:Triage",
    "finding": "limbeck.evaluation.tasks:ImageFinding",
    "intent": "limbeck.evaluation.tasks:Intent",
    "test_split": "limbeck.evaluation.tasks:HeldOutTest",
    "test_images": "limbeck.evaluation.tasks:HeldOutTest",
}
"""How the answers to a kind of question are scored: each a Task."""

FLOORS: Table = {
    "majority": "limbeck.evaluation.floors.methods:Majority",
    "lookup": "limbeck.evaluation.floors.methods:Lookup",
    "entity_lookup": "limbeck.evaluation.floors.methods:EntityLookup",
    "linear": "limbeck.evaluation.floors.methods:Linear",
}
"""What answers a report's questions without a model: each a FloorMethod."""

PLACES: Table = {
    "local": "limbeck.serving.place:Local",
    "llama_cpp": "limbeck.serving.place:LlamaCpp",
    "openai_http": "limbeck.serving.place:OpenAiHttp",
}
"""Where the model of a service's tier is: each a Place."""

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
    "question_choices": QUESTION_CHOICES,
    "label_forms": LABEL_FORMS,
    "rewards": REWARDS,
    "criteria": CRITERIA,
    "formats": FORMATS,
    "runtimes": RUNTIMES,
    "tasks": TASKS,
    "floors": FLOORS,
    "places": PLACES,
    "pruners": PRUNERS,
}
"""Every table, by its name in `limbeck list`."""
