"""Reading a checkpoint's JSON with care: what is there, of which type, or a CheckpointError that says so."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from .errors import CheckpointError


def read_json(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: expected a JSON object")
    return value


def section(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    if not isinstance(value, dict):
        raise CheckpointError(f"config.json: {key} is missing or not an object")
    return value


def optional(config: dict[str, Any], key: str) -> dict[str, Any]:
    """A section that may be missing, or be the name of a class of the authors' code."""
    value = config.get(key)
    if value is not None and not isinstance(value, dict | str):
        raise CheckpointError(f"preprocessor_config.json: {key} is not an object")
    return value if isinstance(value, dict) else {}


def expect(config: dict[str, Any], key: str, values: tuple[Any, ...], where: str) -> None:
    """A key that may be missing, and that we can serve with these values only."""
    value = config.get(key)
    if value is not None and value not in values:
        raise CheckpointError(f"{where}: {key} {value!r} is not supported; only {values[0]!r} is")


def pick(cls: type[Any], values: dict[str, Any], where: str) -> Any:
    """Builds `cls` from the keys of `values` that it has, checking types and signs."""
    kinds = {"int": int, "float": (int, float), "bool": bool}
    taken: dict[str, Any] = {}
    for item in fields(cls):
        if values.get(item.name) is None:
            continue
        value, kind = values[item.name], str(item.type)
        if not isinstance(value, kinds[kind]) or (kind != "bool" and isinstance(value, bool)):  # type: ignore[arg-type]
            raise CheckpointError(f"{where}: {item.name} must be of type {kind}, got {value!r}")
        if kind != "bool" and value <= 0:
            raise CheckpointError(f"{where}: {item.name} must be positive, got {value!r}")
        taken[item.name] = float(value) if kind == "float" else value
    try:
        return cls(**taken)
    except TypeError as error:
        raise CheckpointError(f"{where}: {str(error).split('()', 1)[-1].strip()}") from None
