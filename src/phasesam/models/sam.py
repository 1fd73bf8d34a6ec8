"""Build a SAM from its registry entry: SAM, SAM-HQ, MobileSAM, and the seeded "tiny" for tests.

The parts and their parameter names are those of ``segment_anything`` (Kirillov et al., "Segment
Anything", 2023) and ``segment_anything_hq`` (Ke et al., "Segment Anything in High Quality",
2023), so their checkpoints load as they are.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from phasesam.core.errors import InvalidImageError, ModelError
from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.models.attention import fast_attention
from phasesam.models.checkpoints import compare, load_state_dict
from phasesam.models.class_decoder import ClassDecoder
from phasesam.models.llvm_clash import avoid_llvm_clash
from phasesam.models.model_spec import ModelSpec
from phasesam.models.registry import get_spec, locate
from phasesam.models.tiny_vit import TinyViT

IMAGE_SIZE = 1024
EMBED_SIZE = 64
_TINY_SEED = 20230405


@dataclass(frozen=True)
class ViTSizes:
    """Sizes of one of SAM's ViT encoders and of the decoder that goes with it."""

    dim: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    prompt_dim: int = 256
    mlp_dim: int = 2048


VIT_SIZES = {
    "vit_b": ViTSizes(768, 12, 12, (2, 5, 8, 11)),
    "vit_l": ViTSizes(1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": ViTSizes(1280, 32, 16, (7, 15, 23, 31)),
    "tiny": ViTSizes(32, 2, 2, (1,), prompt_dim=64, mlp_dim=128),
}


@dataclass(frozen=True)
class EncoderOutput:
    """What the image encoder makes of one image.

    Attributes
    ----------
    features : (1, c, 64, 64) tensor
        The image embedding; 256 channels except in the "tiny" model.
    intermediate : tuple of (1, 64, 64, c') tensors
        Features of an early layer for SAM-HQ's decoder; empty for other decoders.
    """

    features: Tensor
    intermediate: tuple[Tensor, ...] = ()


class SamModel(nn.Module):
    """A SAM in parts: encoder, prompt encoder, mask decoder.

    Parameters
    ----------
    spec : ModelSpec
        The registry entry this was built from.
    image_encoder, prompt_encoder, mask_decoder : nn.Module
        Parts with the parameter names of ``segment_anything.modeling.Sam``.

    Attributes
    ----------
    class_decoder : ClassDecoder or None
        Class tokens that an adapter brings.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    class_decoder: ClassDecoder | None

    def __init__(
        self,
        spec: ModelSpec,
        image_encoder: nn.Module,
        prompt_encoder: nn.Module,
        mask_decoder: nn.Module,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.class_decoder = None
        self.image_size = IMAGE_SIZE
        self.embed_size = EMBED_SIZE
        mean = torch.tensor(spec.pixel_mean, device="cpu").view(3, 1, 1)
        std = torch.tensor(spec.pixel_std, device="cpu").view(3, 1, 1)
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)

    @property
    def is_hq(self) -> bool:
        """Whether the decoder is SAM-HQ's, which also takes `EncoderOutput.intermediate`."""
        return self.spec.decoder == "hq"

    def preprocess(self, rgb: NDArray[np.uint8]) -> Tensor:
        """Normalise a resized image and pad it with zeros at the bottom and right.

        Parameters
        ----------
        rgb : (h, w, 3) uint8 array
            Image whose longer side has been resized to 1024 pixels.

        Returns
        -------
        (1, 3, 1024, 1024) float32 tensor
            On the device of the model.

        Raises
        ------
        InvalidImageError
            If the array is not such an image.
        """
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise InvalidImageError(
                f"expected an (h, w, 3) uint8 image, got shape {rgb.shape} and dtype {rgb.dtype}"
            )
        height, width = rgb.shape[:2]
        if not 0 < max(height, width) <= self.image_size or min(height, width) == 0:
            raise InvalidImageError(
                f"expected an image of at most {self.image_size} pixels a side, "
                f"got {height} x {width}"
            )
        device = self.pixel_mean.device
        # Not the buffers: these follow the model into lower precision.
        mean = torch.tensor(self.spec.pixel_mean, device=device).view(3, 1, 1)
        std = torch.tensor(self.spec.pixel_std, device=device).view(3, 1, 1)
        image = (
            torch.from_numpy(np.require(rgb, requirements=["C", "W"])).to(device).permute(2, 0, 1)
        )
        padded = torch.zeros(1, 3, self.image_size, self.image_size, device=device)
        padded[0, :, :height, :width] = (image.float() - mean) / std
        return padded

    def encode(self, x: Tensor) -> EncoderOutput:
        """Run the image encoder.

        Call it under ``torch.inference_mode()`` unless gradients are wanted: without gradients
        the encoders reuse memory.

        Parameters
        ----------
        x : (1, 3, 1024, 1024) tensor
            What `preprocess` returns; converted to the precision of the encoder.
        """
        x = x.to(next(self.image_encoder.parameters()).dtype)
        output = self.image_encoder(x)
        if isinstance(output, tuple):
            features, intermediate = output
            return EncoderOutput(features, tuple(intermediate[:1]) if self.is_hq else ())
        return EncoderOutput(output)


def build_model(
    spec: ModelSpec | str,
    *,
    download: bool = True,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> SamModel:
    """Build a model and load its weights.

    Parameters
    ----------
    spec : ModelSpec or str
        Registry entry, or its name.
    download : bool
        Whether weights may be fetched from the internet.
    progress, should_stop : callable, optional
        Callbacks of the download, in bytes.

    Returns
    -------
    SamModel
        On the CPU, in fp32 and evaluation mode, no parameter requires a gradient.

    Raises
    ------
    CheckpointError
        If the weights do not fit the architecture.
    DownloadError
        If the weights are not here and cannot be fetched.
    ModelError
        If the libraries the model is made of cannot be imported.
    """
    if isinstance(spec, str):
        spec = get_spec(spec)
    path = locate(spec, download, progress, should_stop)
    # Parameters made in inference mode could never be trained, whoever asks for the model first.
    with torch.inference_mode(False):
        # Without memory behind them the parts are made at once and draw no random numbers.
        with torch.device("meta"):
            model = _assemble(spec)
        if path is None:
            _generate_weights(model)
        else:
            _load_weights(model, load_state_dict(path), str(path))
        model.requires_grad_(False).eval()
        if isinstance(model.image_encoder, TinyViT):
            model.image_encoder.fuse()
    return model


def _assemble(spec: ModelSpec) -> SamModel:
    sizes = VIT_SIZES.get(spec.architecture)
    prompt_dim = sizes.prompt_dim if sizes else 256
    sam = import_segment_anything()
    encoder: nn.Module
    if sizes is None:
        encoder, vit_dim = TinyViT(), 160
    else:
        encoder, vit_dim = _vit(spec, sizes), sizes.dim
        fast_attention(encoder)
    prompt_encoder = sam.modeling.PromptEncoder(
        embed_dim=prompt_dim,
        image_embedding_size=(EMBED_SIZE, EMBED_SIZE),
        input_image_size=(IMAGE_SIZE, IMAGE_SIZE),
        mask_in_chans=16,
    )
    decoder_options: dict[str, Any] = {
        "num_multimask_outputs": 3,
        "transformer": sam.modeling.TwoWayTransformer(
            depth=2,
            embedding_dim=prompt_dim,
            mlp_dim=sizes.mlp_dim if sizes else 2048,
            num_heads=8,
        ),
        "transformer_dim": prompt_dim,
        "iou_head_depth": 3,
        "iou_head_hidden_dim": 256,
    }
    if spec.decoder == "hq":
        decoder = import_segment_anything_hq().modeling.MaskDecoderHQ(
            vit_dim=vit_dim, **decoder_options
        )
    else:
        decoder = sam.modeling.MaskDecoder(**decoder_options)
    return SamModel(spec, encoder, prompt_encoder, decoder)


def _vit(spec: ModelSpec, sizes: ViTSizes) -> nn.Module:
    package = import_segment_anything_hq() if spec.decoder == "hq" else import_segment_anything()
    return package.modeling.ImageEncoderViT(
        img_size=IMAGE_SIZE,
        patch_size=16,
        embed_dim=sizes.dim,
        depth=sizes.depth,
        num_heads=sizes.heads,
        mlp_ratio=4,
        out_chans=sizes.prompt_dim,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=sizes.global_blocks,
    )


def assemble_empty(spec: ModelSpec) -> SamModel:
    """Build a model without memory behind its weights, to look at shapes."""
    with torch.device("meta"):
        return _assemble(spec).requires_grad_(False).eval()


def check_weights(spec: ModelSpec, state: Mapping[str, Tensor], origin: str) -> None:
    """Refuse weights that do not fit a model, without building it in memory.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    state : mapping of str to Tensor
        Weights as `phasesam.models.checkpoints.load_state_dict` returns them.
    origin : str
        Name of the file, for the message.

    Raises
    ------
    CheckpointError
        If anything is missing, superfluous, of another shape, or no floating-point number.
    """
    expected = assemble_empty(spec).state_dict()
    compare(state, expected, spec.title, origin)


def _load_weights(model: SamModel, state: dict[str, Tensor], origin: str) -> None:
    compare(state, model.state_dict(), model.spec.title, origin)
    for name, tensor in state.items():
        # Copied even from fp32: the file may be mapped, and must not be needed any longer.
        kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
        state[name] = tensor.to(kind, copy=True, memory_format=torch.contiguous_format)
    model.load_state_dict(state, strict=True, assign=True)


@torch.no_grad()
def _generate_weights(model: SamModel) -> None:
    """Fill a model with random weights that are the same on every machine and in every run.

    The last layers are scaled so that masks and scores spread as a trained model's do:
    logits of a few units around zero, predicted IoU around 0.9.
    """
    generator = torch.Generator("cpu").manual_seed(_TINY_SEED)
    buffers = model.pixel_mean, model.pixel_std
    model.to_empty(device="cpu")
    model.pixel_mean, model.pixel_std = buffers
    for name, tensor in model.state_dict().items():
        if name.endswith("bias"):
            tensor.zero_()
        elif tensor.ndim == 1:
            tensor.fill_(1.0)
        else:
            fan_in = max(1, math.prod(tensor.shape[1:]))
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / math.sqrt(fan_in))
    decoder: Any = model.mask_decoder
    for head in decoder.output_hypernetworks_mlps:
        head.layers[-1].weight *= 15
    decoder.iou_prediction_head.layers[-1].weight *= 0.2
    decoder.iou_prediction_head.layers[-1].bias.fill_(0.9)


def import_segment_anything() -> ModuleType:
    """Import ``segment_anything``, and explain a mismatch of torch and torchvision.

    Raises
    ------
    ModelError
        If the import fails.
    """
    avoid_llvm_clash()
    try:
        import segment_anything
    except (ImportError, RuntimeError) as error:
        raise ModelError(_import_trouble("segment_anything", error)) from error
    return segment_anything


def import_segment_anything_hq() -> ModuleType:
    """Import ``segment_anything_hq`` without the warnings of its outdated use of timm.

    Raises
    ------
    ModelError
        If the import fails.
    """
    avoid_llvm_clash()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Importing from timm.models", FutureWarning)
            warnings.filterwarnings("ignore", "Overwriting tiny_vit_", UserWarning)
            import segment_anything_hq
    except (ImportError, RuntimeError) as error:
        raise ModelError(_import_trouble("segment_anything_hq", error)) from error
    return segment_anything_hq


def _import_trouble(package: str, error: Exception) -> str:
    if "torchvision::nms" in str(error) or "torchvision" in str(error):
        return (
            f"{package} cannot be imported because torchvision does not fit the installed torch "
            f"{torch.__version__} ({error}). Install both from one place, for example "
            "'pip install --force-reinstall torch torchvision', or for CPU only add "
            "'--index-url https://download.pytorch.org/whl/cpu'."
        )
    return f"{package} cannot be imported: {error}"
