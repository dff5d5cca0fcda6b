"""The published models, written once: the transformer, the autoencoder, the text encoders."""
