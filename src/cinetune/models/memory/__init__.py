"""How a model fits the card: quantised weights, offloaded blocks, checkpointing, compilation."""
