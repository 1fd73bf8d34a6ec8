"""Conv-LoRA: LoRA whose bottleneck also looks at neighbouring tokens, at several scales.

After Zhong et al., "Convolution Meets LoRA" (arXiv 2401.17868). The published code (AutoGluon)
multiplies nothing by its gate, so that the task never trains it and only the balance loss moves
it; it is kept here as the gate "published", for reproduction. The gates "dense" (default) and
"switch" (Fedus et al., arXiv 2101.03961) are trained by the task.

A layer in a windowed block sees every window as a picture of its own: convolutions do not cross
the border of a window and each window has a gate value of its own. In a global block the whole
image is one picture.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional

from phasesam.core.errors import InvalidSettingError
from phasesam.models.products import apply_linear

Gate = Literal["dense", "switch", "published"]
SCALES: dict[Gate, tuple[int, ...]] = {
    "dense": (1, 2, 4),
    "switch": (1, 2, 4),
    "published": (1, 2, 3, 4, 5, 6, 7, 8),
}
_NOISE_FLOOR = 1e-2


class ScaleExpert(nn.Module):
    """One convolution in the bottleneck, at its own scale.

    Parameters
    ----------
    rank : int
        Channels.
    scale : int
        How much finer the grid of tokens is made before the convolution.
    """

    def __init__(self, rank: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(rank, rank, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Map (n, r, h, w) to the same shape."""
        if self.scale == 1:
            return functional.gelu(self.conv(z))
        size = (z.shape[-2], z.shape[-1])
        fine = (size[0] * self.scale, size[1] * self.scale)
        found = functional.gelu(self.conv(_resized(z, fine)))
        return _resized(found, size).to(z.dtype)


def _resized(z: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate (n, r, h, w) as torch's "bicubic" does, in float32.

    As two products: on a processor several times as fast, most of all backwards.
    """
    rows = _bicubic(z.shape[-2], size[0], z.device)
    columns = _bicubic(z.shape[-1], size[1], z.device)
    with torch.autocast(z.device.type, enabled=False):
        return (rows @ z.float() @ columns.mT).to(z.dtype)


@functools.lru_cache(maxsize=64)
def _bicubic(before: int, after: int, device: torch.device) -> Tensor:
    """Weights (after, before) that interpolate along one side."""
    # Whoever asks first may do so where no gradients are wanted; the next may want some.
    with torch.inference_mode(False), torch.no_grad():
        unit = torch.eye(before, device="cpu")[None, None]
        weights = functional.interpolate(unit, (after, before), mode="bicubic")
        return weights[0, 0].to(device)


class ScaleMixture(nn.Module):
    """Several `ScaleExpert` and the gate that weighs them.

    Parameters
    ----------
    rank : int
        Channels of the bottleneck.
    gate : {"dense", "switch", "published"}
        "dense" mixes all experts by a softmax. "switch" takes the best one, times its
        probability. "published" takes the best one of noisy scores and never multiplies.

    Attributes
    ----------
    balance : Tensor or None
        Balance loss of the last forward pass in training; None for "dense".
    """

    def __init__(self, rank: int, gate: Gate) -> None:
        super().__init__()
        if gate not in SCALES:
            raise InvalidSettingError(f"expected a gate of {sorted(SCALES)}, got {gate!r}")
        self.kind: Gate = gate
        self.experts = nn.ModuleList(ScaleExpert(rank, scale) for scale in SCALES[gate])
        self.gate = nn.Linear(rank, len(self.experts), bias=False)
        nn.init.zeros_(self.gate.weight)
        self.noise = nn.Linear(rank, len(self.experts), bias=False) if gate == "published" else None
        if self.noise is not None:
            nn.init.zeros_(self.noise.weight)
        self.balance: Tensor | None = None

    def forward(self, z: Tensor) -> Tensor:
        """Map pictures (n, r, h, w) to what the experts add, of the same shape."""
        pooled = z.mean(dim=(-2, -1))
        # In float32: exponentials of half precision overflow early.
        scores = self.gate(pooled).float()
        if self.kind == "dense":
            weights = scores.softmax(dim=-1).to(z.dtype)
            return torch.stack(
                [
                    weights[:, i, None, None, None] * expert(z)
                    for i, expert in enumerate(self.experts)
                ]
            ).sum(dim=0)
        if self.noise is not None and self.training:
            spread = functional.softplus(self.noise(pooled).float()) + _NOISE_FLOOR
            clean, scores = scores, scores + torch.randn_like(scores) * spread
            self.balance = _published_balance(clean, scores, spread)
        shares = scores.softmax(dim=-1)
        chosen = shares.argmax(dim=-1)
        if self.kind == "switch":
            self.balance = _switch_balance(shares, chosen) if self.training else None
        return self._routed(z, shares, chosen)

    def _routed(self, z: Tensor, shares: Tensor, chosen: Tensor) -> Tensor:
        result = torch.zeros_like(z)
        for index, expert in enumerate(self.experts):
            rows = torch.nonzero(chosen == index)[:, 0]
            if len(rows) == 0:
                continue
            found = expert(z[rows])
            if self.kind == "switch":
                found = found * shares[rows, index, None, None, None].to(z.dtype)
            result = result.index_copy(0, rows, found)
        return result


def _switch_balance(shares: Tensor, chosen: Tensor) -> Tensor:
    """Sum share of pictures x mean probability, x number of experts; 1 when balanced."""
    count = shares.shape[-1]
    used = functional.one_hot(chosen, count).float().mean(dim=0)
    return count * (used * shares.mean(dim=0)).sum()


def _published_balance(clean: Tensor, noisy: Tensor, spread: Tensor) -> Tensor:
    """Squared coefficients of variation of importance and of load (Shazeer et al., 2017)."""
    best = noisy.argmax(dim=-1, keepdim=True)
    importance = torch.zeros_like(noisy).scatter(1, best, 1.0).sum(dim=0)
    # An expert is chosen when its noisy score exceeds the best of the others.
    is_best = functional.one_hot(best[:, 0], noisy.shape[1]).bool()
    second = noisy.masked_fill(is_best, -math.inf).max(dim=-1, keepdim=True).values
    first = noisy.max(dim=-1, keepdim=True).values
    threshold = torch.where(is_best, second, first)
    load = torch.distributions.Normal(0.0, 1.0).cdf((clean - threshold) / spread).sum(dim=0)
    return _variation(importance) + _variation(load)


def _variation(x: Tensor) -> Tensor:
    return x.var(unbiased=False) / (x.mean() ** 2 + 1e-10)


class ConvLoraLinear(LoraLinear):
    """A linear layer with a Conv-LoRA adapter: ``W x + s B (z + mixture(z))`` with ``z = A x``.

    Parameters
    ----------
    base_layer : nn.Linear
        The frozen layer, applied to tokens (n, h, w, c) or (n, h * h, c).
    adapter_name : str
        Name of the adapter.
    config : LoraConfig
        Its attribute ``phasesam_gate`` chooses the gate; "dense" when it has none.
    r, lora_alpha : int
        Rank and scale.
    """

    adapter_layer_names = (*LoraLinear.adapter_layer_names, "lora_mixture")

    def update_layer(
        self, adapter_name: str, r: int, lora_alpha: int, config: LoraConfig, **kwargs: Any
    ) -> None:
        """Add one adapter; called by peft."""
        if "lora_mixture" not in self._modules:
            self.lora_mixture = nn.ModuleDict()
        self.lora_mixture[adapter_name] = ScaleMixture(r, getattr(config, "phasesam_gate", "dense"))
        super().update_layer(adapter_name, r, lora_alpha, config, **kwargs)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Apply the layer and its active adapters to tokens of shape (n, h, w, c) or (n, h², c)."""
        plain = not (args or kwargs)
        result = apply_linear(self.base_layer, x) if plain else self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        for name in self.active_adapters:
            if name not in self.lora_A:
                continue
            down, up = self.lora_A[name], self.lora_B[name]
            z = apply_linear(down, self.lora_dropout[name](x).to(down.weight.dtype))
            picture = _as_pictures(z)
            z = z + self.lora_mixture[name](picture).movedim(1, -1).reshape(z.shape)
            result = result + (apply_linear(up, z) * self.scaling[name]).to(result.dtype)
        return result

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: what a token gets depends on its neighbours.

        Raises
        ------
        InvalidSettingError
            Always.
        """
        raise InvalidSettingError("Conv-LoRA cannot be merged into the weights of its base")


def _as_pictures(z: Tensor) -> Tensor:
    """Turn tokens (n, h, w, r) or (n, h * h, r) into pictures (n, r, h, w)."""
    if z.ndim == 4:
        return z.movedim(-1, 1)
    side = math.isqrt(z.shape[-2])
    if z.ndim != 3 or side * side != z.shape[-2]:
        raise InvalidSettingError(
            f"Conv-LoRA needs tokens on a grid, (n, h, w, c) or (n, h * h, c), got {tuple(z.shape)}"
        )
    return z.unflatten(1, (side, side)).movedim(-1, 1)


def balance_loss(model: nn.Module) -> Tensor | None:
    """Sum the balance losses of the last forward pass over all Conv-LoRA layers.

    Returns
    -------
    scalar Tensor or None
        None where no gate has one.
    """
    parts = [
        module.balance
        for module in model.modules()
        if isinstance(module, ScaleMixture) and module.balance is not None
    ]
    return torch.stack(parts).sum() if parts else None
