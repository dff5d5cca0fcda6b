"""What is published, written once: the transformer, the autoencoder, the text encoders."""
