"""The parts of the sample drive's world: textures, objects, the street plan, and the rasteriser that draws them."""
