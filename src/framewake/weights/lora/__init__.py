"""LoRA files of every published format, resolved against the model's names and applied as a view of its weights."""
