"""What `chunked_loss` gives on a GPU, against autograd; run by test_chunked.py in a process of its
own, for the checks of shapes that the tests add cannot be traced by a compiler."""

import torch

from limbeck.contracts.registry import DIVERGENCES
from limbeck.distillation.losses.chunked import Mix, chunked_loss
from limbeck.distillation.targets import HiddenAndHead
from tests.distillation.losses import test_chunked as t

COMPILED = ("forward_kl", "reverse_kl", "jensen_shannon")


def check_equal(kind, form, *, compiling):
    for temperature, weight in ((2.0, 0.7), (1.5, 1.0), (1.0, 0.0)):
        mix = Mix(t.make(kind), temperature, weight, vocab=t.VOCAB, compiling=compiling)
        output = t.targets(form, temperature)
        theirs, labels = t.inputs()
        wanted = t.plain(theirs, labels, output, mix)
        wanted.backward()
        ours = [leaf.detach().cuda().requires_grad_() for leaf in theirs]
        found = chunked_loss(
            states=ours[0],
            head=ours[1],
            bias=ours[2],
            labels=labels.cuda(),
            output=output.to(torch.device("cuda")),
            mix=mix,
            chunk_tokens=4,
        )
        found.sum.backward()
        t.agree(found.sum.cpu(), wanted)
        for one, other in zip(ours, theirs, strict=True):
            t.agree(one.grad.cpu(), other.grad)


def check_large(dtype, *, most):
    """512 tokens of Qwen's vocabulary: the gradient against float64, and the peak."""
    vocab, tokens = 151_936, 512
    states, head = (
        leaf.to("cuda", dtype).requires_grad_()
        for leaf in (t.draw(tokens, 256, seed=0), t.draw(vocab, 256, seed=1) / 16)
    )
    teacher = (t.draw(tokens, 512, seed=2), t.draw(vocab, 512, seed=3) / 512**0.5)
    output = HiddenAndHead(*(part.to("cuda", dtype) for part in teacher))
    labels = torch.randint(vocab, (tokens,)).cuda()
    mix = Mix(t.make("forward_kl"), 2.0, 0.7, vocab)
    for _ in range(2):
        states.grad = head.grad = None
        base = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        chunked_loss(states=states, head=head, labels=labels, output=output, mix=mix).sum.backward()
        peak = torch.cuda.max_memory_allocated() - base
    theirs = [leaf.detach().double().requires_grad_() for leaf in (states, head)]
    logits = theirs[0] @ theirs[1].T
    p = ((output.hidden_states.double() @ output.head.double().T) / 2).log_softmax(dim=-1)
    q = (logits / 2).log_softmax(dim=-1)
    kl = torch.nn.functional.kl_div(q, p, log_target=True, reduction="sum") * 4
    ce = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    (0.7 * kl + 0.3 * ce).backward()
    errors = [
        float((one.grad.double() - other.grad).norm() / other.grad.norm())
        for one, other in zip((states, head), theirs, strict=True)
    ]
    assert max(errors) < most, errors
    assert peak < 600 * 2**20, peak


if __name__ == "__main__":
    check_large(torch.float32, most=1e-5)
    check_large(torch.bfloat16, most=1e-2)
    for kind in sorted(DIVERGENCES):
        for form in ("projected", "whole", "top", "sampled"):
            if (kind, form) != ("adaptive", "sampled"):
                check_equal(kind, form, compiling="never")
    for kind in COMPILED:
        for form in ("projected", "sampled"):
            check_equal(kind, form, compiling="auto")
