"""The default recipe against a plain training loop: samples a second, peak memory, score.

``python -m benchmarks.training DATA FOLDER [--views N]``, DATA as for ``phasesam train``.

The plain loop is what published LoRA scripts for SAM do: the published encoder runs forward and
backward in every step, in fp32, and the graph of all prompt rounds is kept until one call of
backward. Layers, ranks, views, prompts, losses and steps are those of the recipe. Each runs in a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.reference import ROOT


def worker(kind: str, data_path: str, folder: str, views: int, labels: str | None) -> None:
    from phasesam.training.dataset import read_training_data
    from phasesam.training.fine_tuning import TrainingSettings, fitted_to, train
    from phasesam.training.recipes import get_recipe

    data = read_training_data(data_path, "promptable", labels=labels)
    recipe = get_recipe("default")
    recipe = fitted_to(recipe, data, is_hq=False)
    recipe = replace(recipe, epochs=max(1, views // recipe.views_per_epoch), patience=None)
    begin = time.perf_counter()
    if kind == "recipe":
        rows = train(data, folder, TrainingSettings(recipe, device="cpu")).rows
    else:
        rows = plain_loop(data, recipe)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    samples = recipe.epochs * recipe.views_per_epoch
    scores = [row["val_score"] for row in rows]
    print(json.dumps({"seconds": seconds, "samples": samples, "peak": peak, "scores": scores}))


def plain_loop(data: Any, recipe: Any) -> list[dict[str, float]]:
    """Train with the published encoder as a whole."""
    import torch
    from accelerate import Accelerator

    from phasesam.training.checkpoint import TrainingState
    from phasesam.training.trainer import Trainer, TrainerConfig

    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    objective = plain_objective(data, recipe, accelerator)
    config = TrainerConfig(recipe.optimiser, batch=recipe.batch, epochs=recipe.epochs)
    state: TrainingState = Trainer(objective, config, accelerator).run()
    return state.rows


def use_published_decoder() -> None:
    """Answer prompts as the published code does, in training and validation."""
    from phasesam.training import prompt_rounds

    def predict_masks(
        decoder: Any, features: Any, position: Any, prompts: Any, scales: slice
    ) -> tuple[Any, Any]:
        sparse, dense, none = prompts
        if dense is None:
            dense = none[..., None, None].expand(len(sparse), -1, *features.shape[-2:])
        masks, scores = decoder.predict_masks(features, position, sparse, dense)
        return masks[:, scales], scores

    prompt_rounds.predict_masks = predict_masks


def plain_objective(data: Any, recipe: Any, accelerator: Any) -> Any:
    import torch
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora.layer import Linear as LoraLinear

    from benchmarks.reference import mobile_sam
    from phasesam.models.one_product import OneProductLinear
    from phasesam.models.sam import EncoderOutput, build_model
    from phasesam.training.feature_store import FeatureStore
    from phasesam.training.objective import Surroundings
    from phasesam.training.prompt_objective import PromptObjective

    use_published_decoder()
    adapter = recipe.adapter
    published = mobile_sam().image_encoder
    inject_adapter_in_model(
        LoraConfig(
            r=adapter.rank,
            lora_alpha=adapter.alpha,
            use_rslora=adapter.rslora,
            target_modules=r".*layers\.[23]\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])",
        ),
        published,
    )

    class Plain(PromptObjective):
        def weights(self) -> dict[str, Any]:
            kept = {n: p for n, p in super().weights().items() if "image_encoder" not in n}
            own = {n: p for n, p in published.named_parameters() if p.requires_grad}
            return {**kept, **{f"image_encoder.{name}": p for name, p in own.items()}}

        def backward(self, samples: Any, share: float, backward: Any) -> float:
            views = [self.plan.view(sample) for sample in samples]
            x = torch.cat([self.model.preprocess(view.rgb) for view in views])
            encoded = EncoderOutput(published(x))
            total = sum(self._losses(encoded, samples, views))
            if not isinstance(total, torch.Tensor):
                return 0.0
            backward(total * share)
            return float(total.detach())

        def encode(self, name: str, rgb: Any) -> EncoderOutput:
            with torch.no_grad():
                return EncoderOutput(published(self.model.preprocess(rgb)))

    store = FeatureStore(Path("unused"))
    around = Surroundings(torch.device("cpu"), accelerator.autocast, store)
    objective = Plain(build_model("mobile_sam"), data, recipe, around)
    for module in objective.model.modules():
        if type(module) is OneProductLinear:
            module.__class__ = LoraLinear
    return objective


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("folder")
    parser.add_argument("--views", type=int, default=640)
    parser.add_argument("--labels")
    parser.add_argument("--worker", choices=("recipe", "plain"))
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.data, options.folder, options.views, options.labels)
        return 0
    found = {}
    for kind in ("recipe", "plain"):
        done = subprocess.run(
            [
                sys.executable, "-W", "ignore", "-m", "benchmarks.training", *sys.argv[1:],
                "--worker", kind,
            ],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        found[kind] = json.loads(done.stdout.splitlines()[-1])
        row = found[kind]
        print(
            f"{kind:8}{row['samples'] / row['seconds']:7.3f} samples/s{row['peak']:8.0f} MB   "
            f"validation {max(row['scores']):.3f}",
            flush=True,
        )
    ours, theirs = found["recipe"], found["plain"]
    print(
        f"speed {theirs['seconds'] / ours['seconds']:.2f}x, "
        f"memory {ours['peak'] / theirs['peak']:.2f}x"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
