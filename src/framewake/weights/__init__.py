"""Weights: files read, checkpoints opened, tensors handed out, files written, LoRAs applied."""
