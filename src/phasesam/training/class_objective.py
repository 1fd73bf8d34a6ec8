"""Training on phases: maps of several classes without prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phasesam.core.coordinates import resize_image_longest_side
from phasesam.core.images import stretched
from phasesam.core.levels import intensity_levels
from phasesam.models.class_decoder import ClassDecoder, ClassHints
from phasesam.models.detail_head import detail_picture
from phasesam.models.sam import EncoderOutput
from phasesam.training.class_hints import amounts, class_boxes, draw_hints, stacked
from phasesam.training.class_maps import class_targets, map_loss, window_logits
from phasesam.training.detail_training import train_detail
from phasesam.training.objective import SamObjective
from phasesam.training.run_folder import Preview
from phasesam.training.view_plan import Sample
from phasesam.training.views import View, nearest, windows


class ClassObjective(SamObjective):
    """A class for every pixel."""

    def prepare(self, report: Callable[[int, int], None]) -> bool:
        """Let the head of fine detail learn alone; returns whether there is one that does."""
        return train_detail(self.model, self.plan, self.recipe, self.surroundings, report)

    def _losses(
        self, encoded: EncoderOutput, samples: Sequence[Sample], views: Sequence[View]
    ) -> Iterator[Tensor]:
        head = cast(ClassDecoder, self.model.class_decoder)
        targets = [class_targets(view.labels, head.n_classes, head.side) for view in views]
        pictures = torch.cat(
            [
                detail_picture(view.rgb, self.plan.levels(sample.image), self.model.image_size)
                for sample, view in zip(samples, views, strict=True)
            ]
        )
        hints = self._hints(samples, views) if head.takes_hints else None
        loss = map_loss(self.model, encoded, pictures, targets, self.recipe.loss, hints)
        yield loss * len(samples)

    def _hints(self, samples: Sequence[Sample], views: Sequence[View]) -> ClassHints:
        """Draw what the network is told of some views."""
        head = cast(ClassDecoder, self.model.class_decoder)
        told = [
            draw_hints(
                view.labels,
                self._amounts[sample.image],
                self.recipe.hints,
                self.plan.chance(sample),
                head,
            )
            for sample, view in zip(samples, views, strict=True)
        ]
        return stacked(told)

    @cached_property
    def _amounts(self) -> list[NDArray[np.float64]]:
        """Phase fractions of the training images."""
        n = len(self.data.classes)
        return [amounts(image.label_array(), n) for image in self.data.of("train")]

    @torch.no_grad()
    def validate(self) -> tuple[dict[str, float], Preview | None]:
        """Map the validation images: IoU of the classes that occur in them, pooled.

        A network that takes phase fractions or boxes is asked without and with the true ones; its
        score is the mean.
        """
        figures, preview = self._judge(told=False)
        head = cast(ClassDecoder, self.model.class_decoder)
        if figures and head.takes_hints:
            plain, guided = figures["val_score"], self._judge(told=True)[0]["val_score"]
            figures |= {
                "score_plain": plain, "score_told": guided, "val_score": (plain + guided) / 2,
            }  # fmt: skip
        return figures, preview

    def _judge(self, *, told: bool) -> tuple[dict[str, float], Preview | None]:
        images = self.judged
        if not images:
            return {}, None
        n = len(self.data.classes)
        confusion = np.zeros((n, n), np.int64)
        preview = None
        for index, image in enumerate(images):
            rgb, truth = image.rgb(), image.label_array()
            rgb = stretched(rgb) if self.recipe.stretch else rgb
            predicted = self._map(f"val-{index}", rgb, truth if told else None)
            known = truth >= 0
            pairs = truth[known].astype(np.int64) * n + predicted[known]
            confusion += np.bincount(pairs, minlength=n * n).reshape(n, n)
            preview = preview or Preview(rgb, truth, predicted)
        hits = np.diag(confusion)
        present = confusion.sum(1) > 0
        iou = hits / np.maximum(confusion.sum(0) + confusion.sum(1) - hits, 1)
        if not present.any():
            return {}, preview
        figures = {f"iou_{i}": float(iou[i]) for i in range(n) if present[i]}
        figures["val_score"] = float(iou[present].mean())
        return figures, preview

    def _map(
        self, name: str, rgb: NDArray[np.uint8], truth: NDArray[np.int32] | None = None
    ) -> NDArray[np.int32]:
        """Class of each pixel, window by window; the network is told what is true."""
        height, width = rgb.shape[:2]
        window = self.recipe.views.window or max(height, width)
        result, levels = np.zeros((height, width), np.int32), intensity_levels(rgb)
        for box in windows((height, width), window):
            y0, x0, y1, x1 = box
            resized = resize_image_longest_side(rgb[y0:y1, x0:x1])
            encoded = self.encode(f"{name}-{y0}-{x0}", resized)
            with self.surroundings.autocast():
                size, hints = (y1 - y0, x1 - x0), None
                if truth is not None:
                    shown = nearest(truth[y0:y1, x0:x1], (resized.shape[0], resized.shape[1]))
                    hints = self._true_hints(truth, shown)
                logits = window_logits(self.model, encoded, resized, levels, size, hints)
            result[y0:y1, x0:x1] = logits.argmax(0).cpu().numpy()
        return result

    def _true_hints(self, truth: NDArray[np.int32], shown: NDArray[np.int32]) -> ClassHints:
        """Amounts of an image, and boxes in what is shown of it, as the adapter takes them."""
        head, n = cast(ClassDecoder, self.model.class_decoder), len(self.data.classes)
        shares = boxes = None
        if head.ratio is not None:
            shares = torch.from_numpy(amounts(truth, n))[None].float()
        if head.boxes is not None:
            boxes = torch.from_numpy(class_boxes(shown, n))[None].float()
        return ClassHints(shares, None, boxes)
