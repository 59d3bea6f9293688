"""Pipeline parameters made from the option models, which define and explain each option once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

OPTIONS = "options"


def with_parameters(fields: Mapping[str, FieldInfo], defaults: Mapping[str, Any]) -> Callable[
    [Callable[..., Any]], Callable[..., Any]
]:  # fmt: skip
    """Replace the argument `options` of a pipeline function by one parameter per field.

    The function gets the parameters as one dict of kfp channels. kfp reads the signature and the
    docstring, so names, types, defaults and descriptions appear in its UI.
    """

    def decorate(wiring: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(wiring)
        own = [p for p in signature.parameters.values() if p.name != OPTIONS]
        flat = [_parameter(name, field, defaults) for name, field in fields.items()]

        def pipeline(*values: Any) -> Any:
            arguments = dict(zip([p.name for p in own + flat], values, strict=True))
            options = {name: arguments.pop(name) for name in fields}
            return wiring(**arguments, options=options)

        pipeline.__name__ = wiring.__name__
        described = "".join(f"    {n}: {f.description or n}\n" for n, f in fields.items())
        pipeline.__doc__ = f"{inspect.getdoc(wiring)}\n\nArgs:\n{described}"
        pipeline.__signature__ = signature.replace(parameters=own + flat)  # type: ignore[attr-defined]
        return pipeline

    return decorate


def _parameter(name: str, field: FieldInfo, defaults: Mapping[str, Any]) -> inspect.Parameter:
    default = defaults.get(name, inspect.Parameter.empty)
    return inspect.Parameter(
        name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=_type_of(field)
    )


def _type_of(field: FieldInfo) -> Any:
    """Return the type for kfp: str for a choice of names, a list for a tuple."""
    annotation = field.annotation
    if get_origin(annotation) is tuple:
        return list[int] if get_args(annotation)[0] is int else list[str]
    if get_origin(annotation) is dict:
        return dict[str, float]
    return annotation if annotation in (bool, int, float) else str
