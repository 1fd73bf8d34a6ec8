"""Reading weights from files that may come from anywhere, without ever running code from them.

PyTorch checkpoints are pickles and may contain programs. They are read with torch's restricted
unpickler, which knows tensors and plain containers only; safetensors files cannot contain
anything else.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from phasesam.core.errors import CheckpointError
from phasesam.models.pickles import foreign_import, protocol_of

if TYPE_CHECKING:
    from torch import Tensor

    from phasesam.models.model_spec import Architecture, Decoder

FileKind = Literal["zip", "pickle", "safetensors"]

# Keys under which training programs store the weights inside a checkpoint.
_WRAPPERS = ("model_state", "model_state_dict", "state_dict", "model", "ema_state_dict")
# What such programs put in front of every parameter name.
_PREFIXES = ("module.", "_orig_mod.", "sam.", "model.", "sam_model.")
# The only pickle protocol that torch writes unless it is told otherwise.
_USUAL_PROTOCOL = 2
# What torch's restricted unpickler says about the thing that it does not import.
_REFUSED = re.compile(r"global:? (?:GLOBAL )?([\w.]+)", re.IGNORECASE)
_PARTS = ("image_encoder.", "prompt_encoder.", "mask_decoder.")
# TinyViT's ImageNet classifier; SAM's normalisation, which is part of the registry.
_UNUSED = (
    "image_encoder.norm_head.",
    "image_encoder.head.",
    "pixel_mean",
    "pixel_std",
)
HQ_PARTS = (
    "mask_decoder.hf_token.",
    "mask_decoder.hf_mlp.",
    "mask_decoder.compress_vit_feat.",
    "mask_decoder.embedding_encoder.",
    "mask_decoder.embedding_maskfeature.",
)


def check_kind(path: Path) -> FileKind:
    """Tell the kind of a weights file from its first bytes.

    Raises
    ------
    CheckpointError
        If it is something else, with what it seems to be.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
        size = path.stat().st_size
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not head:
        raise CheckpointError(f"{path} is empty")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer of {size} bytes, not the weights it points to; "
            "fetch them with 'git lfs pull'"
        )
    if head.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            raise CheckpointError(f"{path} is truncated: the end of the archive is missing")
        return "zip"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise CheckpointError(f"{path} is a web page, not weights; was the download refused?")
    if len(head) > 9 and head[8:9] == b"{":
        header = int.from_bytes(head[:8], "little")
        if header + 8 > size:
            raise CheckpointError(f"{path} is truncated: its header is longer than the file")
        return "safetensors"
    if head[0] == 0x80:
        return "pickle"
    raise CheckpointError(
        f"{path} is no weights file: expected a PyTorch checkpoint (.pt, .pth) or a "
        f".safetensors file, found {size} bytes beginning with {head[:8]!r}"
    )


def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a SAM checkpoint.

    Wrappers and prefixes that training programs add are removed, and so is what SAM does not
    use, for instance TinyViT's classifier.

    Parameters
    ----------
    path : str or Path
        Weights file, of any extension: the content decides.

    Returns
    -------
    dict of str to Tensor
        In the file's precision, on the CPU, names as in ``segment_anything.Sam``. Large files
        are mapped, not read.

    Raises
    ------
    CheckpointError
        If the file is damaged, contains code, or is not a SAM.
    """
    path = Path(path)
    kind = check_kind(path)
    content = _read_safetensors(path) if kind == "safetensors" else _read_pickle(path, kind)
    return _unwrap(content, path)


def recognise(state: Mapping[str, Tensor], origin: str) -> tuple[Architecture, Decoder]:
    """Tell architecture and decoder from names and shapes.

    Parameters
    ----------
    state : mapping of str to Tensor
        As `load_state_dict` returns it.
    origin : str
        Name of the file, for messages.

    Raises
    ------
    CheckpointError
        If there is no such encoder.
    """
    decoder: Decoder = "hq" if any(name.startswith(HQ_PARTS) for name in state) else "sam"
    if "image_encoder.patch_embed.seq.0.c.weight" in state:
        return "vit_tiny", decoder
    embedding = state.get("image_encoder.patch_embed.proj.weight")
    if embedding is not None and embedding.ndim == 4:
        dim = embedding.shape[0]
        depth = len({name.split(".")[2] for name in state if ".blocks." in name})
        known: dict[tuple[int, int], Architecture] = {
            (768, 12): "vit_b",
            (1024, 24): "vit_l",
            (1280, 32): "vit_h",
            (32, 2): "tiny",
        }
        if (dim, depth) in known:
            return known[dim, depth], decoder
        raise CheckpointError(
            f"{origin} has a ViT encoder of {depth} blocks with {dim} channels; known are "
            "12 with 768 (ViT-B), 24 with 1024 (ViT-L) and 32 with 1280 (ViT-H)"
        )
    raise CheckpointError(f"{origin} has no image encoder of SAM, SAM-HQ or MobileSAM")


def compare(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], title: str, origin: str
) -> None:
    """Refuse weights that do not fit a model exactly.

    Parameters
    ----------
    state, expected : mapping of str to Tensor
        What the file has, and what the model needs.
    title : str
        Name of the model, for the message.
    origin : str
        Name of the file, for the message.

    Raises
    ------
    CheckpointError
        Listing what is missing, superfluous, of another shape, or not made of
        floating-point numbers.
    """
    missing = [name for name in expected if name not in state]
    missing_hq = [name for name in missing if name.startswith(HQ_PARTS)]
    if missing_hq:
        raise CheckpointError(
            f"{origin} is no SAM-HQ checkpoint: it lacks {_some(missing_hq)}. These parts would "
            "have random weights and spoil every mask; use it as plain SAM instead."
        )
    if missing:
        raise CheckpointError(f"{origin} does not fit {title}: it lacks {_some(missing)}")
    superfluous = [name for name in state if name not in expected]
    if superfluous:
        raise CheckpointError(f"{origin} does not fit {title}: unknown are {_some(superfluous)}")
    differing = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if state[name].shape != tensor.shape
    ]
    if differing:
        raise CheckpointError(f"{origin} does not fit {title}: shapes differ, {_some(differing)}")
    unusable = [
        f"{name} has {_kind(state[name])}"
        for name, tensor in expected.items()
        if tensor.is_floating_point() and not _is_plain_float(state[name])
    ]
    if unusable:
        raise CheckpointError(
            f"{origin} does not fit {title}: expected floating-point numbers (float16, bfloat16, "
            f"float32 or float64), but {_some(unusable)}. Quantised weights cannot be used."
        )


def check_archive(path: Path) -> None:
    """Refuse an archive of ``torch.save`` whose content has changed since it was written.

    torch itself does not look at the checksums. Files of other kinds have none.

    Parameters
    ----------
    path : Path
        Weights file of any kind.

    Raises
    ------
    CheckpointError
        If the content of the archive does not match its checksums; the message names the
        first part that does not.
    """
    if check_kind(path) != "zip":
        return
    try:
        with zipfile.ZipFile(path) as archive:
            # torch can be told to write none, and then writes zeros.
            if not any(info.CRC for info in archive.infolist()):
                return
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, zlib.error) as error:
        raise CheckpointError(f"{path} is damaged: {_first_line(error)}") from error
    if damaged is not None:
        raise CheckpointError(
            f"{path} is damaged: the checksum of {damaged} in it does not match its content. "
            "Copy or download the file again."
        )


def check_values(state: Mapping[str, Tensor], origin: str) -> None:
    """Refuse weights with which a model computes nothing but NaN.

    Parameters
    ----------
    state : mapping of str to Tensor
        Weights that have passed `compare`.
    origin : str
        Name of the file, for the message.

    Raises
    ------
    CheckpointError
        If a number is NaN or infinite, or there are none; the message names the tensors.
    """
    hollow = [name for name, tensor in state.items() if tensor.is_meta]
    if hollow:
        raise CheckpointError(f"{origin} has names and shapes but no values: {_some(hollow)}")
    spoilt = [
        name
        for name, tensor in state.items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if spoilt:
        raise CheckpointError(
            f"{origin} cannot be used: expected finite numbers, but {_some(spoilt)} "
            f"{'contains' if len(spoilt) == 1 else 'contain'} NaN or infinity. Did the training "
            "diverge? Take an earlier checkpoint."
        )


def _is_plain_float(tensor: Tensor) -> bool:
    import torch

    kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    return tensor.dtype in kinds and tensor.layout == torch.strided


def _kind(tensor: Tensor) -> str:
    """Describe what a tensor is made of: ``"int8"``, ``"float32 (sparse_coo)"``."""
    dtype, layout = (str(what).removeprefix("torch.") for what in (tensor.dtype, tensor.layout))
    return dtype if layout == "strided" else f"{dtype} ({layout})"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _read_pickle(path: Path, kind: FileKind) -> Any:
    protocol = protocol_of(path)
    try:
        if protocol == _USUAL_PROTOCOL:
            return _unpickle(path, kind)
        with warnings.catch_warnings():
            # torch warns of every other protocol, and then reads it or raises an error.
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            return _unpickle(path, kind)
    except pickle.UnpicklingError as error:
        # torch's own message advises to switch the protection off; only the name is of use.
        match = _REFUSED.search(str(error))
        name = match[1] if match else foreign_import(path)
        if name is not None:
            raise CheckpointError(
                f"{path} contains more than weights: it asks for {name}. It was not opened, "
                "because such a file can run any program. If you trust where it comes from, save "
                "its state dict alone: torch.save(model.state_dict(), ...)"
            ) from error
        if protocol is not None and protocol > _USUAL_PROTOCOL + 1:
            raise CheckpointError(
                f"{path} is a pickle of protocol {protocol}, which cannot be read without running "
                f"what is in it; expected protocol {_USUAL_PROTOCOL}. Save its state dict with "
                "torch.save(model.state_dict(), ...)"
            ) from error
        raise CheckpointError(f"{path} is damaged: it cannot be unpickled") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {_first_line(error)}") from error


def _unpickle(path: Path, kind: FileKind) -> Any:
    import torch

    # Only the archive format can be mapped into memory.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=kind == "zip")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    import torch

    for _ in range(3):
        if not isinstance(content, Mapping):
            raise CheckpointError(f"{path} holds a {type(content).__name__}, not named weights")
        inner = next((k for k in _WRAPPERS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            break
        content = content[inner]
    state = {
        name: tensor
        for name, tensor in content.items()
        if isinstance(name, str) and isinstance(tensor, torch.Tensor)
    }
    if not state:
        raise CheckpointError(f"{path} contains no weights")
    for _ in range(3):
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    if not any(name.startswith(_PARTS) for name in state):
        raise CheckpointError(
            f"{path} is no SAM: expected names such as {_PARTS[0]}..., got {_some(list(state))}"
        )
    return {name: tensor for name, tensor in state.items() if not name.startswith(_UNUSED)}
