"""Judging segmentations: scores with intervals, reports, baselines. Knows no Qt and no napari."""
