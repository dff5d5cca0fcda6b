"""Training of LoRAs: clips with captions become factors, through the same models and seams that make clips."""
