"""A recording through the networks, offline, live or as recorded, and scored."""
