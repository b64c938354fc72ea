"""Configurations: frozen, every default with its source, unknown fields refused with the nearest key named."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from normscan.errors import ConfigError, UsageError


class BaseConfig(BaseModel):
    """Checked values and named presets; a family's, a generator's or a sampler's fields are added in sub-classes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Validate; a `ConfigError` names each wrong field, what was found, and the nearest key for an unknown one."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError("; ".join(cls._explain(e) for e in error.errors())) from None

    @classmethod
    def preset(cls, name: str, overrides: Mapping[str, Any] | None = None) -> Self:
        """A preset by name, with single fields overridden."""
        if name not in cls.presets:
            raise UsageError(f"preset {name!r} does not exist; there are: {', '.join(cls.presets)}")
        return cls.parse({**cls.presets[name], **(overrides or {})})

    @classmethod
    def _explain(cls, error: Any) -> str:
        field = ".".join(str(part) for part in error["loc"])
        if error["type"] == "extra_forbidden":
            near = difflib.get_close_matches(field, cls.model_fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"fields: {', '.join(cls.model_fields)}"
            return f"config: unknown field {field!r}; {hint}"
        return f"config.{field}: {error['msg']}, found {error['input']!r}"
