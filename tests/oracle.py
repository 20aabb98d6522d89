"""A pipeline that answers every request of the mini benchmark rightly, for tests of what surrounds it."""

from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from og2.evals.items import ask_items, picture_items, route_items
from og2.world.render import render


class PassThrough(torch.nn.Module):
    """A VAE that loses nothing."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def encode(self, pixels):
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: pixels))

    def decode(self, latents, return_dict):
        assert not return_dict
        return (latents,)


class Oracle:
    """Answers every request rightly, or copies the source, or stops after so many calls."""

    profile = SimpleNamespace(native_size=64, max_pixels=4096, max_input_image_side_length=64, name="oracle")
    vae = PassThrough()

    def __init__(self, limit, seed=0, copies=False, patience=10**9, world="plain", families=None):
        self.truths = {}
        for task in ("t2i", "edit", "incontext"):
            for item in picture_items(task, world, seed, limit, families):
                self.truths[(item.prompt, item.seed)] = item.truth
        self.answers = {q: a for item in ask_items(limit, seed) for _, q, a in item.questions}
        self.routes = {r.text: r.wants_image for r in route_items(limit, seed)}
        self.by_picture = {}
        for item in ask_items(limit, seed):
            for _, question, answer in item.questions:
                self.by_picture[(render(item.scene, 64).numpy().tobytes(), question)] = answer
        self.copies, self.patience, self.calls = copies, patience, 0

    def __call__(self, prompts, preset, output_type, seed, height, input_images=None, **sizes):
        assert output_type == "pil"
        assert preset in ("t2i", "edit", "in-context")
        assert sizes["width"] == sizes["max_input_image_side_length"] == height
        assert sizes["max_pixels"] == height * height
        self.calls += 1
        if self.calls > self.patience:
            raise KeyboardInterrupt
        if input_images is not None and self.copies:
            return SimpleNamespace(images=[pictures[0] for pictures in input_images])
        scenes = [self.truths[key] for key in zip(prompts, seed, strict=True)]
        return SimpleNamespace(images=[Image.fromarray(render(s, height).numpy()) for s in scenes])

    def describe(self, image, question):
        self.calls += 1
        if self.calls > self.patience:
            raise KeyboardInterrupt
        return self.by_picture[(np.asarray(image).tobytes(), question)].capitalize() + "."

    def chat(self, text, input_images, **_options):
        assert len(input_images) <= 1
        return SimpleNamespace(images=[1] if self.routes[text] else [])
