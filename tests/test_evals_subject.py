"""The newcomer: what its pictures show, how it is told from impostors, and what the report measures."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from oracle import PassThrough
from PIL import Image

from og2.cli import run as og2
from og2.config import build, read_yaml
from og2.errors import ConfigError
from og2.evals.mini import render_all
from og2.evals.subject import SubjectOptions, evaluate_subject, format_subject, write_pictures
from og2.train.recipe import TransformerRecipe
from og2.world.figure_identity import find_figure, learned
from og2.world.newcomer import GROUPS, other_figures, sights_to_ask, sights_to_learn

RECIPE = Path(__file__).parents[1] / "recipes" / "mini" / "subject_lora.yaml"


class _SameVae(PassThrough):
    """A VAE that loses nothing."""

    config = SimpleNamespace()


class _Painter:
    """A pipeline that paints circles, and with the adapter whatever the subject's prompts ask for."""

    def __init__(self) -> None:
        self.profile = SimpleNamespace(
            native_size=64, max_pixels=4096, max_input_image_side_length=64, name="painter"
        )
        self.vae = _SameVae()
        self.loaded: list[Path] = []
        wanted = [sight for group in GROUPS for sight in sights_to_ask(group, 3, 0)]
        pictures = render_all([sight.scene for sight in wanted], 64)
        self.right = {s.text: picture for s, picture in zip(wanted, pictures, strict=True)}
        self.wrong = render_all(other_figures(6)[5:6], 64)[0]

    def load_lora_weights(self, adapter: Path) -> None:
        self.loaded.append(adapter)

    def __call__(self, prompts: list[str], **options: Any) -> Any:
        assert len(options["seed"]) == len(prompts)
        assert all("zib" not in prompt or prompt in self.right for prompt in prompts)
        pictures = [self.right.get(p, self.wrong) if self.loaded else self.wrong for p in prompts]
        return SimpleNamespace(images=[Image.fromarray(picture) for picture in pictures])


def test_what_is_asked_is_not_among_the_few_pictures() -> None:
    shown = [sight.words for sight in sights_to_learn()]
    assert len(set(shown)) == len(shown) == 20
    places, backgrounds, sizes = ({words[i] for words in shown} for i in range(3))
    for group, number in zip(GROUPS, range(4), strict=True):
        for sight in sights_to_ask(group, 12):
            place, background, size = sight.words
            new = (place not in places, background not in backgrounds, size not in sizes)
            assert (
                new
                == [(True, False, False), (False, True, False), (True, True, False), (False, False, True)][
                    number
                ]
            )
            assert "zib" in sight.text


def test_the_newcomer_is_known_again_and_its_nearest_impostors_are_not() -> None:
    figure = learned(render_all([sight.scene for sight in sights_to_learn()], 64))
    asked = [sight for group in GROUPS for sight in sights_to_ask(group, 5)]
    own = [find_figure(picture, figure) for picture in render_all([s.scene for s in asked], 64)]
    others = [find_figure(picture, figure).score for picture in render_all(other_figures(14), 64)]
    assert np.mean([found.score for found in own]) >= 9.0
    assert min(found.score for found in own) >= 5.0
    assert max(others) <= 3.0
    assert [found.thing.position for found in own if found.thing] == [s.words[0] for s in asked]
    assert find_figure(np.full((64, 64, 3), 200, np.uint8), figure).score == 0.0


def test_the_pictures_are_written_with_captions_and_the_recipe_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert og2(["world", "subject", "data/zib"]) == 0
    assert "20 pictures" in capsys.readouterr().out
    assert og2(["data", "check", str(RECIPE)]) == 0
    assert (tmp_path / "data/zib/07.txt").read_text().startswith("a ")
    with Image.open(tmp_path / "data/zib/19.png") as picture:
        assert picture.size == (64, 64)
    with pytest.raises(ConfigError, match="is there already"):
        write_pictures(tmp_path / "data/zib", 64)
    tree = read_yaml(RECIPE)
    assert tree.pop("kind") == "transformer"
    recipe = build(TransformerRecipe, tree)
    assert recipe.lora is not None
    assert recipe.lora.rank == 16


def test_the_report_tells_gain_places_and_what_leaks(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter.safetensors"
    adapter.write_bytes(b"x" * 1000)
    pipe = _Painter()
    report = evaluate_subject(pipe, adapter, SubjectOptions(3, 2, 0, 5), tmp_path / "out")
    assert pipe.loaded == [adapter]
    base, after = report.conditions["base"]["all"], report.conditions["adapter"]["all"]
    assert base["is it"].score == 0.0
    assert after["is it"].score == after["place"].score == after["background"].score == 1.0
    assert after["identity"].n == 12
    assert report.gain is not None
    assert report.gain.low > 0.8
    assert report.leaked["adapter"].score == 0.0
    assert report.plain["adapter less base"].score == 0.0
    impostors = report.conditions["impostors through the VAE"]["all"]
    assert impostors["is it"].score == 0.0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["settings"]["adapter_bytes"] == 1000
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.size == (64 * 8, 64 * 3)
    assert "adapter less base, same prompts and noise: +" in format_subject(report)
    with pytest.raises(ConfigError, match="nothing to score"):
        SubjectOptions(plain=0)
