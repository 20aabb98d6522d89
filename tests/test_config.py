"""Recipes are strict: what is not known, missing or of the wrong type is refused with a helpful sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from og2.config import Registry, build, load, override, read_yaml, to_tree
from og2.errors import ConfigError
from og2.train.run import KINDS


@dataclass(frozen=True)
class Inner:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    schedule: Literal["constant", "cosine"] = "constant"


@dataclass(frozen=True)
class Outer:
    steps: int
    folder: Path = Path("runs")
    sizes: tuple[int, ...] = ()
    limit: int | None = None
    weights: dict[str, float] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)


def test_a_tree_becomes_the_dataclass() -> None:
    tree = {
        "steps": 5,
        "folder": "x",
        "sizes": [1, 2],
        "limit": None,
        "inner": {"lr": "1e-4", "betas": [0, 1]},
    }
    built = build(Outer, tree)
    assert built == Outer(5, Path("x"), (1, 2), None, {}, Inner(1e-4, (0.0, 1.0)))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"step": 5}, "did you mean 'steps'"),
        ({"steps": 5, "inner": {"rl": 1}}, r"unknown key recipe\.inner\.rl"),
        ({}, r"missing key recipe\.steps"),
        ({"steps": 1.5}, "expected int"),
        ({"steps": True}, "expected int"),
        ({"steps": 1, "inner": {"schedule": "linear"}}, "'constant', 'cosine'"),
        ({"steps": 1, "inner": {"betas": [1]}}, "has 1 entries; expected 2"),
        ({"steps": 1, "inner": 3}, "expected a section"),
        ({"steps": 1, "sizes": 4}, "is not a list"),
        ({"steps": 1, "inner": {"lr": "fast"}}, "is not a number"),
    ],
)
def test_a_wrong_tree_is_refused_and_says_why(tree: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Outer, tree)


def test_dotted_overrides_reach_into_sections_and_leave_the_original_alone() -> None:
    tree = {"steps": 5, "inner": {"lr": 1.0}}
    changed = override(tree, ["inner.lr=2e-3", "inner.betas=[0.5, 0.6]", "limit=null"])
    assert build(Outer, changed).inner == Inner(2e-3, (0.5, 0.6))
    assert tree == {"steps": 5, "inner": {"lr": 1.0}}


@pytest.mark.parametrize("text", ["inner.lr", "=3", "inner..lr=1", "steps.deep=1", "inner.betas=[0.9"])
def test_a_malformed_override_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="override"):
        override({"steps": 5}, [text])


@given(
    st.integers(), st.lists(st.integers(), max_size=4), st.none() | st.integers(), st.floats(allow_nan=False)
)
def test_what_is_written_is_read_back_equal(
    steps: int, sizes: list[int], limit: int | None, lr: float
) -> None:
    config = Outer(steps, Path("a/b"), tuple(sizes), limit, {"x": 1.0}, Inner(lr))
    tree = to_tree(config)
    tree["folder"] = str(tree["folder"])
    assert build(Outer, yaml.safe_load(yaml.safe_dump(tree))) == config


def test_files_are_read_or_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("steps: 3\n")
    assert load(Outer, path, ["steps=4"]) == Outer(4)
    wrong = {
        b"- 1": "not a mapping",
        b"a: [": "not valid YAML",
        b"day: 2025-13-01": "not valid YAML",
        b"a: caf\xe9": "not UTF-8",
        b"inner: {lr: 1}\nsteps: 3\ninner: {lr: 2}": "'inner' is there twice; give it once, .*line 3",
        b"inner: {lr: 1, lr: 2}": "'lr' is there twice",
    }
    for text, message in wrong.items():
        path.write_bytes(text)
        with pytest.raises(ConfigError, match=message):
            read_yaml(path)
    with pytest.raises(ConfigError, match="cannot read"):
        read_yaml(tmp_path / "none.yaml")


def test_what_is_merged_in_may_be_given_again(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, y: 4}\n")
    assert read_yaml(path)["c"] == {"x": 3, "y": 4}


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert build(Outer, override({"steps": 1}, ["folder=~/runs/x"])).folder == tmp_path / "runs" / "x"


def test_a_registry_suggests_the_nearest_name() -> None:
    registry = Registry("solver", {"euler": 1})
    assert registry["euler"] == 1
    with pytest.raises(ConfigError, match="did you mean 'euler'"):
        registry["eular"]


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "recipes").rglob("*.yaml")), ids=lambda p: p.stem
)
def test_every_shipped_recipe_fits_its_dataclass(path: Path) -> None:
    tree = read_yaml(path)
    recipe, _ = KINDS[tree.pop("kind")].load()
    build(recipe, tree)
