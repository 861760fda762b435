"""Logits are computed where a loss needs them, and are those of the whole forward pass."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import AutoModelForCausalLM

from limbeck.models.batch import IGNORED, Batch
from limbeck.models.forward import KeptForward
from tests.support.families import make_family


@pytest.mark.parametrize(
    "family", ["Gemma 2", "Gemma 3", "Granite", "GLM-4", "Phi-3", "gpt-oss", "GPT-2", "Qwen3"]
)
def test_head_computes_kept_positions_only(family, tmp_path):
    """With soft caps and scaled logits too, and with gradients that are the same."""
    model = AutoModelForCausalLM.from_pretrained(make_family(tmp_path, name=family)).float()
    ids = torch.randint(5, model.config.vocab_size, (3, 12), generator=torch.manual_seed(0))
    answers = torch.zeros_like(ids, dtype=torch.bool)
    answers[0, 9:], answers[2, 4:7] = True, True
    labels = ids.where(answers, IGNORED)
    batch = Batch(ids, labels, torch.arange(3), torch.ones_like(answers))
    whole = model(input_ids=batch.input_ids, use_cache=False).logits[batch.kept]
    rows = []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, given, out: rows.append(out.numel()))
    kept, again = (KeptForward(model)(batch).logits for _ in range(2))
    with ThreadPoolExecutor(2) as threads:  # micro-batches may run side by side
        others = list(threads.map(KeptForward(model), [batch] * 4))
    handle.remove()
    assert all(torch.equal(other.logits, kept) for other in others)
    assert torch.equal(again, kept)
    assert rows == [whole.numel()] * 6
    torch.testing.assert_close(kept, whole, rtol=1e-5, atol=1e-5)
    parameter = model.get_input_embeddings().weight
    ours, theirs = (
        torch.autograd.grad(logits.square().sum(), parameter)[0] for logits in (kept, whole)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    after = model(input_ids=batch.input_ids, use_cache=False).logits
    assert after.shape[:2] == batch.input_ids.shape
