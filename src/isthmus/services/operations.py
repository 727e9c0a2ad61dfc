"""A table of named operations with checked arguments: what the command line and the API have in common."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from isthmus.errors import OperationError
from isthmus.model import Address

# JSON-able: dict, list, str, int, float, bool, None.
Plain = Any
Function = Callable[..., Awaitable[Plain]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    Attributes:
        name: `user.add`; the first word is the subject.
        text: first line of its docstring.
        adapters: argument name -> check of its type.
        required: arguments without a default.
        takes_actor: who does it is passed as `actor` (it changes something).
    """

    name: str
    text: str
    function: Function
    adapters: Mapping[str, TypeAdapter[Any]]
    required: frozenset[str]
    takes_actor: bool

    @classmethod
    def of(cls, name: str, function: Function) -> Operation:
        """Read arguments and types from the function itself."""
        hints = get_type_hints(function)
        parameters = inspect.signature(function).parameters
        return cls(
            name=name,
            text=(inspect.getdoc(function) or "").partition("\n")[0],
            function=function,
            adapters={key: TypeAdapter(hints[key]) for key in parameters if key != "actor"},
            required=frozenset(
                key for key, parameter in parameters.items() if parameter.default is parameter.empty and key != "actor"
            ),
            takes_actor="actor" in parameters,
        )

    async def call(self, arguments: Mapping[str, object], actor: str) -> Plain:
        """Check the arguments and run.

        Raises:
            OperationError: an argument is unknown, missing or of the wrong type.
        """
        unknown = sorted(set(arguments) - set(self.adapters))
        missing = sorted(self.required - set(arguments))
        if unknown or missing:
            wrong = f"does not take {', '.join(unknown)}" if unknown else f"needs {', '.join(missing)}"
            raise OperationError(f"{self.name} {wrong}; it takes: {', '.join(self.adapters) or 'nothing'}")
        checked: dict[str, object] = {}
        for key, value in arguments.items():
            try:
                checked[key] = self.adapters[key].validate_python(value)
            except ValidationError as error:
                # Pydantic's own text repeats the value, which may be a password.
                raise OperationError(f"{self.name}: {key} {error.errors()[0]['msg'].lower()}") from None
        if self.takes_actor:
            checked["actor"] = actor
        return await self.function(**checked)


def to_plain(value: object) -> Plain:
    """Turn dataclasses, addresses, enums and sets into what JSON has; secrets (repr=False) are left out."""
    if isinstance(value, Address):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value) if field.repr}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(to_plain(item) for item in value)
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value
