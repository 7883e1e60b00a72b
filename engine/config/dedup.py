"""What can be set about removing near-duplicates: the settings of any job over pictures, and those of its own."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final

from pydantic import Field

from ...errors import ConfigError
from .model import ServiceConfig
from .sections import SECTIONS

_SINK: Final = {*SECTIONS["sink"].values()} - {"insert_batch_size", "collection", "token", "retry_for", "partition"}
_OTHERS: Final = _SINK | {
    *("embedder", "preset", "image_size", "dtype", "background", "value_range", "metadata", "async_pipeline"),
}
"""Settings that a job about near-duplicates does not have."""


class DedupConfig(ServiceConfig):
    """Everything that can be set about `penstock dedup`.

    Raises:
        ConfigError: a value is not allowed, a name is no field, or a field that such jobs do not have.
    """

    kind: ClassVar[str] = "dedup"

    duplicates: Path = Field(
        default=Path("duplicates.parquet"), json_schema_extra={"metavar": "FILE.parquet", "called": "--to"}
    )
    """Where the list goes: a row for each item that is not needed, with key, duplicate_of, similarity and rule."""

    rule: str = Field(default="default", json_schema_extra={"metavar": "RULE"})
    """When two items are duplicates: default (GIST 0.96 and PDQ 100), strict (PDQ 31: loses nothing, finds less), or
    vectors:0.97 (the cosine of stored vectors)."""

    html: Path | None = Field(default=None, json_schema_extra={"metavar": "FILE.html"})
    """Also write a contact sheet: each picture that stays, with its duplicates."""

    delete: bool = False
    """Of a store: delete the rows that are not needed. Files of pictures are never deleted."""

    flag: bool = False
    """Of a store with room for it (Milvus): write into each row that is not needed whose duplicate it is, as
    duplicate_of."""

    rededup: bool = False
    """Decide anew. Else who stayed in an earlier decision of the job stays, and only what is new is judged."""

    def __init__(self, **values: object) -> None:
        super().__init__(**values)
        if wrong := sorted(self.model_fields_set & _OTHERS):
            raise ConfigError(f"{wrong[0]}: jobs about near-duplicates have no such setting")
        if self.delete and self.flag:
            raise ConfigError("delete: excludes flag: give one of them")
