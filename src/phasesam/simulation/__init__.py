"""Seeded images with exact ground truth: powder, steel and tomography.

Each function takes a frozen configuration in physical units and a seed, and returns a
`Micrograph`; the same seed gives the same bytes.
"""

from phasesam.simulation.micrograph import Micrograph
from phasesam.simulation.particle_shapes import ShapeMix
from phasesam.simulation.particles import PARTICLE_CLASSES, ParticleConfig, simulate_particles
from phasesam.simulation.sem_imaging import SemDetector, SemScan
from phasesam.simulation.steel import STEEL_CLASSES, SteelConfig, simulate_steel
from phasesam.simulation.tomography import Detector
from phasesam.simulation.xct import XCT_CLASSES, XctConfig, simulate_xct

__all__ = [
    "PARTICLE_CLASSES",
    "STEEL_CLASSES",
    "XCT_CLASSES",
    "Detector",
    "Micrograph",
    "ParticleConfig",
    "SemDetector",
    "SemScan",
    "ShapeMix",
    "SteelConfig",
    "XctConfig",
    "simulate_particles",
    "simulate_steel",
    "simulate_xct",
]
