"""Comparisons of trained flows of molecules: properties, settings of the sampler, switches of training, SemlaFlow."""
