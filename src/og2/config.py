"""Strict configuration: YAML into frozen dataclasses, dotted overrides, and the name registry.

A recipe is a YAML mapping whose keys are exactly the fields of a dataclass. An unknown key, a missing
required key or a value of the wrong type is a `ConfigError` that names the place and the nearest known key;
nothing is ignored and nothing is guessed. This module imports nothing of the package but its errors.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml

from og2.errors import ConfigError

T = TypeVar("T")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping written in the YAML file at `path`; ConfigError if unreadable or not a mapping."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read the recipe {path}: {why}; give the path of a YAML file") from error
    tree = _parse(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds {type(tree).__name__}, not a mapping of keys to values")
    return tree


def override(tree: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """A copy of `tree` with each "a.b.c=value" applied; the value is read as YAML."""
    result = _copy(tree)
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        keys = name.strip().split(".")
        if not separator or not all(keys):
            raise ConfigError(f"override {assignment!r} is not of the form section.key=value")
        node = result
        for key in keys[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise ConfigError(f"override {assignment!r}: {key!r} is a value, not a section")
        node[keys[-1]] = _parse(text, f"override {assignment!r}")
    return result


def build(cls: type[T], tree: Mapping[str, Any], where: str = "recipe") -> T:
    """An instance of dataclass `cls` from a mapping of its fields; `where` names the place in errors."""
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{where} is {tree!r}; expected a section with the keys of {cls.__name__}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in tree:
        if key not in fields:
            raise ConfigError(f"unknown key {where}.{key}; {nearest(str(key), fields)}")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in tree:
            values[name] = _convert(hints[name], tree[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"missing key {where}.{name} ({_name(hints[name])})")
    return cls(**values)


def load(cls: type[T], path: str | Path, overrides: Iterable[str] = ()) -> T:
    """An instance of dataclass `cls` read from the YAML file at `path`, overrides applied."""
    return build(cls, override(read_yaml(path), overrides), where=Path(path).stem)


def to_tree(config: object) -> Any:
    """Plain dicts, lists and scalars of a dataclass instance, which `build` reads back."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_tree(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, list | tuple):
        return [to_tree(item) for item in config]
    if isinstance(config, Mapping):
        return {key: to_tree(value) for key, value in config.items()}
    return config


def nearest(name: str, known: Iterable[str]) -> str:
    """The sentence part that helps after a wrong name: the nearest known one, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


class Registry(Generic[T]):
    """Named things of one kind; a wrong name is a ConfigError that lists or suggests the right ones."""

    def __init__(self, kind: str, entries: Mapping[str, T] | None = None) -> None:
        self.kind = kind
        self._entries: dict[str, T] = dict(entries or {})

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise ConfigError(f"unknown {self.kind} {name!r}; {nearest(str(name), self._entries)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class _Loader(yaml.SafeLoader):
    """The safe loader, which takes no key twice; what is merged in by `<<` may be given again."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is there twice; give it once,",
                    problem_mark=key.start_mark,
                )
            seen.add(name)
        return node


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: such as the date 2025-13-01
        raise ConfigError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"{where}={value!r} is not one of {', '.join(map(repr, arguments))}")
        return value
    if origin in (tuple, list):
        return _convert_sequence(origin, arguments, value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}={value!r} is not a mapping")
        return {
            _convert(arguments[0], k, where): _convert(arguments[1], v, f"{where}.{k}")
            for k, v in value.items()
        }
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    return _convert_scalar(hint, value, where)


def _convert_union(options: Sequence[Any], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    errors = []
    for option in options:
        if option is type(None):
            continue
        try:
            return _convert(option, value, where)
        except ConfigError as error:
            errors.append(str(error))
    raise ConfigError("; or ".join(errors))


def _convert_sequence(origin: type, arguments: Sequence[Any], value: Any, where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where}={value!r} is not a list")
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        if len(value) != len(arguments):
            raise ConfigError(f"{where} has {len(value)} entries; expected {len(arguments)}")
        return tuple(
            _convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(arguments, value, strict=True))
        )
    return origin(_convert(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # YAML reads 1e-3 (without a dot) as text
        try:
            return float(value)
        except ValueError as error:
            raise ConfigError(f"{where}={value!r} is not a number") from error
    if hint is Path and isinstance(value, str):
        return Path(os.path.expanduser(value))
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{where}={value!r} is {type(value).__name__}; expected {_name(hint)}")


def _copy(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _copy(value) for key, value in tree.items()}
    return list(tree) if isinstance(tree, list) else tree


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)
