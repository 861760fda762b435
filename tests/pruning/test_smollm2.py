"""On a published model, criteria that read text lose less than cuts at random."""

import numpy as np
import pytest
import torch

from limbeck.contracts.config import resolve
from limbeck.contracts.registry import CRITERIA
from limbeck.models.batch import pad_rows
from limbeck.models.checkpoints import load_model
from limbeck.models.forward import KeptForward
from limbeck.models.structure import find_channels
from limbeck.models.tokenizers import load_tokenizer
from limbeck.pruning.allocation import pick_kept
from limbeck.pruning.calibration import calibrate
from limbeck.pruning.criteria import RandomScores, score_groups
from limbeck.pruning.surgery import cut
from tests.support.documentation import ROOT
from tests.support.gguf_files import unpack_smollm2

ROW_TOKENS = 48


@torch.no_grad()
def measure_loss(model, batch):
    return float(torch.nn.functional.cross_entropy(KeptForward(model)(batch).logits, batch.targets))


@pytest.mark.slow
def test_criteria_that_read_text_beat_chance():
    """Those of weights alone lose more than chance here: its busiest channels are the smallest."""
    _, folder = unpack_smollm2()
    tokenizer, model = load_tokenizer(folder), load_model(folder).eval()
    ids = np.array(tokenizer.encode((ROOT / "LICENSE").read_text()))
    rows = ids[: 8 * ROW_TOKENS].reshape(8, ROW_TOKENS)
    calibration, test = (
        pad_rows(list(part), starts=[0] * 4, pad=0, record_ids=list(range(4)))
        for part in (rows[::2], rows[1::2])
    )
    layers = find_channels(model)
    kept = round(0.8 * layers[0].num_groups)
    losses = {}
    kinds = {name: resolve(CRITERIA, name, what="criterion") for name in CRITERIA}
    text_reading = ("activations", "loss_changes")
    chosen = {name: kind() for name, kind in kinds.items() if kind.needs in text_reading}
    for name, criterion in chosen.items() | {
        (f"random {n}", RandomScores(seed=n)) for n in range(3)
    }:
        found = calibrate(model, layers=layers, batches=[calibration], needs=criterion.needs)
        scores = {
            groups: score_groups(model, groups=groups, criterion=criterion, calibration=item)
            for groups, item in found.items()
        }
        smaller = cut(model, kept={g: pick_kept(scores[g], num_kept=kept) for g in layers})
        losses[name] = measure_loss(smaller, test)
    uncut = measure_loss(model, test)
    chance = min(loss for name, loss in losses.items() if name.startswith("random"))
    assert len(chosen) >= 3
    for name in chosen:
        assert uncut - 0.1 < losses[name] < min(chance, uncut + 1), losses
