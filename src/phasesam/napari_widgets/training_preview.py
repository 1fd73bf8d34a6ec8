"""A validation image with the outlines of what is true and of what the model says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QFontMetricsF, QImage, QPainter, QPalette, QPen
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from phasesam.training.run_folder import Preview

TRUTH = QColor("#F0E442")
"""Okabe-Ito yellow."""
PREDICTION = QColor("#56B4E9")
"""Okabe-Ito sky blue."""
_LONGEST = 900
_MOST_HEIGHT = 300


def preview_picture(preview: Preview, longest: int = _LONGEST) -> NDArray[np.uint8]:
    """Draw outlines over the picture; for workers.

    Parameters
    ----------
    preview : Preview
        Picture, truth and prediction of one size.
    longest : int
        Longest side of the result in pixels.

    Returns
    -------
    (h, w, 3) uint8 array
        The picture, dimmed a little, with thick outlines of the truth and thin ones of the
        prediction above them.
    """
    height, width = preview.rgb.shape[:2]
    factor = longest / max(height, width)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    picture = Image.fromarray(np.ascontiguousarray(preview.rgb))
    rgb = np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR))
    out = np.rint(rgb * np.float32(0.85)).astype(np.uint8)
    for labels, colour, thickness in (
        (preview.truth, TRUTH, 2),
        (preview.prediction, PREDICTION, 1),
    ):
        outlined = outlines(_enlarged(labels, size), thickness)
        out[outlined] = (colour.red(), colour.green(), colour.blue())
    return out


def _enlarged(labels: NDArray[np.int32], size: tuple[int, int]) -> NDArray[np.int32]:
    """Bring labels to another size; each pixel takes the nearest."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for new, old in zip(size, labels.shape, strict=True)
    )
    return labels[rows][:, columns]


def outlines(labels: NDArray[np.int32], thickness: int) -> NDArray[np.bool_]:
    """Find where labels change, ``2 * thickness`` pixels wide; not where nothing is labelled."""
    found = np.zeros(labels.shape, np.bool_)
    for axis in (0, 1):
        across = np.moveaxis(labels, axis, 0)
        marked = np.moveaxis(found, axis, 0)
        one, other = across[:-1], across[1:]
        change = (one != other) & (one >= 0) & (other >= 0)
        for shift in range(1 - thickness, thickness + 1):
            first, last = max(0, -shift), min(len(change), len(across) - shift)
            marked[first + shift : last + shift] |= change[first:last]
    return found


class PreviewView(QWidget):
    """The picture, as wide as the dock, with a legend; nothing without one."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._image: QImage | None = None
        policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.setAccessibleName("A validation image")
        self.setToolTip(
            "A validation image, after each epoch: outlines of what is true and of what the\n"
            "model says. For objects, the answers to one click each."
        )

    @property
    def has_picture(self) -> bool:
        """Whether there is something to see."""
        return self._image is not None

    def set_picture(self, rgb: NDArray[np.uint8] | None) -> None:
        """Show a picture, (h, w, 3) uint8, or nothing."""
        if rgb is None:
            self._image = None
        else:
            height, width = rgb.shape[:2]
            data = np.ascontiguousarray(rgb)
            wrapped = QImage(data.data, width, height, 3 * width, QImage.Format.Format_RGB888)
            self._image = wrapped.copy()
        self.updateGeometry()
        self.update()

    def hasHeightForWidth(self) -> bool:
        """Keep the shape of the picture."""
        return True

    def heightForWidth(self, width: int) -> int:
        """Leave room for the picture and the legend."""
        if self._image is None:
            return 0
        legend = round(QFontMetricsF(self.font()).height()) + 6
        height = width * self._image.height() / max(1, self._image.width())
        return min(round(height), _MOST_HEIGHT) + legend

    def sizeHint(self) -> QSize:
        """Ask for the height that the width needs."""
        width = max(self.width(), 200)
        return QSize(width, self.heightForWidth(width))

    def paintEvent(self, event: Any) -> None:
        """Draw picture and legend."""
        if self._image is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        line = QFontMetricsF(self.font()).height() + 6.0
        room = QRectF(0, 0, self.width(), self.height() - line)
        size = QSize(self._image.size()).scaled(
            round(room.width()), round(room.height()), Qt.AspectRatioMode.KeepAspectRatio
        )
        left = (room.width() - size.width()) / 2
        painter.drawImage(QRectF(left, 0, size.width(), size.height()), self._image)
        self._paint_legend(painter, self.height() - line)
        painter.end()

    def _paint_legend(self, painter: QPainter, top: float) -> None:
        metrics = QFontMetricsF(self.font())
        x, middle = 2.0, top + 4.0 + metrics.height() / 2
        for text, colour, thickness in (("truth", TRUTH, 4.0), ("model", PREDICTION, 2.0)):
            painter.setPen(QPen(colour, thickness))
            painter.drawLine(QPointF(x, middle), QPointF(x + 18.0, middle))
            x += 24.0
            painter.setPen(self.palette().color(QPalette.ColorRole.WindowText))
            width = metrics.horizontalAdvance(text)
            painter.drawText(
                QRectF(x, top + 4.0, width + 2.0, metrics.height()),
                Qt.AlignmentFlag.AlignLeft,
                text,
            )
            x += width + 18.0
