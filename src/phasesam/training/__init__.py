"""Adapting SAM to labelled images: data, recipes, tasks, trainer. Knows no Qt and no napari."""
