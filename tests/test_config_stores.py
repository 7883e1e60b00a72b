"""Settings of one store among several: how they are said, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock import ConfigError, ServiceConfig, embed_images
from penstock.engine.cli import main
from penstock.engine.config.stores import split_settings, with_settings
from penstock.engine.jobs.common.sink_factory import job_sink
from penstock.sinks import MilvusSink, SinkOptions, make_sink

OWN: dict[str, Any] = {
    "collection": "a b&c+d?",
    "index": "HNSW",
    "index_params": {"M": 16, "efConstruction": 200},
    "fields": {"year": "int64", "album": "varchar(256)"},
    "retry_for": 5,
}
ADDRESS = (
    "photos.db?collection=a b%26c%2Bd%3F&index=HNSW&index_params=M=16,efConstruction=200"
    "&fields=year:int64,album:varchar(256)&retry_for=5"
)


def test_they_stand_behind_the_address_or_with_it_in_a_mapping(tmp_path: Path) -> None:
    """In a file and in Python a mapping is another way to write the address."""
    yaml = tmp_path / "job.yaml"
    yaml.write_text("collection: all\nsinks: [{to: photos.db, collection: x, index_params: {M: 16}}, 'null:']\n")
    (store, other) = ServiceConfig.from_yaml(yaml).stores
    assert (store.address, store.config.collection, store.config.index_params) == ("photos.db", "x", {"M": 16})
    assert (other.address, other.config.collection) == ("null:", "all")
    config = ServiceConfig(to={"to": Path("photos.db"), **OWN})
    assert config.to == ADDRESS
    assert ServiceConfig(to=ADDRESS) == config == ServiceConfig(to=config.to)
    ((address, own, one),) = [(store.address, store.own, store.config) for store in config.stores]
    assert address == "photos.db"
    assert with_settings(address, own) == ADDRESS
    assert {name: getattr(one, name) for name in OWN} == OWN


def test_what_a_store_does_not_have_for_itself_is_the_jobs() -> None:
    """And what it has is not the others'."""
    config = ServiceConfig(to=["a.db?metric=l2", "b.db"], metric="IP", retry_for=7)
    assert [(store.config.metric, store.config.retry_for) for store in config.stores] == [("L2", 7), ("IP", 7)]
    assert config.metric == "IP"


@pytest.mark.parametrize(
    ("address", "apart"),
    [
        ("acme:x?metric=L2&depth=3", ("acme:x?depth=3", {"metric": "L2"})),
        ("what?.db", ("what?.db", {})),
        ("a?b", ("a?b", {})),
        ("a.db?partition=", ("a.db", {"partition": ""})),
        ("https://h/d?collection=x%20y", ("https://h/d", {"collection": "x y"})),
    ],
)
def test_what_is_no_setting_stays_with_the_address(address: str, apart: tuple[str, dict[str, str]]) -> None:
    """Options of a plugin's own are its own to judge; a question mark alone says nothing."""
    assert split_settings(address) == apart


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("a.db?colection=x", "to: 'a.db': colection: no such setting of a store; did you mean collection?"),
        ({"to": "bulk:d", "colour": 3}, "to: 'bulk:d': colour: no such setting of a store; there are collection,"),
        ("null:?dimension=3", "to: 'null:': dimension: no such setting of a store; there are collection,"),
        ("a.db?metric=X", "to: 'a.db': metric: 'X' is not allowed: must be 'COSINE', 'L2' or 'IP'"),
        ("a.db?retry_for=0", "to: 'a.db': retry_for: '0' is not allowed: must be greater than 0"),
        ("a.db?index=HNSWW", "to: 'a.db': index: there is no type 'HNSWW'"),
        ("a.db?fields=1x:int64", "to: 'a.db': fields: '1x' is no name of a column"),
        ("bulk:d?partition=p", "to: 'bulk:d': partition: bulk:d has none"),
        ("parquet:d?collection=x", "to: 'parquet:d': collection: parquet:"),
        ("npy:d?collection=x", "to: 'npy:d': collection: npy:"),
        ("parquet:d?rows=5", "to: 'parquet:d': rows: no such setting of a store"),
        ("npy:d?rows=5", "to: 'npy:d': rows: no such setting of a store"),
        ("lance:d?rows=5", "to: 'lance:d': rows: no such setting of a store"),
        ("a.db?metric=L2&metric=IP", "to: metric: is given twice for one store"),
        ({"collection": "x"}, "to: each store needs its address, as in {to: photos.db, collection: a}"),
    ],
)
def test_what_cannot_be_is_refused_by_the_name_of_its_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: Any, said: str
) -> None:
    """Before anything starts; and what is wrong with a setting of the job names no store."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    with pytest.raises(ConfigError) as caught:
        embed_images("pictures", config=ServiceConfig(to=["null:", to]))
    assert str(caught.value).startswith(said)
    with pytest.raises(ConfigError, match=r"^index: there is no type 'X'"):
        job_sink(ServiceConfig(to="a.db?collection=x", index="X"))
    assert not [path for path in tmp_path.iterdir() if path.name != "pictures"]


@pytest.mark.parametrize("to", ["https://h?token=s3cret", {"to": "https://h", "token": "s3cret"}])
def test_a_secret_is_no_setting_of_a_store(to: Any) -> None:
    """It would be in every message and in the job's books."""
    with pytest.raises(ConfigError, match=r"^to: token: .* https://user:password@host$") as caught:
        ServiceConfig(to=["null:", to])
    assert "s3cret" not in str(caught.value)


def test_the_secret_in_an_address_is_that_of_its_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is for the others; an option is for all."""
    monkeypatch.setenv("MILVUS_TOKEN", "of:others")
    to = ["https://own:secret@h1", "https://h2"]

    def tokens(config: ServiceConfig) -> list[str]:
        members = [member for member in job_sink(config).members if isinstance(member, MilvusSink)]
        return [member._connection.target.token for member in members]  # pyright: ignore[reportPrivateUsage]

    assert tokens(ServiceConfig(to=to)) == ["own:secret", "of:others"]
    assert tokens(ServiceConfig(to=to, token="all:the same")) == ["all:the same"] * 2


def test_a_refusal_is_spelled_as_the_store_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its option, by the line of its file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    assert main(["embed", "pictures", "--to", "null:", "--to", "a.db?metric=X"]) == 2
    assert "penstock: --to: 'a.db': metric: 'X' is not allowed" in capsys.readouterr().err
    (tmp_path / "job.yaml").write_text("workers: 1\nsinks:\n- 'null:'\n- {to: a.db, index: HNSWW}\n")
    assert main(["embed", "pictures", "--config", "job.yaml"]) == 2
    assert "penstock: job.yaml, line 2: sinks: 'a.db': index: there is no type" in capsys.readouterr().err
    assert main(["search", "a.db?metric=X", "a.jpg"]) == 2
    assert "penstock: URI: 'a.db': metric: 'X' is not allowed" in capsys.readouterr().err


def test_a_factory_is_given_the_address_alone(tmp_path: Path) -> None:
    """Each store gets its own options, and a collection that is asked for by name is that in all of them."""
    config = ServiceConfig(to=[f"bulk:{tmp_path}?collection=mine", "null:"])
    assert [member.fingerprint for member in job_sink(config).members] == [
        f"bulk:{tmp_path} collection mine",
        "null: collection images",
    ]
    with pytest.raises(ConfigError, match=r"^uri: 'bulk:x': collection: no such setting"):
        make_sink("bulk:x?collection=a", SinkOptions())
