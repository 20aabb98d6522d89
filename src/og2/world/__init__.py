"""The procedural mini-world: spec (language and predicates), render (scene to pixels), score (pixels to verdict)."""
