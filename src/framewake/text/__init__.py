"""A prompt as ids."""
