"""What a user can say: one model whose fields are the command line's options, the YAML keys and the Python arguments.

``ServiceConfig(to="photos.db", workers=2)``, ``workers: 2`` in a file and ``--workers 2`` are three spellings of one
field, checked by the same rules. Precedence: command line > YAML file > profile > defaults. Fields can also be written
in sections: ``workers: {count: 2}``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self, get_args

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    SecretStr,
)

from ...messages import redact
from ..core.budget import parse_budget
from ..core.policies import Policy, Retry, Skip
from .messages import Spelling, spelled
from .profiles import ProfileName, merged, over_profile
from .sections import flattened
from .settings import AsyncPipelineConfig, Settings
from .stores import Destinations, about_store, split_settings
from .types import (
    Colour,
    Declarations,
    EmbedderSpec,
    Files,
    Globs,
    Metric,
    Parameters,
    Policies,
    PresetName,
    Size,
    Stage,
    ValueRange,
)
from .yaml import read_yaml

PER_RUN: Final = frozenset(
    {
        *("workers", "batch_size", "slots", "insert_batch_size", "memory", "threads", "devices", "decoder", "sandbox"),
        *("max_failures", "on_failure", "item_timeout", "stall_after", "max_pixels", "max_side", "max_file_bytes"),
        *("progress", "report", "list_filtered", "wait_index", "token", "update", "accept_changes"),
        *("redo", "accept_store", "retry_for", "backlog", "anonymous", "instance_role", "allow_hosts"),
    }
)
"""Fields that may differ from run to run of one job: how it is done and shown, not what. The fingerprints of a job (see
``jobs.common.fingerprints``) depend on none of them; they are the options of ``penstock resume`` and ``retry``."""

_POLICIES: Final[Mapping[Stage, Policy]] = {"preprocess": Retry(), "embed": Retry(), "insert": Skip()}
"""For failures of which the user says nothing. A sink tries again by itself."""


def _numbers(value: object) -> object:
    """``0,1`` as the command line gives it."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _token_of_environment() -> SecretStr | None:
    token = os.environ.get("MILVUS_TOKEN")
    return SecretStr(token) if token else None


Budget = Annotated[
    int | Fraction, PlainValidator(parse_budget), PlainSerializer(lambda b: b if isinstance(b, int) else str(b))
]
Devices = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_numbers)]


@dataclass(frozen=True, slots=True)
class Store:
    """One store of a job.

    Attributes:
        address: what ``to`` calls it, without the settings behind it.
        own: settings that are for it alone, as they were written.
        config: the job's configuration as it is for this store.
    """

    address: str
    own: Mapping[str, str]
    config: ServiceConfig

    def named(self) -> AbstractContextManager[None]:
        """While the block runs, an error about one of its own settings names the store."""
        return about_store(self.address, self.own)


class ServiceConfig(Settings):
    """Everything that can be set. A field that is None is decided by the embedder, the preset or the machine.

    Fields may be assigned later (``config.batch_size = 64``, ``config.async_pipeline.preprocess_workers = 4``) and are
    checked then too. The profile is laid under the given values once, when the configuration is made.

    Raises:
        ConfigError: a value is not allowed, or a name is no field; the message names it.
    """

    kind: ClassVar[str] = "pictures"
    """What a job with these settings is about; its books say so where it is not pictures."""

    stages: ClassVar[tuple[str, ...]] = ("source", *get_args(Stage))
    """Stages that dead letters of such a job name, in their order."""

    budgets: ClassVar[Mapping[str, str]] = {stage: stage for stage in stages}
    """Stages at which its items are counted as failed, in their order, with the one whose policy is theirs."""

    gathered_at: ClassVar[str | None] = None
    """The one of these at which an item fails of which a part has failed at another stage."""

    per_run: ClassVar[frozenset[str]] = PER_RUN
    """See `PER_RUN`."""

    to: Destinations = Field(default=None, json_schema_extra={"metavar": "URI", "option": "--to"})
    """Where the vectors go: photos.db (a Milvus Lite store: a folder, made on first use), http://host:19530 (a Milvus
    server, or Zilliz Cloud as https://...), parquet:DIR or parquet:s3://bucket/prefix (a Parquet data set, published
    when the job is done), npy:DIR, lance:DIR, bulk:DIR (Parquet files for penstock import), or null: (nowhere: rows are
    counted and dropped). Give it again for each further store: every row goes into all of them. What is for one store
    alone stands behind it: 'photos.db?collection=a&index=HNSW'."""

    collection: str = Field(default="images", min_length=1, max_length=255, json_schema_extra={"metavar": "NAME"})
    """Collection in the store, made on first use."""

    embedder: EmbedderSpec = Field(default="gist", json_schema_extra={"metavar": "SPEC"})
    """What makes the vectors: gist, triton+http://host:8000/model, onnx:FILE.onnx, python:module:callable or
    jax:module:callable."""

    preset: PresetName | None = None
    """Preprocessing of a known model; the model itself is the embedder. [default: what the embedder likes]"""

    image_size: int | None = Field(default=None, ge=16, le=1024, json_schema_extra={"metavar": "N"})
    """Side in pixels of the square the embedder gets. [default: the embedder's or the preset's]"""

    dtype: Literal["float32", "float16", "uint8"] | None = None
    """Type of the pixels the embedder gets. [default: the embedder's or the preset's]"""

    decoder: Literal["pillow", "simplejpeg"] = "pillow"
    """Decoder of JPEG files; simplejpeg is faster and needs the extra penstock[jpeg]."""

    workers: int | None = Field(default=None, ge=1, le=1024, json_schema_extra={"metavar": "N"})
    """Preprocessing processes. [default: one per core]"""

    batch_size: int = Field(default=32, ge=1, le=4096, json_schema_extra={"metavar": "N"})
    """Pictures in a batch, from the worker to the embedder."""

    insert_batch_size: int = Field(default=128, ge=1, le=16_384, json_schema_extra={"metavar": "N"})
    """Rows of one call to the store; 100 to 250 keep everything else responsive."""

    devices: Devices | None = Field(default=None, json_schema_extra={"metavar": "N,N"})
    """Accelerators by number: worker i gets the i-th of them, in turn. [default: the CPU]"""

    threads: int | None = Field(default=None, ge=0, le=64, json_schema_extra={"metavar": "N"})
    """Reads a worker has in flight ahead of its decoder when storage is slow. [default: 2 of files, 32 of URLs]"""

    item_timeout: float = Field(default=30.0, gt=0, allow_inf_nan=False, json_schema_extra={"metavar": "SECONDS"})
    """A picture that takes longer to read or decode is a dead letter, and its process is replaced."""

    slots: int = Field(default=3, ge=1, le=64, json_schema_extra={"metavar": "N"})
    """Batches in shared memory per worker."""

    memory: Size | None = Field(default=None, json_schema_extra={"metavar": "SIZE"})
    """The most memory the job may take, all processes together: 4GiB, 512M, or 50% of the machine's. What is not set
    of slots, insert_batch_size, batch_size and workers is made to fit, given up in this order. [default: no limit]"""

    job: Path | None = Field(default=None, json_schema_extra={"metavar": "DIR"})
    """Folder for the books of the job: it can be killed at any moment and goes on where it was. With dead letters and
    report."""

    update: bool = False
    """Look at the source again: new files join the job in --job, changed ones are done again."""

    accept_changes: bool = False
    """Go on with the job in --job although source, pixels, embedder or store are not what it was begun with; add to a
    collection although its vectors are of another version of the pixels."""

    redo: bool = False
    """Forget what the job in --job has recorded as written, and do all of it again, into the store as it is now."""

    accept_store: bool = False
    """Go on with the job in --job although its store has gone, is another one, or lacks rows: what was written stays
    as written."""

    report: Files = Field(default=(), json_schema_extra={"metavar": "FILE.json|FILE.html", "option": "--report"})
    """Also write the report to this file, as JSON or as a page; give it once for each."""

    max_failures: Budget = Field(default=-1, json_schema_extra={"metavar": "N|RATE"})
    """Items of a stage that may fail before the job does: a count, or a rate such as 5%. -1 is no limit."""

    on_failure: Policies = Field(default={}, json_schema_extra={"metavar": "STAGE=POLICY", "option": "--on-failure"})
    """What a failure in preprocess, embed or insert leads to: skip (a dead letter), skip:BUDGET, fail (the job ends),
    retry:SECONDSs or retry:ATTEMPTS with ,skip or ,fail for what stays; give it once for each stage. Only what may pass
    by itself, as I/O errors of a network mount, is tried again. [default: retry:30s for preprocess and embed, skip for
    insert]"""

    progress: Literal["auto", "plain", "json", "none"] = "auto"
    """Progress on standard error: a live table on a terminal and lines elsewhere (auto), lines, JSON lines, nothing."""

    stall_after: float = Field(default=60.0, ge=0, allow_inf_nan=False, json_schema_extra={"metavar": "SECONDS"})
    """A stage without progress for so long is named on standard error, with its items and where they are; 0 for
    never."""

    profile: ProfileName = Field(default="default", frozen=True)
    """Set of values to start from."""

    metric: Metric = "COSINE"
    """How the store compares vectors."""

    index: str | None = Field(default=None, min_length=1, json_schema_extra={"metavar": "TYPE"})
    """Kind of index the store builds. [default: FLAT in a Milvus Lite store, AUTOINDEX on a server]"""

    index_params: Parameters = Field(default={}, json_schema_extra={"metavar": "NAME=VALUE,..."})
    """What to build the index with, e.g. M=16,efConstruction=200 for HNSW. [default: the store's]"""

    wait_index: float | None = Field(default=None, ge=0, json_schema_extra={"metavar": "SECONDS"})
    """When all rows are written, wait until the index covers them, so long at most. [default: do not wait]"""

    mode: Literal["append", "overwrite"] = Field(default="append", json_schema_extra={"flags": True})
    """What becomes of rows that are there already."""

    fields: Declarations = Field(default={}, json_schema_extra={"metavar": "NAME:TYPE", "option": "--field"})
    """Typed column filled from metadata, e.g. year:int64 or album:varchar(256); give it once for each. Types: bool,
    int8 to int64, float, double, varchar(BYTES), json. All other metadata is kept untyped."""

    partition: str | None = Field(default=None, min_length=1, json_schema_extra={"metavar": "NAME"})
    """Partition of the collection that the job is about, made on first use. [default: all of it]"""

    partition_key: str | None = Field(default=None, min_length=1, json_schema_extra={"metavar": "FIELD"})
    """Column by whose values the store divides the collection; text unless --field says otherwise."""

    metadata: Path | None = Field(default=None, json_schema_extra={"metavar": "FILE"})
    """Columns for each picture from a .csv, .jsonl or .parquet file with a column path (or key)."""

    token: SecretStr | None = Field(default_factory=_token_of_environment, json_schema_extra={"metavar": "TOKEN"})
    """Secret for the store, an API key or user:password. Better in the variable MILVUS_TOKEN: others can read a command
    line."""

    retry_for: float | None = Field(default=None, gt=0, allow_inf_nan=False, json_schema_extra={"metavar": "SECONDS"})
    """How long to go on trying while the store does not answer, also at the start. [default: 120 during a job; at the
    start a server that is not there is an error at once]"""

    backlog: int = Field(default=4096, ge=0, le=1_000_000, json_schema_extra={"metavar": "ROWS"})
    """Of several stores: rows that may wait for one that is down or slow while the others go on. Then all wait. A job
    that is killed meanwhile embeds them again, and gives them to that store alone."""

    max_pixels: int | None = Field(default=None, ge=1, le=2**32, json_schema_extra={"metavar": "N"})
    """Pictures whose header promises more pixels are refused; of a JPEG that is reduced while it is decoded only those
    count that are left, up to 64 times fewer. 1 to 4,294,967,296. [default: 64,000,000]"""

    max_side: int | None = Field(default=None, ge=1, le=2**20, json_schema_extra={"metavar": "N"})
    """The same for their longer side, e.g. of panoramas and scans. 1 to 1,048,576. [default: 32,768]"""

    max_file_bytes: Size | None = Field(default=None, json_schema_extra={"metavar": "SIZE"})
    """Larger files are refused unread. [default: 512MiB]"""

    background: Colour | None = Field(default=None, json_schema_extra={"metavar": "R,G,B"})
    """Colour under transparent pixels, each 0..255. [default: 255,255,255]"""

    include: Globs = Field(default=(), json_schema_extra={"metavar": "GLOB", "option": "--include"})
    """Of folders take only files that match, e.g. '*.jpg' or 'raw/**'; may be given again. A glob without a slash is
    about the name, one with a slash about the path below the source; a folder that matches is taken whole."""

    exclude: Globs = Field(default=(), json_schema_extra={"metavar": "GLOB", "option": "--exclude"})
    """Of folders leave out files and folders that match, e.g. 'thumbs/' or '*_small.jpg'; may be given again."""

    follow_links: bool = False
    """Walk into links to folders. Loops end, and what is reached in two ways is read once."""

    anonymous: bool = False
    """Read stores (s3://, gs://, az://) without credentials: public buckets. Others come from the environment or from a
    profile."""

    instance_role: bool = False
    """Ask the cloud's metadata service for the credentials of stores: on a machine of the cloud that has a role."""

    allow_hosts: Globs = Field(default=(), json_schema_extra={"metavar": "HOST[:PORT]", "option": "--allow-host"})
    """Also read http(s) URLs of this host although it has a private address; may be given again. Others are refused,
    by whatever name or redirect they are reached."""

    list_filtered: Path | None = Field(default=None, json_schema_extra={"metavar": "FILE"})
    """Also list what was left out, and why, in this file: a JSON object with key and why a line."""

    value_range: ValueRange | None = Field(default=None, json_schema_extra={"metavar": "BLACK,WHITE"})
    """Samples that become black and white in pictures of more than 8 bits a sample, e.g. 0,4095. [default: by the type:
    0,1 for floats, 0,65535 for 16-bit, 0,255 for other integers]"""

    sandbox: bool = False
    """Confine the preprocessing processes before they decode anything: no network, no programs, no writing. Not
    together with --devices."""

    async_pipeline: AsyncPipelineConfig = AsyncPipelineConfig()  # pydantic copies it for each configuration
    """How ``insert_images_async`` overlaps its stages."""

    _spelling: Spelling = PrivateAttr(default_factory=Spelling.current)

    def __init__(self, **values: Any) -> None:
        flat, said = flattened(values)
        with spelled(said):
            super().__init__(**over_profile(flat))

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            # A store's address may carry user:password@.
            yield name, self.shown_to if name == "to" and value else value

    @property
    def destinations(self) -> tuple[str, ...]:
        """Each address of ``to``."""
        return (self.to,) if isinstance(self.to, str) else self.to or ()

    @property
    def stores(self) -> tuple[Store, ...]:
        """Each store of ``to``, with the configuration as it is for that store.

        Raises:
            ConfigError: a setting of one is not allowed; names store and setting.
        """
        return tuple(map(self._store, self.destinations))

    def _store(self, uri: str) -> Store:
        address, own = split_settings(uri)
        store = Store(address, own, self.model_copy(update={"to": address}))
        with store.named():
            for name, value in own.items():
                setattr(store.config, name, value)
        return store

    @property
    def shown_to(self) -> str:
        """``to`` without credentials."""
        return ", ".join(map(redact, self.destinations))

    @property
    def own_fingerprints(self) -> Mapping[str, str]:
        """What a job of another kind says besides of what may not change from run to run; by name, in words."""
        return {}

    def spelled(self) -> AbstractContextManager[None]:
        """While the block runs, errors about a setting call it as the user did who said it: see `messages`."""
        return spelled(self._spelling.names)

    @property
    def policies(self) -> Mapping[Stage, Policy]:
        """What a failure leads to, for each stage."""
        return {**_POLICIES, **self.on_failure}

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str], **values: Any) -> Self:
        """The configuration in a YAML file, with ``values`` laid over it.

        Args:
            path: a file whose keys are the fields, or sections of them (see `sections`).
            **values: fields that win over the file's.

        Raises:
            ConfigError: the file cannot be read, a key is no field, or a value is not allowed; names file and line.
        """
        above, _ = flattened(values)
        found = read_yaml(path)
        with spelled(found.spelling):  # also of a name that no section has
            flat, said = flattened(found.values)
        names = found.spelling | {field: found.spelling.get(dotted, dotted) for field, dotted in said.items()}
        with spelled({name: how for name, how in names.items() if name.split(".")[0] not in above}):
            return cls(**merged(flat, above))
