"""What real optics, sensors, codecs and weather do to an image: what suites score, and in part what training draws.

Light adds up in linear intensities throughout, but for codecs. Which forms training meets, with parameters of its own
ranges, `coop_training.mixtures` says; the published conditions are other code.
"""
