"""Models: what there is, fetching, building, and the one owner of device memory."""
