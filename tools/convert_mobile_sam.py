"""Convert MobileSAM's published checkpoint into the file that ships with PhaseSAM.

Usage::

    python tools/convert_mobile_sam.py mobile_sam.pt [src/phasesam/weights/mobile_sam.safetensors]

The original is https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt.
Weight matrices and kernels become fp16. Everything small stays as it is: biases, norms and
running statistics (1-D), and the random matrix of the positional encoding, on whose precision
the position of every prompt depends. The ImageNet classifier, which segmentation never uses,
is left out.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

ORIGINAL_SHA256 = "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f"
UNUSED = ("image_encoder.norm_head.", "image_encoder.head.")
FULL_PRECISION = ("prompt_encoder.pe_layer.",)
DEFAULT_TARGET = Path(__file__).parents[1] / "src/phasesam/weights/mobile_sam.safetensors"


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def compact(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Halve the precision where it does not matter."""
    if tensor.ndim < 2 or not tensor.is_floating_point() or name.startswith(FULL_PRECISION):
        return tensor.contiguous()
    half = tensor.half()
    if not torch.isfinite(half).all():
        raise SystemExit(f"{name} does not fit into fp16")
    return half.contiguous()


def main() -> None:
    """Convert, and say what was written."""
    source = Path(sys.argv[1])
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else DEFAULT_TARGET
    if sha256(source) != ORIGINAL_SHA256:
        raise SystemExit(f"{source} is not MobileSAM's published checkpoint")
    state = torch.load(source, map_location="cpu", weights_only=True)
    kept = {name: compact(name, t) for name, t in state.items() if not name.startswith(UNUSED)}
    metadata = {"original_sha256": ORIGINAL_SHA256, "licence": "Apache-2.0", "model": "MobileSAM"}
    save_file(kept, target, metadata=metadata)
    print(f"{target}: {target.stat().st_size} bytes, {len(kept)} tensors, sha256 {sha256(target)}")


if __name__ == "__main__":
    main()
