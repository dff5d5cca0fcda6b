"""What ships with the package: the demonstration checkpoint and its LoRA, made in the folder ``demonstration/``."""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
LORAS = Path(__file__).parent / "lora"
