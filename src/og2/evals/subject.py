"""What an adapter learned from a few pictures of one new subject, and what it forgot: from pixels.

The subject is the world's newcomer, a figure with a name and an outline of its own. A model and the same
model with the adapter answer the same prompts with the same noise: for the newcomer in places, sizes and on
backgrounds that its pictures do not show, and for what the model could draw before. Ground truth, the same
through the model's VAE, and the nearest impostors run through the same scoring.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from og2.errors import ConfigError
from og2.evals.controls import through_vae
from og2.evals.intervals import Share, mean_of, paired_difference, share_of
from og2.evals.items import PLAIN_DRAW
from og2.evals.mini import Options, evaluate, render_all
from og2.evals.report import TaskReport
from og2.files import write_text, written
from og2.world.figure_identity import MATCH, Figure, find_figure, learned
from og2.world.newcomer import GROUPS, NUM_PICTURES, Sight, other_figures, sights_to_ask, sights_to_learn
from og2.world.requirements import ObjectRequirement, Requirements
from og2.world.score import score_t2i

Picture = NDArray[np.uint8]
ALL = "all"
IMPOSTORS = "impostors through the VAE"
_SHEET_COLUMNS = 8


@dataclass(frozen=True)
class SubjectOptions:
    """per_group: prompts for the subject of each group; plain: prompts for what was there before; seed: of
    prompts and noise; chunk: pictures per call.
    """

    per_group: int = 25
    plain: int = 100
    seed: int = 0
    chunk: int = 25

    def __post_init__(self) -> None:
        for name in ("per_group", "plain", "chunk"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} leaves nothing to score; use 1 or more")


@dataclass
class SubjectReport:
    """By condition, by group: measure -> share. gain: the adapter's identity less the base's, paired.

    plain: the scores of prompts that do not name the subject, before and after, and the paired difference;
    leaked: share of these pictures that show the subject all the same.
    """

    conditions: dict[str, dict[str, dict[str, Share]]] = field(default_factory=dict)
    gain: Share | None = None
    plain: dict[str, Share] = field(default_factory=dict)
    leaked: dict[str, Share] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "settings": self.settings,
            "conditions": {
                name: {group: {m: s.to_dict() for m, s in found.items()} for group, found in groups.items()}
                for name, groups in self.conditions.items()
            },
            "gain": None if self.gain is None else self.gain.to_dict(),
            "plain": {name: share.to_dict() for name, share in self.plain.items()},
            "leaked": {name: share.to_dict() for name, share in self.leaked.items()},
        }


@dataclass(frozen=True)
class _Asked:
    key: str
    group: str
    sight: Sight
    seed: int


def write_pictures(folder: Path, size: int, seed: int = 0, count: int = NUM_PICTURES) -> list[Path]:
    """The few pictures of the subject, `00.png` with `00.txt` beside it, and so on; the pictures' paths.

    Units: size in px. Raises: ConfigError when the folder is there already.
    """
    if folder.exists():
        raise ConfigError(f"{folder} is there already; choose another folder")
    sights = sights_to_learn(seed, count)
    folder.mkdir(parents=True)
    paths = []
    for number, (sight, picture) in enumerate(zip(sights, _pictures(sights, size), strict=True)):
        path = folder / f"{number:02d}.png"
        Image.fromarray(picture).save(path)
        path.with_suffix(".txt").write_text(sight.text + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def evaluate_subject(
    pipe: Any, adapter: Path, options: SubjectOptions | None = None, folder: Path | None = None
) -> SubjectReport:
    """The report of `pipe` without and with the adapter, which stays on it.

    folder: where `report.json` and `sheet.png` go, None for nowhere. Raises: CheckpointError when the adapter
    does not fit.
    """
    options = options or SubjectOptions()
    size = int(pipe.profile.native_size)
    figure = learned(_pictures(sights_to_learn(), size))
    asked = [
        _Asked(f"{group}/{i:04d}", group, sight, options.seed + i)
        for group in GROUPS
        for i, sight in enumerate(sights_to_ask(group, options.per_group, options.seed))
    ]
    truths = _pictures([a.sight for a in asked], size)
    report = SubjectReport(settings={"size": size, **vars(options)})
    drawn = {"ground truth": truths, "ground truth through the VAE": through_vae(pipe.vae, truths)}
    impostors = render_all(other_figures(len(asked), options.seed), size)
    drawn[IMPOSTORS] = through_vae(pipe.vae, impostors)
    plain = {"base": _plain(pipe, options, size)}
    drawn["base"] = _draw(pipe, asked, options.chunk)
    pipe.load_lora_weights(adapter)
    plain["adapter"] = _plain(pipe, options, size)
    drawn["adapter"] = _draw(pipe, asked, options.chunk)
    scores = {}
    for name, pictures in drawn.items():
        scores[name], table = _judged(asked, pictures, figure)
        if name == IMPOSTORS:  # nobody asked for these where they are
            table = {ALL: {measure: table[ALL][measure] for measure in ("identity", "is it")}}
        report.conditions[name] = table
    report.gain = paired_difference(scores["adapter"], scores["base"])
    _add_plain(report, plain, figure)
    report.settings["adapter_bytes"] = sum(
        file.stat().st_size for file in ([adapter] if adapter.is_file() else adapter.glob("*.safetensors"))
    )
    if folder is not None:
        _save(folder, report, [drawn[name] for name in ("ground truth", "base", "adapter")])
    return report


def format_subject(report: SubjectReport) -> str:
    """The report as lines: identity from 0 to 10, shares with 95 % intervals."""
    lines = []
    for name, groups in report.conditions.items():
        lines.append(f"{name}:")
        for group, found in groups.items():
            identity = found["identity"]
            shown = f"{10 * identity.score:.2f} [{10 * identity.low:.2f}, {10 * identity.high:.2f}]"
            shares = ", ".join(
                f"{m} {s.score:.2f}" for m, s in found.items() if m not in ("identity", "is it")
            )
            lines.append(f"  {group:26s} identity {shown}, is it {found['is it']}, {shares}".rstrip(", "))
    if report.gain is not None:
        gain = report.gain
        lines.append(
            f"identity, adapter less base, same prompts and noise: {10 * gain.score:+.2f} "
            f"[{10 * gain.low:+.2f}, {10 * gain.high:+.2f}] (n={gain.n})"
        )
    lines += [f"prompts that do not name it, {name}: {share}" for name, share in report.plain.items()]
    lines += [f"of these show it all the same, {name}: {share}" for name, share in report.leaked.items()]
    lines.append(f"adapter: {report.settings['adapter_bytes'] / 1e6:.2f} MB")
    return "\n".join(lines)


def _pictures(sights: Sequence[Sight], size: int) -> list[Picture]:
    return render_all([sight.scene for sight in sights], size)


def _draw(pipe: Any, asked: Sequence[_Asked], chunk: int) -> list[Picture]:
    pictures: list[Picture] = []
    for start in range(0, len(asked), chunk):
        part = asked[start : start + chunk]
        result = pipe(
            [a.sight.text for a in part], preset="t2i", output_type="pil", seed=[a.seed for a in part]
        )
        pictures += [np.asarray(image.convert("RGB")) for image in result.images]
    return pictures


def _judged(
    asked: Sequence[_Asked], pictures: Sequence[Picture], figure: Figure
) -> tuple[dict[str, float], dict[str, dict[str, Share]]]:
    """The identity of every picture as a share of 10, and by group the measures."""
    identities: dict[str, float] = {}
    outcomes: dict[str, dict[str, list[bool]]] = {}
    for item, picture in zip(asked, pictures, strict=True):
        found = find_figure(picture, figure)
        identities[item.key] = found.score / 10.0
        place, background, _ = item.sight.words
        rule = Requirements((ObjectRequirement(position=place),), background=background)
        atoms = score_t2i(picture, rule).atoms
        measures = {
            "is it": found.score >= MATCH,
            "alone": found.num_things == 1,
            "place": atoms.get("position", False),
            "background": atoms.get("background", False),
        }
        for group in (item.group, ALL):
            for name, met in measures.items():
                outcomes.setdefault(group, {}).setdefault(name, []).append(met)
    table: dict[str, dict[str, Share]] = {}
    for group in (*GROUPS, ALL):
        own = [identities[item.key] for item in asked if group in (item.group, ALL)]
        shares = {name: share_of(met) for name, met in outcomes[group].items()}
        table[group] = {"identity": mean_of(own), **shares}
    return identities, table


def _plain(pipe: Any, options: SubjectOptions, size: int) -> TaskReport:
    """Scores of prompts of the plain world, which do not name the subject."""
    chosen = Options(
        limit=options.plain,
        seed=options.seed,
        world="plain",
        size=size,
        chunk=options.chunk,
        tasks=("t2i",),
        families=(PLAIN_DRAW,),
        controls=False,
    )
    return evaluate(pipe, chosen).tasks["t2i"]


def _add_plain(report: SubjectReport, plain: dict[str, TaskReport], figure: Figure) -> None:
    scores = {name: {row.key: row.outcome.score for row in found.rows} for name, found in plain.items()}
    report.plain = {name: found.score for name, found in plain.items()}
    report.plain["adapter less base"] = paired_difference(scores["adapter"], scores["base"])
    for name, found in plain.items():
        seen = [find_figure(row.pictures[-2], figure).score >= MATCH for row in found.rows]
        report.leaked[name] = share_of(seen)


def _save(folder: Path, report: SubjectReport, rows: Sequence[Sequence[Picture]]) -> None:
    """`report.json`, and `sheet.png`: one row each of ground truth, base and adapter, evenly chosen."""
    step = max(1, len(rows[0]) // _SHEET_COLUMNS)
    sheet = np.concatenate([np.concatenate(list(row[::step][:_SHEET_COLUMNS]), axis=1) for row in rows])
    with written(folder / "sheet.png") as place:
        Image.fromarray(sheet).save(place, format="PNG")
    write_text(folder / "report.json", json.dumps(report.to_dict(), indent=1) + "\n")
