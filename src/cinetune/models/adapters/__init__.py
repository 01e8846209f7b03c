"""LoRA: made, read from any origin, written for others."""
