"""KerasHub presets as backbones: by name, downloaded once, or a local folder.

A preset is a configuration, weights, and how pixels are scaled. Its configuration is only read as
JSON, and the network is built of the classes of `hub_families`, so that nothing in it runs.
Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import runpy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft_core.backbones.backbone_row import Backbone
from regraft_core.backbones.hub_download import cached_file, download_file
from regraft_core.backbones.hub_families import FAMILIES, TOWERS, Family
from regraft_core.formats.backbone_names import DIGEST_MARK, PREFIX, short_name
from regraft_core.formats.manifest_storage import digest_file, digest_of
from regraft_core.images.scalings import affine_scaling, check_scaling
from regraft_core.runtime.addresses import local_path
from regraft_core.runtime.errors import InputError, unknown_name

PACKAGE = "keras_hub"
CONFIG, WEIGHTS, SHARDS = "config.json", "model.weights.h5", "model.weights.json"
CONVERTERS = ("image_converter.json", "preprocessor.json")
_MAX_JSON_BYTES = 1 << 20
_DEFAULT_PX = 224
_MAX_SIZE, _MAX_BLOCKS, _MAX_WINDOW = 1 << 20, 256, 64
# Other numbers are sizes, such as that of a vocabulary.
_LIMITS = {
    "num_layers": _MAX_BLOCKS, "depths": _MAX_BLOCKS, "layerwise_depths": _MAX_BLOCKS,
    "stackwise_stage_filters": 1 << 14, "num_register_tokens": _MAX_BLOCKS,
    "window_size": _MAX_WINDOW, "image_shape": 4096, "position_embedding_shape": 4096,
}  # fmt: skip
_ADDRESSES = ("kaggle://", "hf://")
_ADDRESS = re.compile(
    r"kaggle://[\w-]+/[\w.-]+/\w+/[\w.-]+(/\d+)?|hf://[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?",
    re.ASCII,
)
_FAMILY_OF = {family.folder: family for family in FAMILIES.values()}
_LICENSE = re.compile(r"^license(?:_name)?:\s*(\S.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Preset:
    """Where the files of a preset are: a local folder, or an address to download them from."""

    name: str
    folder: Path | None = None
    address: str = ""

    def file(self, name: str, *, required: bool = True) -> Path | None:
        """Return the path of a file; one of an address is downloaded once.

        Raises:
            InputError: it is missing, or leaves the folder by a link or its name.
        """
        if self.folder is None:
            return download_file(self.name, self.address, name, required=required)
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise InputError(f"{short_name(self.name)}: {name} is outside the preset's folder")
        if path.is_file():
            return path
        if required:
            raise InputError(
                f"backbone: expected the preset's {name} in {self.folder}, found none; a preset is "
                "written by save_to_preset"
            )
        return None

    def json(self, name: str, *, required: bool = True) -> dict[str, Any] | None:
        """Return the content of a JSON file, None if it is missing and not required."""
        path = self.file(name, required=required)
        if path is None:
            return None
        try:
            if path.stat().st_size > _MAX_JSON_BYTES:
                raise ValueError(f"more than {_MAX_JSON_BYTES} bytes")
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{short_name(self.name)}: cannot read {name}: {error}") from error
        if not isinstance(value, dict):
            raise InputError(f"{short_name(self.name)}: expected an object in {name}")
        return value


@dataclass(frozen=True)
class NamedPreset:
    """A preset that KerasHub names: the folder of its family, its address and size."""

    folder: str
    address: str
    parameters: int


@functools.cache
def preset_names() -> Mapping[str, NamedPreset]:
    """Return the presets that KerasHub names; none if it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return {}
    models = Path(spec.origin).parent / "src" / "models"
    return {
        name: NamedPreset(
            file.parent.name,
            str(preset.get("kaggle_handle", "")),
            int(preset.get("metadata", {}).get("params", 0)),
        )
        for file in sorted(models.glob("*/*_presets.py"))
        for name, preset in runpy.run_path(str(file)).get("backbone_presets", {}).items()
    }


def image_presets() -> dict[str, NamedPreset]:
    """Return the presets of the families of `hub_families`."""
    return {name: one for name, one in preset_names().items() if one.folder in _FAMILY_OF}


def family_of(location: str) -> Family:
    """Return the family of a preset by name."""
    return _FAMILY_OF[image_presets()[location.removeprefix(PREFIX)].folder]


def preset_parameters(location: str) -> int | None:
    """Return the number of parameters of a preset by name, as far as KerasHub states it."""
    known = preset_names().get(location.removeprefix(PREFIX))
    return known.parameters or None if known else None


def find_preset(location: str) -> Preset:
    """Return the preset at `hub:` and a name, a path, or an address of Kaggle or Hugging Face.

    Raises:
        InputError: KerasHub is not installed, or the name is unknown or that of a preset for
            something else than images.
    """
    text = location.partition(DIGEST_MARK)[0].removeprefix(PREFIX)
    if not text:
        raise InputError("backbone: expected hub: and the name or the folder of a preset, got hub:")
    if importlib.util.find_spec(PACKAGE) is None:
        raise InputError(
            f"backbone: {short_name(location)} needs keras-hub, not installed here; "
            "pip install 'regraft[hub]'"
        )
    if text.startswith(_ADDRESSES):
        if not _ADDRESS.fullmatch(text):
            raise InputError(
                "backbone: expected hub:kaggle://OWNER/MODEL/keras/VARIANT/VERSION or "
                f"hub:hf://OWNER/MODEL, got {location}"
            )
        return Preset(location, address=text)
    if not is_preset_name(text):
        folder = local_path(text).expanduser()
        if not folder.is_dir():
            raise InputError(f"backbone: expected a preset's folder at {text}, found none")
        return Preset(location, folder=folder)
    known = image_presets()
    if text in known:
        return Preset(location, address=known[text].address)
    if text in preset_names():
        raise InputError(
            f"backbone: the preset {text} is of the family {preset_names()[text].folder}, which is "
            f"not among those for images: {', '.join(one.name for one in FAMILIES.values())}"
        )
    raise unknown_name("preset", text, known)


def is_preset_name(text: str) -> bool:
    """Return whether what follows `hub:` is a name, not a path or an address."""
    return re.fullmatch(r"[\w.+-]+", text) is not None and not Path(text).is_dir()


def preset_folder(location: str) -> str:
    """Return the path in `hub:PATH`, "" for a name or an address."""
    text = location.partition(DIGEST_MARK)[0].removeprefix(PREFIX)
    is_path = not text.startswith(_ADDRESSES) and not is_preset_name(text)
    return text if location.startswith(PREFIX) and is_path else ""


def preset_digest(location: str) -> str:
    """Return the SHA-256 (hex) of the files of a local preset that decide what it computes."""
    preset = find_preset(location)
    names = [CONFIG, *CONVERTERS, *weight_files(preset)]
    files = {name: preset.file(name, required=False) for name in names}
    return digest_of({name: digest_file(path) for name, path in files.items() if path})


def weight_files(preset: Preset) -> list[str]:
    """Return the names of the files with weights: one, or an index and its parts.

    Raises:
        InputError: there is none, or a part is outside the preset's folder.
    """
    if preset.file(WEIGHTS, required=False) is not None:
        return [WEIGHTS]
    index = preset.json(SHARDS, required=False)
    if index is None:
        preset.file(WEIGHTS)
    listed = (index or {}).get("weight_map")
    values = list(listed.values()) if isinstance(listed, dict) else []
    if not values or not all(isinstance(value, str | list) for value in values):
        raise InputError(f"{short_name(preset.name)}: expected files by layer in {SHARDS}")
    parts: set[str] = set()
    for value in values:
        parts.update([value] if isinstance(value, str) else map(str, value))
    for part in parts:
        if Path(part).name != part:
            raise InputError(f"{short_name(preset.name)}: {part} is outside the preset's folder")
    return [SHARDS, *sorted(parts)]


def network_config(preset: Preset) -> tuple[str, dict[str, Any]]:
    """Return the class of the network in a preset, and the configuration of its part for images.

    Raises:
        InputError: it is not a network of `hub_families`, has values other than numbers, texts and
            lists of them, or numbers that no network has.
    """
    content = preset.json(CONFIG) or {}
    _check_sizes(preset.name, content)
    kind, config = str(content.get("class_name", "")), content.get("config")
    if kind in TOWERS and isinstance(config, dict):
        part, expected = TOWERS[kind]
        tower = config.get(part)
        config = tower.get("config") if isinstance(tower, dict) else None
        kind = expected
    if kind not in FAMILIES or not isinstance(config, dict):
        raise InputError(
            f"backbone: {short_name(preset.name)} is not a preset of a network for images that can "
            f"be used ({', '.join(family.name for family in FAMILIES.values())}), but of "
            f"{kind or 'none of KerasHub'}"
        )
    return kind, plain_values(preset.name, config)


def plain_values(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a network, without its name and precision.

    Raises:
        InputError: a value is an object, which could be code.
    """
    left = {k: v for k, v in config.items() if k not in ("name", "trainable", "dtype")}
    for key, value in left.items():
        if not _is_plain(value):
            raise InputError(f"backbone: {short_name(name)}: {key} is an object, which is not read")
    return left


def _check_sizes(name: str, config: Mapping[str, Any]) -> None:
    """Check that the numbers in a configuration are those of a network, before it is built.

    A number of blocks decides how long building takes, and a size how large its constants are.

    Raises:
        InputError: a number is larger than in any published network.
    """
    pending: list[tuple[str, Any]] = list(config.items())
    while pending:
        key, value = pending.pop()
        if isinstance(value, dict):
            pending.extend(value.items())
        elif isinstance(value, list | tuple):
            pending.extend((key, one) for one in value)
            # Blocks are counted by stage.
            pending.append((key, sum(one for one in value if isinstance(one, int | float))))
        elif isinstance(value, int | float) and not abs(value) <= _LIMITS.get(key, _MAX_SIZE):
            limit = _LIMITS.get(key, _MAX_SIZE)
            raise InputError(f"{short_name(name)}: {key} is {value}, expected at most {limit}")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def preset_row(location: str, scaling: str = "auto") -> Backbone:
    """Return the description of a preset; one by name is downloaded, but not yet its weights.

    Raises:
        InputError: it is unavailable, not of a network for images, or does not say how pixels are
            scaled and `scaling` neither.
    """
    preset = find_preset(location)
    kind, config = network_config(preset)
    family, converter = FAMILIES[kind], _converter(preset)
    try:
        facts = family.facts(config)
        if min(facts.step_px, facts.width) < 1:
            raise ValueError(f"patches of {facts.step_px} px, {facts.width} channels")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"backbone: {short_name(location)} has an invalid {CONFIG}: {error!r}"
        ) from error
    return Backbone(
        constructor=kind,
        scaling=_scaling(preset, converter) if scaling == "auto" else check_scaling(scaling),
        image_px=facts.image_px or _converter_px(converter) or _DEFAULT_PX,
        min_px=facts.step_px,
        width=facts.width,
        cut=facts.cut,
        license=_license(preset) or family.license,
        weights_from=f"KerasHub preset ({preset.address.partition(':')[0] or 'local folder'})",
        has_top=False,
        source="preset",
        location=location,
        step_px=facts.step_px,
        positions_px=facts.positions_px,
    )


def has_weights(location: str) -> bool:
    """Return whether the weights of a preset are on this machine; nothing is downloaded."""
    return _has_one(find_preset(location), WEIGHTS, SHARDS)


def is_here(location: str) -> bool:
    """Return whether all files of a preset are on this machine; nothing is downloaded."""
    preset = find_preset(location)
    return has_weights(location) and _has_one(preset, CONFIG) and _has_one(preset, *CONVERTERS)


def _has_one(preset: Preset, *names: str) -> bool:
    if preset.folder is not None:
        return any((preset.folder / name).is_file() for name in names)
    return any(cached_file(preset.address, name) for name in names)


def _converter(preset: Preset) -> Mapping[str, Any]:
    """Return how the preset's own preprocessing converts images; empty if it does not say."""
    for name in CONVERTERS:
        content = preset.json(name, required=False) or {}
        config = content.get("config")
        nested = config.get("image_converter") if isinstance(config, dict) else None
        if isinstance(nested, dict):
            config = nested.get("config")
        if isinstance(config, dict) and {"scale", "offset", "image_size"} & set(config):
            return config
    return {}


def _converter_px(converter: Mapping[str, Any]) -> int:
    size = converter.get("image_size")
    return int(size[0]) if isinstance(size, list | tuple) and size and size[0] else 0


def _scaling(preset: Preset, converter: Mapping[str, Any]) -> str:
    if not converter:
        raise InputError(
            f"scaling: {short_name(preset.name)} has no {CONVERTERS[0]} that says how pixels are "
            "scaled; name it with --scaling, such as unit for -1..1"
        )
    scale, offset = converter.get("scale"), converter.get("offset")
    values = [1.0 if scale is None else scale, 0.0 if offset is None else offset]
    factors, offsets = ([one] if isinstance(one, int | float) else one for one in values)
    try:
        if not all(factors):  # all images would be the same
            raise ValueError("0")
        return affine_scaling(factors, offsets)
    except (InputError, TypeError, ValueError) as error:
        raise InputError(
            f"scaling: {short_name(preset.name)}: expected one or three numbers as scale, none of "
            f"them 0, and as offset, got {scale!r} and {offset!r}"
        ) from error


def _license(preset: Preset) -> str:
    """Return the license that the preset's README states at its start, "" if it does not."""
    path = None if preset.folder is None else preset.file("README.md", required=False)
    if path is None:
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        head = file.read(_MAX_JSON_BYTES).partition("---\n")[2].partition("---\n")[0]
    found = _LICENSE.search(head)
    return found[1].strip()[:80] if found else ""
