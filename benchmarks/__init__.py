"""Side by side with the tools people use today; see ``make bench``."""
