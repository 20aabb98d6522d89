"""The whole data flow, readable from `run_all` down: Request -> plan -> conditioning -> references ->
guided velocity -> solver -> VAE decode -> Result.

There is no second one: single pictures, batches and chat pass through it. The pipeline holds networks and
nothing else; what belongs to a call lives in objects made for that call. By default each picture is
computed by itself, the language model reads one prompt at a time and the VAE one picture at a time, so a
picture's bytes never depend on its neighbours.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from og2.adapters import AdaptedPipeline
from og2.call import (
    Clock,
    Inputs,
    OnStep,
    OutputType,
    Progress,
    Settings,
    check_noise,
    given_pictures,
    joined,
    named_pictures,
    needs_negative,
    requests_of,
    result_of,
    settings_of,
)
from og2.conditioning import images, vlm
from og2.conditioning.templates import Turn
from og2.drawing import Picture, draw_latents
from og2.errors import Og2Error, RequestError
from og2.model.fused import fuse as fuse_blocks
from og2.model.transformer import OmniGen2Transformer2DModel
from og2.placement import can_fuse, is_fused
from og2.presets import PROFILE_FILE, profile_json, scheduler_json
from og2.request import Plan, Profile, Provenance, Request, Result, picture_hash, plan, read_profile
from og2.sampling.solvers import NOISY_SOLVERS

__all__ = ["OmniGen2Pipeline", "Progress", "Settings"]

REFERENCE_STREAM = 0x9E3779B97F4A7C15
"""Distance between the seeds of a picture's noise and of its references' noise (2**64 / golden ratio)."""
STEP_STREAM = 0xD1B54A32D192ED03
"""Distance between the seeds of a picture's noise and of the noise that its solver draws."""
DESCRIBE = "Describe this picture."
_NOT_OPTIONS = ("self", "output_type", "return_dict", "options")


@dataclass
class Job:
    """One request on its way through `run_all`: what was planned, given, read and encoded so far."""

    plan: Plan
    inputs: Inputs
    pictures: list[Image.Image]
    text: Tensor | None = None
    negative: Tensor | None = None
    posteriors: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class OmniGen2Pipeline(AdaptedPipeline):
    """Draws, edits, combines and describes pictures with an OmniGen2 checkpoint.

    Placement, offload and the progress bar are those of diffusers. Calling it never changes it.
    """

    model_cpu_offload_seq = "mllm->transformer->vae"

    def __init__(
        self,
        transformer: OmniGen2Transformer2DModel,
        vae: Any,
        mllm: Any,
        processor: vlm.Processor,
        profile: Profile | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, vae=vae, mllm=mllm, processor=processor)
        self.profile = profile or Profile(config=dict(transformer.config))

    @classmethod
    def from_pretrained(  # noqa: PLR0913  # pyright: ignore[reportIncompatibleMethodOverride]  no unknown names
        cls,
        pretrained_model_name_or_path: str | Path | None = None,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        transformer_path: str | Path | None = None,
        torch_dtype: torch.dtype | None = None,
        fuse: bool | None = None,
    ) -> OmniGen2Pipeline:
        """The pipeline of a folder in the published layout, of a hub id, or of mini (None or "mini").

        dtype None keeps the stored one; torch_dtype is its older name. `fuse` repacks the transformer for
        the CPU, with the same numbers up to rounding, until it is moved; None does so where CPU and dtype
        can. Raises: CheckpointError.
        """
        from og2.model.weights import load_components
        from og2.model.wide import widen

        found = load_components(
            pretrained_model_name_or_path, dtype or torch_dtype, revision, local_files_only, transformer_path
        )
        profile = replace(read_profile(found.folder), model_hash=found.fingerprint)
        processor = vlm.load_processor(found.processor_folder)
        pipe = cls(found.transformer, found.vae, found.mllm, processor, profile)
        pipe.transformer_hash = found.transformer_fingerprint
        if can_fuse(pipe.transformer) if fuse is None else fuse:
            fuse_blocks(pipe.transformer)
        widen(pipe.vae)
        widen(pipe.mllm)
        return pipe

    def save_pretrained(self, save_directory: str | Path, max_shard_size: int | str = "5GB") -> None:  # type: ignore[override]
        """Writes the model in the published layout, with its profile; the folder must not exist.

        Raises: CheckpointError.
        """
        from og2.model.weights import Components, save_components

        components = Components(
            transformer=self.transformer,
            vae=self.vae,
            mllm=self.mllm,
            scheduler_config=scheduler_json(self.profile),
            processor_folder=Path(),
            folder=Path(),
            fingerprint="",
        )
        folder = save_components(components, save_directory, self.processor, max_shard_size)
        (folder / PROFILE_FILE).write_text(
            json.dumps(profile_json(self.profile), indent=2) + "\n", encoding="utf-8"
        )

    def __call__(  # noqa: PLR0913  the official call
        self,
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        input_images: Any = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        text_guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        cfg_range: tuple[float, float] | None = None,
        max_pixels: int | None = None,
        max_input_image_side_length: int | None = None,
        align_res: bool | None = None,
        num_images_per_prompt: int | None = None,
        scheduler: str | None = None,
        seed: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | list[Tensor] | None = None,
        reference_noise: list[Tensor] | None = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        **options: Any,
    ) -> Any:
        """Pictures for one prompt or a list of prompts: a Result whose `.images` holds them in order.

        What is None is decided by the preset and the model. With a list of prompts every option is one
        value for all or a list of one value each, and `input_images` is a list of (list or None).
        `latents`: initial noise per picture; `reference_noise`: the standard-normal draw for each
        reference, in order. `options`: the other fields of Request, names users bring from elsewhere,
        `prompt_embeds` and the like, and those of Settings, `callback_on_step_end` and `step_func`.
        return_dict=False gives the bare pictures. Raises: RequestError, ImageError, Cancelled.
        """
        given = {name: value for name, value in locals().items() if name not in _NOT_OPTIONS}
        settings, options = settings_of(self, output_type, options)
        requests, inputs = requests_of({**given, **options})
        result = joined(self.run_all(requests, inputs, settings), output_type)
        return result if return_dict else result.images

    def run(self, request: Request, on_step: OnStep | None = None, output_type: OutputType = "pil") -> Result:
        """The pictures of one request, picture i from seed + i."""
        return self.run_all([request], settings=Settings(output_type, on_step=on_step))[0]

    @torch.no_grad()
    def run_all(
        self,
        requests: Sequence[Request],
        inputs: Sequence[Inputs] | None = None,
        settings: Settings | None = None,
    ) -> list[Result]:
        """One result per request, in order.

        Every request of the call is planned, and its pictures read, before anything is computed.
        """
        settings, clock = settings or Settings(), Clock()
        given = inputs or [Inputs()] * len(requests)
        jobs = [self._plan(r, i, settings.pack) for r, i in zip(requests, given, strict=True)]
        with clock("conditioning_s"):
            self._encode_texts(jobs)
        with clock("references_s"):
            for job in jobs:
                job.posteriors = [self._encode_picture(picture, job.plan.request) for picture in job.pictures]
        pictures = [self._picture(job, index) for job in jobs for index in range(len(job.plan.seeds))]
        with clock("denoise_s"), self._progress(pictures, settings.on_step) as on_step:
            latents = draw_latents(self.transformer, pictures, settings.pack, settings.together, on_step)
        with clock("decode_s"):
            done = [
                self._decode(x, picture.plan, settings.output_type)
                for x, picture in zip(latents, pictures, strict=True)
            ]
        timings, remaining = clock.finish(), iter(done)
        own = [[next(remaining) for _ in job.plan.seeds] for job in jobs]
        return [
            result_of(job.plan, job.inputs, pictures, settings.output_type, timings)
            for job, pictures in zip(jobs, own, strict=True)
        ]

    def chat(
        self,
        prompt: str,
        input_images: Any = (),
        max_new_tokens: int = 256,
        sampling: vlm.Sampling | None = None,
        on_token: Callable[[str], None] | None = None,
        history: Sequence[Turn] = (),
        **options: Any,
    ) -> Result:
        """The model's answer in `.text`, and in `.images` the picture that it asked for, if it did.

        `input_images`: a picture or a list of them, those of `history`, the earlier turns, first. What is
        drawn has the text features of the whole conversation, its pictures seen; `options` are those of
        Request.
        """
        settings, options = settings_of(self, options.pop("output_type", "pil"), options)
        name, sources, options = named_pictures(input_images, options)
        loaded = [images.load_image(source) for source in sources]
        pictures = [picture for picture, _ in loaded]
        # refuses bad options before the model speaks; more pictures may be talked about than drawn from
        asked = Request.from_options({"prompt": prompt, "conditioning": "chat", **options, name: ()})
        clock = Clock()
        with clock("answer_s"):
            said = vlm.answer(
                self.mllm, self.processor, prompt, pictures, max_new_tokens, sampling, on_token, history
            )
        if said.wants_image:
            request = replace(asked, input_images=tuple(sources))
            before = Inputs(history=tuple(history) or None)
            drawn = self.run_all([request], [before], settings)[0]
            return replace(drawn, timings={**drawn.timings, **clock.finish()}, text=said.text)
        notes = (*asked.notes, *(note for _, changes in loaded for note in changes))
        if not said.is_complete:
            notes = (*notes, f"the answer was cut at max_new_tokens={max_new_tokens}")
        return Result([], notes=notes, timings=clock.finish(), text=said.text)

    def describe(self, image: Any, question: str = DESCRIBE, max_new_tokens: int = 256) -> str:
        """What the model says about a picture, or a list of pictures; likeliest words, nothing is drawn.

        Raises: RequestError without a picture; ImageError.
        """
        pictures = [images.load_image(source)[0] for source in given_pictures(image)]
        if not pictures:
            raise RequestError(f"image={image!r} is no picture; give one, or a list of them")
        return vlm.answer(self.mllm, self.processor, question, pictures, max_new_tokens).text

    def _plan(self, request: Request, inputs: Inputs, pack: str) -> Job:
        read = [images.load_image(source) for source in request.input_images]
        pictures = [picture for picture, _ in read]
        sizes = [(picture.height, picture.width) for picture in pictures]
        planned = plan(request, self.adapted_profile, sizes)
        notes = [*self.adapter_notes, *(note for _, changes in read for note in changes)]
        if inputs.has_own_noise:
            notes.append("the noise was given with the call; the seed does not reproduce the picture")
        provenance = Provenance(
            dtype=str(self.transformer.dtype).removeprefix("torch."),
            blocks="fused" if is_fused(self.transformer) and request.numerics != "official" else "plain",
            device=self._execution_device.type,
            pack=pack,
            given=inputs.names,
            references=tuple(
                (str(source) if isinstance(source, (str, os.PathLike)) else None, picture_hash(picture))
                for source, picture in zip(request.input_images, pictures, strict=True)
            ),
        )
        if request.made_in not in (None, provenance.arithmetic):
            notes.append(
                f"the settings come from a picture drawn in {request.made_in}, this one is in "
                f"{provenance.arithmetic}; bytes may differ"
            )
        return Job(replace(planned, notes=(*notes, *planned.notes), provenance=provenance), inputs, pictures)

    def _encode_texts(self, jobs: Sequence[Job]) -> None:
        """Text features of every job; a text that several jobs share is read once, each text alone."""
        memo: dict[Any, Tensor] = {}

        def features(
            given: Tensor | None,
            text: str,
            pictures: list[Image.Image],
            request: Request,
            before: tuple[Turn, ...] = (),
        ) -> Tensor:
            if given is not None:
                return self._placed(given)
            form, limit = request.conditioning, request.max_sequence_length
            key = (form, text, limit, tuple(id(picture) for picture in pictures), before)
            if key not in memo:
                read = (self.mllm, self.processor, text)
                found = (
                    vlm.encode_chat(*read, pictures, limit, before)
                    if form == "chat"
                    else vlm.encode_prompt(*read, limit)
                )
                memo[key] = self._placed(found)
            return memo[key]

        for job in jobs:
            request, given = job.plan.request, job.inputs
            before = given.history or ()
            job.text = features(given.prompt_embeds, request.prompt, job.pictures, request, before)
            if needs_negative(job.plan):
                text = request.negative_prompt or ""
                job.negative = features(given.negative_prompt_embeds, text, [], request)

    def _encode_picture(self, picture: Image.Image, request: Request) -> tuple[Tensor, Tensor]:
        """Mean and deviation (C, h, w) of a reference's posterior in the VAE."""
        assert request.max_pixels is not None
        pixels = images.preprocess(picture, request.max_pixels, request.max_input_image_side_length)
        posterior = self.vae.encode(pixels.to(self._execution_device, self.vae.dtype)).latent_dist
        return posterior.mean[0], posterior.std[0]

    def _picture(self, job: Job, index: int) -> Picture:
        """Picture `index` of a job: its noise drawn on the CPU in float32 from its own seed."""
        assert job.text is not None
        seed, generators = job.plan.seeds[index], job.inputs.generators
        step_seed = (seed + STEP_STREAM) % 2**64
        shape = (self.vae.config.latent_channels, *job.plan.latent_size)
        if job.inputs.latents is not None:
            noise = check_noise(job.inputs.latents[index], shape, "latents")
        else:
            noise = _draw(shape, generators[index] if generators else seed)
        references = []
        for k, (mean, std) in enumerate(job.posteriors):
            shape = tuple(mean.shape)
            if job.inputs.reference_noise is not None:
                drawn = check_noise(job.inputs.reference_noise[k], shape, "reference_noise")
            else:
                own_seed = (seed + (k + 1) * REFERENCE_STREAM) % 2**64
                drawn = _draw(shape, generators[index] if generators else own_seed)
            references.append(self._placed(self._scaled(mean + std * drawn.to(mean.device, mean.dtype))))
        if generators and job.plan.request.scheduler in NOISY_SOLVERS:
            source = generators[index]
            step_seed = int(torch.randint(2**63 - 1, (), generator=source, device=source.device))
        noise = noise.to(self._execution_device)
        return Picture(job.plan, noise, job.text, job.negative, tuple(references), step_seed)

    def _scaled(self, z: Tensor) -> Tensor:
        return (z - (self.vae.config.shift_factor or 0.0)) * self.vae.config.scaling_factor

    def _decode(self, latents: Tensor, plan: Plan, output_type: OutputType) -> Tensor:
        """The picture (3, H, W), float32 in [0, 1] on the CPU, at the size to deliver; or the latents."""
        if output_type == "latent":
            return latents.cpu()
        config = self.vae.config
        z = latents[None].to(self.vae.dtype) / config.scaling_factor + (config.shift_factor or 0.0)
        pixels = images.resize_output(self.vae.decode(z, return_dict=False)[0], plan.output_size)
        if not bool(torch.isfinite(pixels).all()):
            raise Og2Error(
                f"the picture came out as values that are no numbers in {self.vae.dtype}; "
                "load the model in bfloat16 or float32"
            )
        return images.postprocess(pixels)[0].cpu()

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._execution_device, self.transformer.dtype)

    @contextmanager
    def _progress(self, pictures: Sequence[Picture], on_step: OnStep | None) -> Iterator[OnStep]:
        """A step callback that moves the progress bar and then calls the caller's."""
        total = sum(picture.plan.num_steps for picture in pictures)
        # pyright sees the decorator's signature, not the method's
        with self.progress_bar(total=total) as bar:  # pyright: ignore[reportCallIssue]

            def step(progress: Progress) -> bool | list[Tensor] | None:
                bar.update(len(progress.pictures))
                return on_step(progress) if on_step is not None else None

            yield step


def _draw(shape: tuple[int, ...], source: int | torch.Generator) -> Tensor:
    """Standard-normal numbers in float32 from a seed, or from a generator where it lives."""
    generator = torch.Generator().manual_seed(source) if isinstance(source, int) else source
    return torch.randn(shape, generator=generator, dtype=torch.float32, device=generator.device)
