"""Where a model's folder comes from: the built-in one, a local folder, or a hub id with its cache.

Only files this project reads are fetched: configurations, tokenizer files and safetensors; never code, never
pickles.
"""

from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path

from og2.errors import CheckpointError

MINI = "mini"
"""Name of the built-in model."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WANTED = [
    "model_index.json",
    "og2.json",
    "scheduler/*.json",
    *(f"{part}/*.{kind}" for part in ("transformer", "vae", "mllm") for kind in ("json", "safetensors")),
    *(f"{part}/*.{kind}" for part in ("processor", "mllm_processor") for kind in ("json", "txt", "jinja")),
]


def resolve_folder(
    source: str | os.PathLike[str] | None, revision: str | None = None, local_files_only: bool = False
) -> Path:
    """The local folder of a model: `None` or "mini" is the built-in one, else a folder, else a hub id.

    Hub snapshots are downloaded once, resumed if interrupted, and found again offline (HF_HUB_OFFLINE or
    `local_files_only`). `revision` is a branch, tag or commit of the hub repository.
    Raises: CheckpointError if there is nothing of that name, or it cannot be reached.
    """
    if source is None or str(source) == MINI:
        folder = Path(str(files("og2"))) / "checkpoints" / MINI
        if not folder.is_dir():
            raise CheckpointError(
                f"the built-in model is not part of this installation (no {folder}); give a folder"
            )
        return folder
    path = Path(source).expanduser()
    if path.is_dir() and str(source):
        return path
    if path.is_file():
        raise CheckpointError(
            f"{path} is a file, a model is a folder; a single-file transformer is given as transformer_path"
        )
    if not isinstance(source, str) or not _HUB_ID.fullmatch(source):
        raise CheckpointError(
            f"there is no folder {str(source)!r}; give a model folder, a hub id (owner/name), or mini"
        )
    return _download(source, revision, local_files_only)


def _download(repo_id: str, revision: str | None, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"{repo_id} at revision {revision}" if revision else repo_id
    try:
        return Path(
            snapshot_download(
                repo_id, revision=revision, allow_patterns=_WANTED, local_files_only=local_files_only
            )
        )
    except GatedRepoError as error:
        raise CheckpointError(
            f"{where} asks for its licence to be accepted on the hub, then `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"there is neither a folder nor a hub repository {where} (or it is private)"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{repo_id} has no revision {revision}") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise CheckpointError(
            f"{where} is not in the local cache and the hub was not reached (no network, HF_HUB_OFFLINE or "
            "local_files_only); connect once to download it, or give a local folder"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise CheckpointError(
            f"{where} could not be downloaded: {error}; run again to resume where it stopped"
        ) from error
