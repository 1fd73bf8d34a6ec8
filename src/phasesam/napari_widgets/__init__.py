"""The napari plugin: docks, readers, writers and samples. Only here are Qt and napari known."""
