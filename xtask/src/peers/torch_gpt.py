"""The models `small` and `big` of `pawl bench` in PyTorch, timed as their users would run them.

    torch_gpt.py --model small --mode eager|compile|eager-bf16|compile-bf16 --threads 2

Prints one JSON object: seconds of every step that counts, tokens a step, parameters, peak memory in bytes.
Shapes: B sequences, T positions, C width, H heads, D head width, V vocabulary.
"""

import argparse
import json
import resource
import time

import torch
import torch.nn.functional as F
from torch import nn

SIZES = {
    "small": dict(depth=4, width=256, num_heads=4, seq_len=256, micro_batch=32, vocab_size=4096),
    "big": dict(depth=8, width=512, num_heads=8, seq_len=512, micro_batch=8, vocab_size=8192),
}
# Steps that are not counted: allocators fill and, compiled, kernels are built.
WARM_UP = {"eager": 2, "compile": 3}
LEAST_STEPS = 3


def norm(x):
    """Root mean square norm of the last axis, without parameters."""
    return F.rms_norm(x, x.shape[-1:])


def rotary_tables(seq_len, head_dim, base=10000.0):
    """Cosines and sines (T, D / 2)."""
    frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angle = torch.arange(seq_len, dtype=torch.float32)[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """x (B, H, T, D), halves against halves."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1).to(x.dtype)


class Block(nn.Module):
    def __init__(self, width, num_heads):
        super().__init__()
        self.num_heads = num_heads
        # One product for the three: the faster form in this framework.
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def attention(self, x, cos, sin):
        b, t, c = x.shape
        split = self.qkv(x).view(b, t, 3, self.num_heads, c // self.num_heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        q, k = rotate(norm(q), cos, sin), rotate(norm(k), cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(b, t, c))

    def forward(self, x, cos, sin):
        x = x + self.attention(norm(x), cos, sin)
        return x + self.down(F.relu(self.up(norm(x))).square())


class Gpt(nn.Module):
    def __init__(self, depth, width, num_heads, seq_len, vocab_size):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, width)
        self.blocks = nn.ModuleList(Block(width, num_heads) for _ in range(depth))
        self.head = nn.Linear(width, vocab_size, bias=False)
        cos, sin = rotary_tables(seq_len, width // num_heads)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)
        for name, weight in self.named_parameters():
            std = 0.02 if name.startswith("embed") else 0.015 if "down" in name else 0.03
            nn.init.normal_(weight, std=std)

    def forward(self, tokens, targets):
        """Mean loss of (B, T), nats."""
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = self.head(norm(x)).float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def seconds_of_steps(model, loss_of, optimizer, autocast, batch, warm_up, budget):
    """Seconds of each step after `warm_up`: at least LEAST_STEPS, then until `budget` seconds are over."""
    seconds, begun = [], None
    for step in range(1_000_000):
        if step == warm_up:
            begun = time.perf_counter()
        start = time.perf_counter()
        with autocast:
            loss = loss_of(*batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        if step >= warm_up:
            seconds.append(time.perf_counter() - start)
            if len(seconds) >= LEAST_STEPS and time.perf_counter() - begun > budget:
                return seconds, value


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=SIZES, required=True)
    parser.add_argument("--mode", choices=["eager", "compile", "eager-bf16", "compile-bf16"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--budget", type=float, default=5.0)
    args = parser.parse_args()
    how, _, precision = args.mode.partition("-")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    size = dict(SIZES[args.model])
    micro_batch = size.pop("micro_batch")
    model = Gpt(**size)
    text = torch.randint(size["vocab_size"], (micro_batch, size["seq_len"] + 1))
    batch = (text[:, :-1].contiguous(), text[:, 1:].contiguous())
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, fused=True
    )
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    loss_of = torch.compile(model) if how == "compile" else model
    seconds, loss = seconds_of_steps(model, loss_of, optimizer, autocast, batch, WARM_UP[how], args.budget)
    found = dict(
        torch=torch.__version__,
        seconds=seconds,
        tokens_per_step=batch[0].numel(),
        num_params=sum(weight.numel() for weight in model.parameters()),
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        loss=loss,
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
