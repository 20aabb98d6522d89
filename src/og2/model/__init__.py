"""The networks: transformer, blocks, attention, rope, packing, and the checkpoint layouts they come from."""
