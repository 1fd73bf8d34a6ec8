"""Reading micrographs and writing results."""
