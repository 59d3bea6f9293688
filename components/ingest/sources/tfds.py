"""Data sets that TensorFlow Datasets has built on disk, read without that package.

The folder of a version has `features.json`, `dataset_info.json`, the names of the classes and
TFRecord shards (https://www.tensorflow.org/datasets/external_tfrecord).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.ingest.sources.folders import LabeledFile
from components.ingest.sources.json_text import read_json_object
from components.ingest.sources.source_context import SourceContext
from components.ingest.sources.split_names import split_of_name
from components.ingest.sources.table_columns import checked_row
from regraft_core.formats.records import example_values, read_examples
from regraft_core.runtime.errors import InputError

_FEATURES, _INFO = "features.json", "dataset_info.json"
_FORMAT = "tfrecord"
_MAX_NAMES_BYTES = 64 << 20


def is_tfds(folder: Path) -> bool:
    """Return whether a folder is that of a version of a built data set."""
    return (folder / _FEATURES).is_file() and (folder / _INFO).is_file()


def tfds_images(folder: Path, context: SourceContext) -> Iterator[LabeledFile]:
    """Yield the images of all splits.

    Raises:
        InputError: it has no images or labels, another file format, or a damaged or missing shard.
    """
    name = context.name
    features = _mapping(read_json_object(folder / _FEATURES, f"{name}: {_FEATURES}"),
                        "featuresDict", "features")  # fmt: skip
    info = read_json_object(folder / _INFO, f"{name}: {_INFO}")
    image = _image_feature(features, name)
    columns = context.columns.find(list(features), name, with_file=False)[1:]
    label = str(columns[0] or "")
    feature, is_list = _label_feature(features.get(label, {}), name)
    classes = _class_names(folder, label, feature)
    for shard, split, count in _shards(folder, info, context):
        number = 0
        for number, data in enumerate(read_examples(shard), 1):
            images, labels, *others = example_values(data, [image, *(one or "" for one in columns)])
            encoded = images[0] if images else None
            named = [_named(one, classes) for one in labels]
            values = [named if is_list else _first(named), *map(_text, map(_first, others))]
            several = len(named) > 1 and not is_list
            shown = f"{shard.name}/{number:06d}"
            where = f"{shard.name}, record {number}"
            row = checked_row(where, [shown, *values], context.columns)
            problem = row.problem or (f"{where}: expected one label, found several" * several)
            problem = problem or ("" if isinstance(encoded, bytes) else f"{where}: no image")
            if problem:
                yield LabeledFile("", shown, "", problem=problem)
                continue
            yield LabeledFile(
                "", shown, row.label, row.split or split, row.group, slices=row.slices,
                labels=row.labels,
                data=encoded if isinstance(encoded, bytes) else None,
            )  # fmt: skip
        if number != count:
            raise InputError(f"{shard}: expected {count} records, found {number}")


def _image_feature(features: Mapping[str, Any], name: str) -> str:
    """Return the name of the feature of images: the only one, or `image`.

    Raises:
        InputError: there is none.
    """
    found = [key for key, one in features.items() if isinstance(one, dict) and "image" in one]
    if len(found) == 1 or "image" in found:
        return found[0] if len(found) == 1 else "image"
    what = f"several ({', '.join(found)})" if found else f"none among {', '.join(features)}"
    raise InputError(f"{name}: expected one feature of images, found {what[:200]}")


def _label_feature(feature: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], bool]:
    """Return the feature of one label, and whether images have lists of it.

    Raises:
        InputError: they have lists of something else.
    """
    if "sequence" not in feature:
        return feature, False
    sequence = feature["sequence"]
    inner = sequence.get("feature") if isinstance(sequence, dict) else None
    if not isinstance(inner, dict) or "featuresDict" in inner or "sequence" in inner:
        raise InputError(f"{name}: {_FEATURES}: expected lists of labels, found lists of others")
    return inner, True


def _class_names(folder: Path, label: str, feature: Mapping[str, Any]) -> list[str]:
    """Return the names of the classes by their number; none if the labels are not numbered.

    Raises:
        InputError: there are very many names.
    """
    file = folder / f"{label}.labels.txt"
    if "classLabel" not in feature or not file.is_file():
        return []
    if file.stat().st_size > _MAX_NAMES_BYTES:
        raise InputError(f"{file}: expected at most {_MAX_NAMES_BYTES} bytes of names")
    return file.read_text(encoding="utf-8", errors="replace").splitlines()


def _named(label: bytes | int, classes: Sequence[str]) -> str | int | None:
    """Return a label as text or, if there are names, that of its number; None without one."""
    if isinstance(label, int) and classes:
        return classes[label] if 0 <= label < len(classes) else None
    return _text(label)


def _text(value: bytes | int | None) -> str | int | None:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _first(values: Sequence[Any]) -> Any | None:
    return values[0] if values else None


def _shards(
    folder: Path, info: Mapping[str, Any], context: SourceContext
) -> Iterator[tuple[Path, str, int]]:
    """Yield the file of each shard, its split and the number of its records.

    Raises:
        InputError: the format is another one, or a shard is missing.
    """
    name, kind = str(info.get("name", "")), info.get("fileFormat", _FORMAT)
    splits = info.get("splits")
    if kind != _FORMAT or not isinstance(splits, list) or not all(map(_is_split, splits)):
        raise InputError(
            f"{context.name}: expected splits with the lengths of their shards, in {_FORMAT} "
            f"files, found {str(kind)[:40]}; build it with file_format={_FORMAT!r}"
        )
    for one in splits:
        split_name, counts = str(one.get("name", "")), one.get("shardLengths") or []
        split = split_of_name(split_name)
        if split is None and len(splits) > 1:
            context.tally.warnings.append(f"{context.name}: the split {split_name!r} was ignored")
            continue
        for number, count in enumerate(counts):
            ending = f"{number:05d}-of-{len(counts):05d}"
            shard = folder / f"{name}-{split_name}.{_FORMAT}-{ending}"
            if not shard.is_file() or shard.parent != folder:
                raise InputError(f"{context.name}: expected the shard {shard.name}, found none")
            yield shard, split or "", int(count)


def _is_split(value: Any) -> bool:
    """Return whether a value has the numbers of records of shards, which are integers or digits."""
    lengths = value.get("shardLengths", []) if isinstance(value, dict) else None
    return isinstance(lengths, list) and all(str(one).isdecimal() for one in lengths)


def _mapping(value: Any, *keys: str) -> dict[str, Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
        raise InputError(f"{_FEATURES}: expected objects in {'/'.join(keys)}, found none")
    return value
