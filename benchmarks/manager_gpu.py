"""Does the model manager give device memory back, and does it get by when there is little?

    python benchmarks/manager_gpu.py [--device cuda] [--megabytes 1000]

Loads models of a known size, unloads and evicts them, and takes memory away from the process
with ``torch.cuda.set_per_process_memory_fraction`` so that computations really run out of it.
Prints one table; exits with 1 if a figure is out of bounds. On the CPU the resident set of the
process is measured and the part with too little memory is left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import psutil
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from phasesam.core.errors import DeviceMemoryError
from phasesam.models.manager import ModelManager
from phasesam.models.memory import format_bytes

MB = 10**6


@dataclass
class Report:
    """Rows of the table; ``failed`` when one is out of bounds."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    failed: bool = False

    def add(self, what: str, figure: str, good: bool = True) -> None:
        self.rows.append((what, figure, "ok" if good else "OUT OF BOUNDS"))
        self.failed |= not good

    def show(self, title: str) -> None:
        table = Table("what", "figure", "", title=title)
        for row in self.rows:
            table.add_row(*row)
        Console(width=110).print(table)


def build(spec: SimpleNamespace, **_: object) -> nn.Module:
    """Layers of 4 MB each, as in a vision transformer."""
    layers = (nn.Linear(1000, 1000, bias=False) for _ in range(spec.size_bytes // (4 * MB)))
    return nn.ModuleList(layers).requires_grad_(False)


def find_spec(name: str) -> SimpleNamespace:
    return SimpleNamespace(name=name, size_bytes=int(name.partition("_")[0]) * MB)


def taken(device: str) -> int:
    """Bytes this process holds on the device, the allocator's reserve included."""
    if device == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.memory_reserved()
    return psutil.Process().memory_info().rss


def unloading(device: str, megabytes: int, report: Report) -> None:
    manager = ModelManager(
        device=device, budget_bytes=int(1.5 * megabytes) * MB, builder=build, find_spec=find_spec
    )
    manager.load("4")
    manager.unload_all()
    before = taken(device)
    start = time.perf_counter()
    manager.load(f"{megabytes}_a")
    report.add(f"load {megabytes} MB", f"{time.perf_counter() - start:.2f} s")
    loaded = taken(device)
    start = time.perf_counter()
    manager.load(f"{megabytes}_b")
    evicted = taken(device)
    report.add(
        "load another, the first is evicted",
        f"{time.perf_counter() - start:.2f} s, {format_bytes(evicted - loaded)} more",
        evicted - loaded < 0.05 * megabytes * MB and len(manager.resident()) == 1,
    )
    start = time.perf_counter()
    claimed = manager.unload_all()
    seconds = time.perf_counter() - start
    share = (evicted - taken(device)) / claimed
    report.add("unload", f"{seconds:.3f} s, {share:.1%} of {format_bytes(claimed)}", share >= 0.95)
    report.add("left over", format_bytes(taken(device) - before))


def real_model(device: str, report: Report) -> None:
    manager = ModelManager(device=device)
    x = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(0))
    results = {}
    for precision in ("fp32", "auto"):
        manager.set_precision(precision)
        with manager.lease("mobile_sam") as model, torch.inference_mode():
            for _ in range(2):
                start = time.perf_counter()
                with manager.autocast(model.pixel_mean.device):
                    encode = manager.retry(lambda m=model: m.encode(x.to(m.pixel_mean.device)))
                results[precision] = encode.features.float().cpu()
                seconds = time.perf_counter() - start
        report.add(f"MobileSAM encoder, {manager.precision}", f"{seconds * 1000:.0f} ms")
    error = (results["auto"] - results["fp32"]).norm() / results["fp32"].norm()
    report.add("relative difference of the two", f"{error:.1e}", bool(error < 2e-2))
    size = manager.resident()[0].bytes
    before = taken(device)
    del encode, model
    manager.unload_all()
    report.add(
        "MobileSAM unloaded", f"{format_bytes(before - taken(device))} for {size / MB:.1f} MB"
    )


def shortage(megabytes: int, report: Report) -> None:
    """Leave room for one model and a half, and compute what needs more."""
    manager = ModelManager(device="cuda", builder=build, find_spec=find_spec)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    limit = torch.cuda.memory_reserved() + int(1.5 * megabytes) * MB
    torch.cuda.set_per_process_memory_fraction(limit / total)
    try:
        manager.load(f"{megabytes}_a")
        manager.load(f"{megabytes}_b")
        names = [model.name for model in manager.resident()]
        report.add("out of memory at load", f"resident: {names}", names == [f"{megabytes}_b"])

        def ones(count: int) -> float:
            return torch.ones(count * MB // 4, device="cuda").mean().item()

        manager.retry(lambda: ones(megabytes))
        report.add("at encode", f"{len(manager.resident())} models", not manager.resident())
        sizes = manager.run_batches(
            lambda piece: (ones(len(piece) * megabytes // 2), len(piece))[1], range(16), 16
        )
        report.add("at decode", f"batches {sizes}", sum(sizes) == 16 and max(sizes) <= 3)
        try:
            manager.run_batches(lambda piece: ones(2 * megabytes), range(4), 4)
            report.add("hopeless", "no error", good=False)
        except DeviceMemoryError as error:
            report.add("hopeless", str(error))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--megabytes", type=int, default=1000)
    options = parser.parse_args()
    report = Report()
    unloading(options.device, options.megabytes, report)
    real_model(options.device, report)
    if options.device == "cuda":
        shortage(options.megabytes, report)
    report.show(f"Model manager on {options.device}")
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
