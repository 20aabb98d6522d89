"""The procedural mini-world: spec (words, scenes), render (scene to pixels), score (pixels to verdict)."""
