"""KL divergence between two models over batches."""

import torch
from torch.nn import functional

from limbeck.models.checkpoints import load_model
from limbeck.models.logit_parity import measure_kl
from tests.support.families import make_family
from tests.support.token_batch import token_batch


def test_it_is_the_mean_over_all_kept_positions(tmp_path):
    original, changed = (load_model(make_family(tmp_path, name="Llama 3")) for _ in range(2))
    changed.train().lm_head.weight.data *= 0.5
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(3, 60, shape, generator=generator) for shape in ((4, 60), (1, 7))]
    # What follows the last token of a row is not learnt.
    found = measure_kl(original, changed, batches=[token_batch(item) for item in ids])
    logs = [
        torch.cat([model(item).logits[:, :-1].flatten(0, 1) for item in ids]).log_softmax(dim=-1)
        for model in (changed, original)
    ]
    expected = functional.kl_div(*logs, log_target=True, reduction="batchmean")
    torch.testing.assert_close(found, expected.item(), rtol=1e-4, atol=1e-7)
    assert found > 0.01
    assert changed.training
    assert measure_kl(original, original, batches=[token_batch(ids[0])]) == 0
