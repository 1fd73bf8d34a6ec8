"""``phasesam demo``."""


def demo() -> None:
    """Show."""
