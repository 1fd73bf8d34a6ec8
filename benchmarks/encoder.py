"""Image encoders side by side with segment-anything's and segment-anything-hq's.

    python -m benchmarks.encoder [--encoder vit_b] [--repeats 3] [--threads 2]

Same weights (random ones from a seed) and the same picture in both. Prints time, peak memory and
relative error. Times are minima over runs in which the two take turns, so that what else the
machine does falls on both; CPU seconds tell the work apart from the waiting. Memory is the growth
of the resident set while one picture is encoded, measured in a process of its own. Exits with 1
if our encoder is less than 1.5 times as fast, needs more than 0.4 times the memory, or differs by
1e-3 or more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.reference import published_tiny_vit
from phasesam.models.attention import fast_attention
from phasesam.models.sam import VIT_SIZES, import_segment_anything
from phasesam.models.tiny_vit import TinyViT

LEAST_SPEED, MOST_MEMORY, MOST_ERROR = 1.5, 0.4, 1e-3


def published(name: str) -> nn.Module:
    """The encoder as its authors publish it, with random weights."""
    torch.manual_seed(0)
    if name == "vit_tiny":
        model = published_tiny_vit()
    else:
        sizes = VIT_SIZES[name]
        model = import_segment_anything().modeling.ImageEncoderViT(
            img_size=1024,
            embed_dim=sizes.dim,
            depth=sizes.depth,
            num_heads=sizes.heads,
            out_chans=sizes.prompt_dim,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=sizes.global_blocks,
        )
    for key, tensor in model.named_parameters():
        if "pos" in key or "attention_biases" in key:
            nn.init.normal_(tensor, std=0.1)
    return model.requires_grad_(False).eval()


def ours(name: str) -> nn.Module:
    """Our encoder with the same weights."""
    model = published(name)
    if name != "vit_tiny":
        return fast_attention(model)
    used = {k: v for k, v in model.state_dict().items() if not k.startswith(("head", "norm_head"))}
    fast = TinyViT()
    fast.load_state_dict(used, strict=True)
    return fast.requires_grad_(False).eval().fuse()


def features(output: object) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def picture() -> torch.Tensor:
    image = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1))
    image[:, :, 683:] = 0
    return image


def resident(field: str) -> int:
    """Bytes of ``VmRSS`` (now) or ``VmHWM`` (at most so far) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"{field} is not in /proc/self/status")


def peak_growth(build: Callable[[str], nn.Module], name: str) -> int:
    """Bytes by which the resident set grows at most while one picture is encoded."""
    model, image = build(name), picture()
    before = resident("VmRSS")
    with torch.inference_mode():
        model(image)
    return resident("VmHWM") - before


def in_own_process(which: str, name: str, threads: int) -> int:
    command = [sys.executable, "-m", "benchmarks.encoder", "--measure", which]
    command += ["--encoder", name, "--threads", str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(run.stdout.splitlines()[-1])


def take_turns(name: str, repeats: int) -> tuple[list[float], list[float], float]:
    """Best seconds, and CPU seconds, of the published encoder and of ours; relative error."""
    pair, image = (published(name), ours(name)), picture()
    seconds: list[list[tuple[float, float]]] = [[], []]
    with torch.inference_mode():
        results = [features(model(image)) for model in pair]
        for _ in range(repeats):
            for model, times in zip(pair, seconds, strict=True):
                start = time.perf_counter(), time.process_time()
                model(image)
                times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    error = float((results[1] - results[0]).norm() / results[0].norm())
    best = [[min(column) for column in zip(*times, strict=True)] for times in seconds]
    return best[0], best[1], error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--encoder", choices=["vit_b", "vit_l", "vit_h", "vit_tiny"], default="vit_b"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure", choices=["published", "ours"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        build = published if options.measure == "published" else ours
        print(json.dumps(peak_growth(build, options.encoder)))
        return 0
    name, threads = options.encoder, options.threads
    reference_bytes, our_bytes = (in_own_process(w, name, threads) for w in ("published", "ours"))
    reference, own, error = take_turns(name, options.repeats)
    speed, memory = reference[0] / own[0], our_bytes / reference_bytes
    table = Table(
        "", "published", "PhaseSAM", "ratio", "wanted", title=f"{name}, 1024 x 1024, fp32"
    )
    table.add_row(
        "seconds",
        f"{reference[0]:.2f}",
        f"{own[0]:.2f}",
        f"{speed:.2f} x as fast",
        f">= {LEAST_SPEED}",
    )
    work = reference[1] / own[1]
    table.add_row(
        "CPU seconds", f"{reference[1]:.2f}", f"{own[1]:.2f}", f"{work:.2f} x as little", ""
    )
    table.add_row(
        "peak memory",
        f"{reference_bytes / 1e6:.0f} MB",
        f"{our_bytes / 1e6:.0f} MB",
        f"{memory:.2f}",
        f"<= {MOST_MEMORY}",
    )
    table.add_row("relative error", "", f"{error:.1e}", "", f"< {MOST_ERROR:g}")
    Console().print(table)
    return int(speed < LEAST_SPEED or memory > MOST_MEMORY or not error < MOST_ERROR)


if __name__ == "__main__":
    sys.exit(main())
