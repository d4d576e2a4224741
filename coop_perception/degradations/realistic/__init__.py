"""What real optics, sensors, codecs and weather do to an image. For scoring: nothing is trained on it.

Other code than the conditions that networks are trained on, and other constants: a network that is good on both has not
learnt a generator by heart. Light adds up in linear intensities throughout, but for codecs.
"""
