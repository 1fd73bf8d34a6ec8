"""Which models there are, and where their weights are.

The models that come with PhaseSAM are in `phasesam.models.catalog`. Checkpoints that a user
imports are copied into the model folder and listed there in ``imported.json``. This module
loads no torch, so listing models is cheap.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Collection
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal

import pooch

from phasesam.core.errors import (
    CheckpointError,
    DownloadError,
    InvalidSettingError,
    UnknownModelError,
)
from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.models import download as downloads
from phasesam.models.catalog import BUILT_IN, BUNDLED_WEIGHTS, MOBILE_SAM
from phasesam.models.model_spec import Architecture, Decoder, ModelSpec

__all__ = [
    "DEFAULT_MODEL",
    "Architecture",
    "Decoder",
    "ModelSpec",
    "forget",
    "get_spec",
    "import_checkpoint",
    "list_models",
    "locate",
    "register",
    "where",
]

DEFAULT_MODEL = MOBILE_SAM.name

Whereabouts = Literal["bundled", "on disk", "to download", "generated", "missing"]

_REGISTERED: dict[str, ModelSpec] = {spec.name: spec for spec in BUILT_IN}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_READABLE_BY_ALL = 0o644
_IMPORT_LOCK = threading.Lock()


def list_models() -> tuple[ModelSpec, ...]:
    """Every model that can be asked for: those of PhaseSAM, then the imported ones by name."""
    return (*_REGISTERED.values(), *_imported().values())


def get_spec(name: str) -> ModelSpec:
    """Look a model up.

    Raises
    ------
    UnknownModelError
        If there is no such model; the message lists those there are.
    """
    known = {spec.name: spec for spec in list_models()}
    if name not in known:
        raise UnknownModelError(f"there is no model {name!r}; there are {', '.join(known)}")
    return known[name]


def register(spec: ModelSpec) -> ModelSpec:
    """Add an entry for the rest of this process.

    Raises
    ------
    InvalidSettingError
        If the name is malformed or taken.
    """
    _check_name(spec.name)
    _REGISTERED[spec.name] = spec
    return spec


def where(spec: ModelSpec) -> Whereabouts:
    """Say where the weights of a model are now; cheap, no content is checked.

    Returns
    -------
    str
        ``"missing"`` if they have a fixed place, as bundled and imported ones have, and are
        not there any more.
    """
    if spec.architecture == "tiny" and spec.path is None:
        return "generated"
    if spec.path is not None and downloads.find(spec) is None:
        return "missing"
    if _is_bundled(spec):
        return "bundled"
    return "to download" if downloads.find(spec) is None else "on disk"


def _is_bundled(spec: ModelSpec) -> bool:
    return spec.path is not None and spec.path.parent == BUNDLED_WEIGHTS


def locate(
    spec: ModelSpec,
    download: bool = True,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> Path | None:
    """Path of a model's weights, fetched if need be, and checked.

    Parameters
    ----------
    spec : ModelSpec
        Registry entry.
    download : bool
        Whether they may be fetched from the internet.
    progress, should_stop : callable, optional
        Callbacks of the download, in bytes.

    Returns
    -------
    Path or None
        None when the weights are generated.

    Raises
    ------
    CheckpointError
        If the file on disk is not the one it should be.
    DownloadError
        If the weights are not here and may not or cannot be fetched.
    CancelledError
        If the user stopped the download.
    """
    if where(spec) == "generated":
        return None
    path = downloads.find(spec)
    if path is None and spec.path is not None:
        again = f"Import it again with 'phasesam models import FILE --name {spec.name}'"
        remedy = "Install PhaseSAM again" if _is_bundled(spec) else again
        raise CheckpointError(f"the weights of {spec.title} are gone: {spec.path}. {remedy}.")
    if path is not None and _is_usable(spec, path, download):
        return path
    if not download:
        raise DownloadError(
            f"the weights of {spec.title} are not on this machine. Fetch them with "
            f"'phasesam models download {spec.name}', or put {spec.filename} into the folder "
            "that PHASESAM_MODELS names."
        )
    return downloads.download(spec, progress, should_stop)


def _is_usable(spec: ModelSpec, path: Path, download: bool) -> bool:
    """Check a file; a spoilt one of our own cache is removed if it can be fetched again."""
    try:
        downloads.check(spec, path)
    except CheckpointError:
        ours = spec.url is not None and path.parent == downloads.cache_folder()
        if not (ours and download):
            raise
        path.unlink(missing_ok=True)
        return False
    return True


def import_checkpoint(path: str | Path, name: str) -> ModelSpec:
    """Take in a user's checkpoint: recognise it, check it, copy it, remember it.

    An imported model whose copy is gone can be imported again by its name.

    Parameters
    ----------
    path : str or Path
        SAM, SAM-HQ or MobileSAM weights (.pt, .pth or .safetensors), also as micro-sam saves
        them during training.
    name : str
        By which the model is asked for from now on.

    Returns
    -------
    ModelSpec
        The new entry.

    Raises
    ------
    CheckpointError
        If the file is unsafe, damaged, incomplete, no SAM, or holds other than finite
        floating-point numbers.
    InvalidSettingError
        If the name is malformed or taken.
    """
    # torch is loaded here and not with the module, so that listing models stays cheap.
    from phasesam.models.checkpoints import (
        check_archive,
        check_values,
        load_state_dict,
        recognise,
    )
    from phasesam.models.sam import check_weights

    source = Path(path).expanduser()
    _check_name(name, may_replace=_lost())
    check_archive(source)
    state = load_state_dict(source)
    architecture, decoder = recognise(state, str(source))
    folder = downloads.cache_folder() / "imported"
    spec = ModelSpec(
        name=name,
        title=name,
        architecture=architecture,
        decoder=decoder,
        size_bytes=source.stat().st_size,
        description=f"Imported from {source.name}",
        filename=f"{name}{source.suffix.lower()}",
    )
    check_weights(spec, state, str(source))
    check_values(state, str(source))
    del state
    with _IMPORT_LOCK:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / spec.filename
            _copy_atomically(source, target)
            spec = replace(spec, sha256=pooch.file_hash(str(target), "sha256"), path=target)
            _write_imported({**_imported(), name: spec})
        except OSError as error:
            raise CheckpointError(f"cannot store {source} in {folder}: {error}") from error
    return spec


def forget(name: str) -> None:
    """Remove an imported model and its copy of the weights.

    Raises
    ------
    UnknownModelError
        If no model of that name was imported.
    """
    with _IMPORT_LOCK:
        imported = _imported()
        spec = imported.pop(name, None)
        if spec is None:
            raise UnknownModelError(f"no imported model is called {name!r}")
        _write_imported(imported)
        if spec.path is not None:
            spec.path.unlink(missing_ok=True)


def _lost() -> set[str]:
    """Names of imported models whose weights are gone."""
    return {name for name, spec in _imported().items() if where(spec) == "missing"}


def _check_name(name: str, may_replace: Collection[str] = ()) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidSettingError(
            "the name of a model consists of at most 64 letters, digits, '_', '-' and '.', and "
            f"begins with a letter or digit; got {name!r}"
        )
    if name in {spec.name for spec in list_models()} and name not in may_replace:
        raise InvalidSettingError(f"there is a model {name!r} already; choose another name")


def _index_file() -> Path:
    return downloads.cache_folder() / "imported.json"


def _imported() -> dict[str, ModelSpec]:
    """Read the index of imported models; entries that make no sense are left out."""
    try:
        entries = json.loads(_index_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    specs = {}
    for entry in entries if isinstance(entries, list) else []:
        with contextlib.suppress(TypeError, KeyError, AttributeError):
            spec = _from_entry(entry)
            if spec.name not in _REGISTERED:
                specs[spec.name] = spec
    return dict(sorted(specs.items()))


def _from_entry(entry: dict[str, Any]) -> ModelSpec:
    known = {item.name for item in fields(ModelSpec)}
    values = {key: value for key, value in entry.items() if key in known}
    values["path"] = downloads.cache_folder() / "imported" / Path(values["filename"]).name
    for key in ("pixel_mean", "pixel_std"):
        values[key] = tuple(values[key])
    return ModelSpec(**values)


def _write_imported(specs: dict[str, ModelSpec]) -> None:
    entries = [{**asdict(spec), "path": None} for spec in specs.values()]
    _write_atomically(_index_file(), json.dumps(entries, indent=2))


def _write_atomically(target: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(".part", ".", target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        # Temporary files are for their owner only; others may share the model folder.
        Path(name).chmod(_READABLE_BY_ALL)
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)


def _copy_atomically(source: Path, target: Path) -> None:
    handle, name = tempfile.mkstemp(".part", ".", target.parent)
    os.close(handle)
    try:
        shutil.copyfile(source, name)
        Path(name).chmod(_READABLE_BY_ALL)
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)
