"""What all settings have in common, and those about one part of the Python API."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import ConfigError
from .messages import explain


class Settings(BaseModel):
    """Strict about names, and every refusal is a ``ConfigError`` that says field, value and what is allowed."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, use_attribute_docstrings=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            # Without its cause: pydantic's own text repeats the values, and one of them may be a secret.
            raise ConfigError(explain(error, type(self))) from None

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            super().__setattr__(name, value)
        except ValidationError as error:
            raise ConfigError(explain(error, type(self))) from None


class AsyncPipelineConfig(Settings):
    """How ``insert_images_async`` overlaps its stages in this process.

    Raises:
        ConfigError: a value is out of its range, or a name is no field.
    """

    preprocess_workers: int = Field(default=2, ge=1, le=256)
    """Threads that decode and preprocess."""

    embedding_workers: int = Field(default=1, ge=1, le=256)
    """Threads or greenlets that embed."""

    insert_batch_size: int = Field(default=100, ge=1, le=16_384)
    """Rows of one call to the store."""

    queue_maxsize: int = Field(default=100, ge=1)
    """Pictures that may wait between two stages."""

    def replaced(self, **values: int | None) -> Self:
        """A copy in which the values that are not None stand.

        Raises:
            ConfigError: one is out of its range.
        """
        return type(self)(**{**self.model_dump(), **{name: said for name, said in values.items() if said is not None}})
