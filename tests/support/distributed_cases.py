"""Trains one small model by one and by several processes, and writes down what came out.

Called with a folder and `plain` or `zero`; each case forks its processes from this one, so that
torch is imported once.
"""

import gc
import json
import os
import signal
import socket
import sys
from pathlib import Path

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.records import Record, write_jsonl
from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.train_tokenizer import train_tokenizer
from limbeck.data.loading.batches import Batches
from limbeck.data.loading.config import BatchingConfig
from limbeck.distillation.features.config import Matching
from limbeck.distillation.losses.config import SoftTarget
from limbeck.distillation.targets import FullLogits, Targets
from limbeck.distillation.teachers.base import Teacher
from limbeck.models.batch import Batch
from limbeck.models.config import DenseModel, MoeModel
from limbeck.models.tokenizers import load_tokenizer
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import NextToken
from limbeck.training.config import EarlyStopping, TrainingConfig
from limbeck.training.early_stopping import make_stopper
from limbeck.training.loop import fit

STEPS = 6
MODELS = {
    "moe": MoeModel(
        kind="moe",
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        initializer_range=0.2,
    ),
    "dense": DenseModel(
        kind="dense",
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=32,
        initializer_range=0.2,
    ),
}


class FixedTeacher(Teacher):
    """A teacher whose output at a token depends on nothing but the token."""

    hidden_size, layers, live_model = 12, (), None

    def __init__(self, vocab: int) -> None:
        self.vocab = vocab
        generator = torch.Generator().manual_seed(0)
        self.logits = torch.randn(vocab, vocab, generator=generator)
        self.states = torch.randn(vocab, self.hidden_size, generator=generator)

    def require(self, *, layers=(), attention=()) -> None:
        pass

    def __call__(self, batch: Batch) -> Targets:
        ids = batch.input_ids[batch.kept]
        return Targets(FullLogits(self.logits[ids]), (self.states[ids],))


def make_corpus(folder: Path) -> Path:
    words = ["头晕", "心悸", "喘息", "咳嗽", "腹痛", "恶心", "皮疹", "瘙痒"]
    records = [
        Record(
            f"{n}",
            f"病{n}有哪些症状？" * (1 + n % 3),
            "、".join(words[n % 5 : n % 5 + 3]),
            f"{n}",
            "test",
            "内科",
        )
        for n in range(24)
    ]
    (folder / "records").mkdir(parents=True)
    write_jsonl(folder / "records" / "train.jsonl", records)
    texts = [record.question + record.answer for record in records]
    train_tokenizer(texts, folder=folder / "tokenizer", config=TokenizerConfig(min_count=1))
    return folder


def train(
    kind: str,
    folder: Path,
    state: Path,
    *,
    kill_at: int = -1,
    blank: bool = False,
    early_stopping: EarlyStopping | None = None,
) -> dict:
    """The curve and what became of the model; in `blank` runs one micro-batch carries no label."""
    tokenizer = load_tokenizer(folder / "tokenizer")
    batching = BatchingConfig(per_device_train_batch_size=3, gradient_accumulation_steps=4)
    batches = Batches(Corpus(folder), tokenizer=tokenizer, config=batching)

    def source(step: int) -> list[Batch]:
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        found = batches(step)
        if blank:
            first = found[0]
            empty = torch.full_like(first.labels, -100)
            found[0] = Batch(first.input_ids, empty, first.record_ids, first.tokens)
        return found

    model = MODELS[kind].build(tokenizer=tokenizer, seed=0)
    if kind == "moe":
        objective = NextToken(kind="next_token").build(ObjectiveContext(model))
    else:
        pairs = (Matching(student_layer=1, teacher_layer=1),)
        teacher = FixedTeacher(model.config.vocab_size)
        objective = SoftTarget(kind="soft_target", matching=pairs).build(
            ObjectiveContext(model, teacher=teacher)
        )
    config = TrainingConfig(
        max_steps=STEPS,
        learning_rate=0.01,
        warmup_steps=2,
        save_interval_seconds=0,
        logging_steps=1,
        early_stopping=early_stopping,
    )
    stopper = make_stopper(config, held_out=batches.each_once)
    history = fit(
        model,
        batches=source,
        objective=objective,
        config=config,
        state=state,
        title=kind,
        stopper=stopper,
    )
    weights = {name: item.double().sum().item() for name, item in model.state_dict().items()}
    biases = [
        item.tolist() for name, item in model.named_buffers() if name.endswith("balance_bias")
    ]
    stopped_step = STEPS if stopper is None else stopper.stopped_step
    return {
        "history": history,
        "weights": weights,
        "biases": biases,
        "stopped_step": stopped_step,
    }


def run_group(count: int, out: Path, task, *, environment: dict[str, str]) -> list[dict]:
    """What each of so many processes gives back; none for those that were killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 1
        try:
            if count > 1:
                os.environ |= environment | {
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(count),
                    "LOCAL_WORLD_SIZE": str(count),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                }
            if "ACCELERATE_USE_FSDP" in os.environ:
                let_fsdp2_run_on_a_cpu()
            (out.parent / f"{out.name}.{rank}").write_text(json.dumps(task()))
            code = 0
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            sys.stdout.flush()
            os._exit(code)
    for child in children:
        os.waitpid(child, 0)
    files = [out.parent / f"{out.name}.{rank}" for rank in range(count)]
    return [json.loads(file.read_text()) if file.is_file() else {} for file in files]


ON_CPU = {"ACCELERATE_USE_CPU": "true"}
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}


def zero(stage: int) -> dict[str, str]:
    return {
        "DS_ACCELERATOR": "cpu",
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage),
    }


def let_fsdp2_run_on_a_cpu() -> None:
    """Accelerate offers FSDP2 to GPUs alone; what it then calls works on a CPU as well."""
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def main(place: str, which: str) -> None:
    gc.freeze()  # so that no process copies it
    folder = Path(place)
    corpus = make_corpus(folder / "corpus")
    results = {}

    def case(name: str, count: int, kind: str, *, state: str = "", environment=ON_CPU, **more):
        state_folder = folder / (state or name)
        results[name] = run_group(
            count,
            folder / f"{name}.json",
            lambda: train(kind, corpus, state_folder, **more),
            environment=environment,
        )

    for kind in MODELS:
        case(kind, 1, kind)
    if which == "zero":
        for stage in (1, 2, 3):
            for kind in MODELS:
                case(f"zero{stage}-{kind}", 2, kind, environment=zero(stage))
            more = {"state": "resumed", "kill_at": stage + 1, "environment": zero(stage)}
            case(f"killed-{stage}", 2, "moe", **more)
    else:
        for kind in MODELS:
            case(f"ddp-{kind}", 2, kind)
        case("ddp-of-three", 3, "moe")
        case("fsdp2-moe", 2, "moe", environment=FSDP2)
        case("blank", 1, "moe", blank=True)
        case("ddp-blank", 2, "moe", blank=True)
        stopping = EarlyStopping(eval_steps=1, patience=1, threshold=10.0)
        case("stopped", 1, "moe", early_stopping=stopping)
        case("ddp-stopped", 2, "moe", early_stopping=stopping)
        case("killed-1", 1, "moe", state="resumed", kill_at=2)
        case("killed-2", 2, "moe", state="resumed", kill_at=3)
        case("killed-3", 2, "moe", state="resumed", kill_at=4, environment=FSDP2)
    case("resumed", 1, "moe", state="resumed")
    (folder / "results.json").write_text(json.dumps(results))
