"""Masks, coordinates, intensities, measurements and metrics: numpy and scipy only."""
