"""Find which image belongs to which labels: folders, tables and single files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath

from phasesam.core.errors import InvalidSettingError, TrainingDataError
from phasesam.core.images import Normalisation
from phasesam.formats.signatures import image_format
from phasesam.formats.slices import natural_key, slice_files, stem_of
from phasesam.training.data_stacks import FilePair, Pair, expand_stacks
from phasesam.training.data_tables import (
    path_in,
    read_class_names,
    read_table,
    rows_of_experiment,
    split_name,
)

LABEL_SUFFIXES = (
    "_labels",
    "_label",
    "_masks",
    "_mask",
    "_seg",
    "_gt",
    "_classes",
    "-labels",
    "-label",
    "-mask",
)
_LABEL_FOLDERS = ("label", "mask")
_NAMED = 5


@dataclass(frozen=True)
class Collection:
    """What was found in one place.

    Attributes
    ----------
    pairs : tuple of Pair
        In natural order of the names, or in the order of the table.
    classes : dict of int to str
        Names of classes by their values, where the place says them.
    warnings : tuple of str
        What was left out, and why.
    """

    pairs: tuple[Pair, ...]
    classes: dict[int, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """What the user chose of a place that holds more than is needed.

    Attributes
    ----------
    labels : str or None
        Folder or file of the labels.
    experiment : str or None
        Rows of the table to take.
    unlabelled : int or None
        Value that means "not labelled".
    """

    labels: str | None = None
    experiment: str | None = None
    unlabelled: int | None = None


def has_label_folder(folder: Path) -> bool:
    """Whether a folder named like labels or masks lies in ``folder``."""
    return any(p.is_dir() and p.name.lower().startswith(_LABEL_FOLDERS) for p in folder.iterdir())


def pairs_in_folder(folder: Path, choice: Choice) -> Collection:
    """Pair a folder's ``images`` with its ``labels`` by the names of the files.

    Parameters
    ----------
    folder : Path
        Holds ``images`` and a folder whose name begins with ``label`` or ``mask``; or a
        ``data.csv``; optionally ``splits.csv`` and ``classes.csv``.
    choice : Choice
        Which folder of labels and which experiment.

    Raises
    ------
    TrainingDataError
        If folders are missing, the choice is not unique, or nothing fits together.
    """
    if (folder / "data.csv").is_file() and choice.labels is None:
        return pairs_in_table(folder / "data.csv", choice)
    images = _named(folder, "images")
    if images is None:
        raise TrainingDataError(
            f"{folder}: expected a folder images beside a folder labels, or a data.csv, "
            f"got {_listed(sorted(p.name for p in folder.iterdir())) or 'an empty folder'}"
        )
    labels = _label_folder(folder, choice.labels)
    found, warnings = _matched(_by_stem(images), _by_stem(labels), labels.name)
    table = folder / "splits.csv"
    if table.is_file():
        found, missing = _split_by_table(found, table, choice.experiment)
        warnings += missing
    elif choice.experiment is not None:
        raise TrainingDataError(f"experiment {choice.experiment!r}: {folder} has no splits.csv")
    pairs, dropped = expand_stacks(found, choice.unlabelled)
    return Collection(pairs, _class_names(folder), (*warnings, *dropped))


def pairs_in_table(path: Path, choice: Choice) -> Collection:
    """Read a table with the columns image and label, and optionally some more.

    Parameters
    ----------
    path : Path
        CSV file; paths in it are relative to its folder. Further columns are split, specimen, name
        and normalisation, see `Normalisation.key`.
    choice : Choice
        Which experiment.

    Raises
    ------
    TrainingDataError
        If a column or file is missing, or a path leads out of the folder.
    """
    rows = rows_of_experiment(read_table(path, ("image", "label")), choice.experiment, path.name)
    found, skipped = [], []
    for row in rows:
        if not row["label"]:
            skipped.append(row["image"])
            continue
        image = path_in(path.parent, row["image"], path.name)
        label = path_in(path.parent, row["label"], path.name)
        name = row.get("name") or image.stem
        split = split_name(row.get("split", ""))
        shown = _normalisation(row.get("normalisation", ""), path.name)
        found.append(FilePair(name, image, label, row.get("specimen", ""), split, shown))
    warnings = [f"{path.name}: no labels for {_listed(skipped)}; left out"] if skipped else []
    pairs, dropped = expand_stacks(_distinct(found, path.name), choice.unlabelled)
    return Collection(pairs, _class_names(path.parent), (*warnings, *dropped))


def _normalisation(text: str, table: str) -> Normalisation | None:
    try:
        return Normalisation.from_key(text) if text else None
    except InvalidSettingError as error:
        raise TrainingDataError(f"{table}: {error}") from error


def pair_of_files(image: Path, choice: Choice) -> Collection:
    """Pair one image or stack with its label file.

    Parameters
    ----------
    image : Path
        Image file.
    choice : Choice
        `labels` is the label file, by its path or by its name beside the image; found by
        its name, such as ``NAME_labels.tif``, when left out.

    Raises
    ------
    TrainingDataError
        If there is no label file, or several.
    """
    if choice.labels is not None:
        chosen = [p for p in (Path(choice.labels), image.parent / choice.labels) if p.exists()][:1]
    else:
        chosen = _labels_beside(image)
    if len(chosen) != 1:
        got = ", ".join(p.name for p in chosen) or "none"
        wanted = choice.labels or f"{stem_of(image)}_labels.tif"
        raise TrainingDataError(f"{image.name}: expected a label file such as {wanted}, got {got}")
    pairs, dropped = expand_stacks([_file_pair(image, chosen[0])], choice.unlabelled)
    return Collection(pairs, _class_names(image.parent), tuple(dropped))


def _labels_beside(image: Path) -> list[Path]:
    """Find images beside one whose names are its own and a suffix, if need be in capitals."""
    others = [p for p in image.parent.iterdir() if p.is_file() and p != image]
    # What we write ourselves for NAME.ome.tif is NAME_labels.tif.
    names = {stem + suffix for stem in (image.stem, stem_of(image)) for suffix in LABEL_SUFFIXES}
    found = [p for p in others if p.stem in names and image_format(p) is not None]
    small, stem = {name.lower() for name in names}, image.stem.lower()
    # Where another image differs in capitals only, the labels may be its own.
    if not found and all(p.stem.lower() != stem for p in others):
        found = [p for p in others if p.stem.lower() in small and image_format(p) is not None]
    return sorted(found)


def _class_names(folder: Path) -> dict[int, str]:
    path = folder / "classes.csv"
    return read_class_names(path) if path.is_file() else {}


def _named(folder: Path, name: str) -> Path | None:
    """Find a folder by its name, in capitals or not; exactly this one goes first."""
    found = [p for p in folder.iterdir() if p.is_dir() and p.name.lower() == name]
    return min(found, key=lambda p: (p.name != name, p.name), default=None)


def _label_folder(folder: Path, chosen: str | None) -> Path:
    if chosen is not None:
        for path in (folder / chosen, Path(chosen)):
            if path.is_dir():
                return path
        raise TrainingDataError(f"{folder}: expected a folder {chosen} with labels, found none")
    for start in _LABEL_FOLDERS:
        found = [p for p in folder.iterdir() if p.is_dir() and p.name.lower().startswith(start)]
        if len(found) > 1:
            names = _listed(sorted(p.name for p in found))
            raise TrainingDataError(
                f"{folder} holds several folders of labels: {names}; choose one with labels"
            )
        if found:
            return found[0]
    raise TrainingDataError(f"{folder}: expected a folder labels beside images, found none")


def _by_stem(folder: Path) -> dict[str, Path]:
    """Files of a folder by their names without ending."""
    found: dict[str, Path] = {}
    for path in _image_files(folder):
        stem = path.stem if path.is_file() else path.name
        if stem in found:
            raise TrainingDataError(
                f"{folder}: expected one file per name, got {found[stem].name} and {path.name}"
            )
        found[stem] = path
    if not found:
        raise TrainingDataError(f"{folder}: expected images, found none that can be read")
    return found


def _image_files(folder: Path) -> list[Path]:
    files = [
        path
        for path in folder.iterdir()
        if not path.name.startswith((".", "~"))
        and (image_format(path) is not None or (path.is_dir() and slice_files(path)))
    ]
    return sorted(files, key=natural_key)


def _matched(
    images: dict[str, Path], labels: dict[str, Path], folder: str
) -> tuple[list[FilePair], list[str]]:
    """Pair files of equal names, the labels' perhaps with a suffix, or in capitals."""
    pairs, unlabelled, used = [], [], set()
    small = {name.lower(): name for name in labels}
    if len(small) < len(labels) or len({name.lower() for name in images}) < len(images):
        small = {}  # Capitals tell files apart here.
    for stem, image in images.items():
        # What we write ourselves for NAME.ome.tif is NAME_labels.tif.
        stems = dict.fromkeys((stem, stem_of(image)))
        names = [name for own in stems for name in (own, *(own + end for end in LABEL_SUFFIXES))]
        label = next((name for name in names if name in labels), None)
        if label is None:
            label = next((small[n.lower()] for n in names if n.lower() in small), None)
        if label is None:
            unlabelled.append(image.name)
            continue
        used.add(label)
        pairs.append(_file_pair(image, labels[label]))
    if not pairs:
        raise TrainingDataError(
            f"expected labels of the same names as the images, got images such as "
            f"{next(iter(images.values())).name} and labels such as "
            f"{next(iter(labels.values())).name} in {folder}"
        )
    warnings = []
    if unlabelled:
        count = len(unlabelled)
        warnings.append(f"{count} images without labels are left out: {_listed(unlabelled)}")
    extra = [path.name for stem, path in labels.items() if stem not in used]
    if extra:
        warnings.append(f"{len(extra)} labels without an image are left out: {_listed(extra)}")
    return pairs, warnings


def _file_pair(image: Path, label: Path) -> FilePair:
    return FilePair(image.stem if image.is_file() else image.name, image, label)


def _split_by_table(
    pairs: list[FilePair], path: Path, experiment: str | None
) -> tuple[list[FilePair], list[str]]:
    """Keep the images that a table names, in the splits that it gives them."""
    table = read_table(path, ("split", "image"))
    rows = rows_of_experiment(table, experiment, path.name)
    by_name = {key: pair for pair in pairs for key in (pair.image.name, pair.name)}
    capitals = {key.casefold(): pair for key, pair in by_name.items()}
    found: dict[str, FilePair] = {}
    missing = []
    for row in rows:
        file = PureWindowsPath(row["image"])  # reads both kinds of slashes
        keys = (row["image"], file.name, file.stem)
        pair = next((by_name[key] for key in keys if key in by_name), None)
        small = (key.casefold() for key in keys)
        pair = pair or next((capitals[key] for key in small if key in capitals), None)
        if pair is None:
            missing.append(row["image"])
            continue
        split = split_name(row["split"])
        if pair.name in found and found[pair.name].split != split:
            raise TrainingDataError(
                f"{path.name}: {pair.name} is in the splits {found[pair.name].split} and {split}"
            )
        found[pair.name] = replace(pair, split=split, specimen=row.get("specimen", ""))
    if not found:
        raise TrainingDataError(
            f"{path.name}: expected names of images, got {_listed(missing) or 'no row'}"
        )
    warnings = []
    if missing:
        warnings.append(f"{path.name} names images that are not there: {_listed(missing)}")
    rest = [pair.name for pair in pairs if pair.name not in found]
    if rest and "experiment" not in table[0]:
        warnings.append(f"{path.name} does not name {_listed(rest)}; left out")
    return list(found.values()), warnings


def _distinct(pairs: list[FilePair], table: str) -> list[FilePair]:
    """Tell apart images of the same name in different folders; refuse the same one twice."""
    seen: dict[str, int] = {}
    files = set()
    out = []
    for pair in pairs:
        key = (pair.image, pair.labels)
        if key in files:
            raise TrainingDataError(f"{table}: {pair.image.name} comes twice with the same labels")
        files.add(key)
        seen[pair.name] = seen.get(pair.name, 0) + 1
        count = seen[pair.name]
        out.append(pair if count == 1 else replace(pair, name=f"{pair.name} ({count})"))
    return out


def _listed(names: Sequence[str]) -> str:
    """Name the first few."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
