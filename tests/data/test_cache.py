"""The cache: what was put comes back, damage is noticed, anything may be deleted at any time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from og2.data import cache as cache_module
from og2.data.cache import Cache, content_hash, folder_hash, picture_key, tensors_of, text_key
from og2.errors import CheckpointError

real = cache_module._checksum_of
KEY = text_key("a prompt", "weights")
HELD = {"features": torch.arange(12.0).reshape(3, 4).bfloat16()}


def test_an_entry_comes_back_in_its_dtype_and_two_folders_of_processes_share_it(tmp_path: Path) -> None:
    one, two = Cache(tmp_path), Cache(tmp_path)
    assert one.get("texts", KEY) is None
    assert one.put("texts", KEY, HELD)
    assert two.put("texts", KEY, HELD)
    entry = two.get("texts", KEY)
    assert entry is not None
    found = tensors_of(entry)["features"]
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, HELD["features"])
    assert [p.name for p in (tmp_path / "texts" / KEY[:2]).iterdir()] == [f"{KEY}.safetensors"]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_flipped_bit_or_cut_is_noticed_and_removed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("flips")
    cache = Cache(folder)
    cache.put("texts", KEY, HELD)
    path = next(folder.rglob("*.safetensors"))
    whole = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole[place] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(whole)
    else:
        path.write_bytes(whole[:place])
    entry = cache.get("texts", KEY)
    # A flipped bit in the padding of the header changes nothing that is read.
    assert entry is None or torch.equal(tensors_of(entry)["features"], HELD["features"])
    assert path.exists() == (entry is not None)


def test_an_entry_is_summed_once_when_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, sums = Cache(tmp_path), []
    cache.put("texts", KEY, HELD)
    monkeypatch.setattr(cache_module, "_checksum_of", lambda entry: sums.append(real(entry)) or sums[-1])
    assert cache.get("texts", KEY) is not None
    assert len(sums) == 1


def test_a_deleted_folder_is_only_an_empty_one(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c")
    cache.put("texts", KEY, HELD)
    shutil.rmtree(tmp_path / "c")
    assert cache.get("texts", KEY) is None
    assert cache.put("texts", KEY, HELD)


def test_a_disk_that_refuses_is_reported_once_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / "file")
    assert not cache.put("texts", KEY, HELD)
    assert not cache.put("texts", KEY, HELD)
    assert len([r for r in caplog.records if "cannot write to the cache" in r.message]) == 1


def test_keys_differ_by_all_that_decides_about_an_entry(tmp_path: Path) -> None:
    content = content_hash(b"picture")
    keys = {
        picture_key(content, limits, vae) for limits in ((64, 8), (64, 16), (65, 8)) for vae in ("a", "b")
    }
    assert len(keys | {picture_key(content_hash(b"other"), (64, 8), "a")}) == 7
    assert text_key("a", "b") != text_key("b", "a")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = folder_hash(tmp_path)
    assert first != folder_hash(tmp_path, note="bfloat16")
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert folder_hash(tmp_path) != first
    with pytest.raises(CheckpointError, match="no weights in"):
        folder_hash(tmp_path / "none")
