"""Groups of options: a parameter that is a dataclass becomes one option per field."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

Command = Callable[..., None]


def with_groups(command: Command) -> Command:
    """Add an option to a command for each field of its parameters that are dataclasses.

    The annotation and default of a field become those of the option.
    """
    own = inspect.signature(command, eval_str=True).parameters.values()
    groups: dict[str, Any] = {p.name: p.annotation for p in own if is_dataclass(p.annotation)}

    def grouped(**arguments: Any) -> None:
        for name, group in groups.items():
            arguments[name] = group(**{one.name: arguments.pop(one.name) for one in fields(group)})
        command(**arguments)

    parameters = [one for p in own for one in (_options(p.annotation) if p.name in groups else [p])]
    grouped.__name__, grouped.__doc__ = command.__name__, command.__doc__
    grouped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    grouped.__annotations__ = {p.name: p.annotation for p in parameters}
    return grouped


def _options(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(one.name, kind, default=one.default, annotation=hints[one.name])
        for one in fields(group)
    ]
