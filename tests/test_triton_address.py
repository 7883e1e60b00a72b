"""Addresses of models on Triton servers: what can be written, and what is refused."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.embedders import parse_embedder
from penstock.engine.embedders.triton import Address, HostPort, read_address
from penstock.errors import ConfigError

NAMES = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789_-. é%?&=", min_size=1, max_size=12)
HOSTS = st.builds(
    HostPort, st.sampled_from(["localhost", "10.0.0.7", "gpu-1.example.org", "::1"]), st.integers(1, 65535)
)
ADDRESSES = st.builds(
    Address,
    protocol=st.sampled_from(["http", "grpc"]),
    servers=st.lists(HOSTS, min_size=1, max_size=3, unique=True).map(tuple),
    model=NAMES.filter(lambda name: name.strip("/") == name),
    version=st.none() | st.integers(1, 99).map(str),
    input=st.none() | NAMES,
    output=st.none() | NAMES,
    concurrency=st.none() | st.integers(1, 64),
    timeout=st.sampled_from([0.5, 30.0, 90.0]),
    patience=st.sampled_from([2.0, 120.0]),
    shm=st.sampled_from(["auto", "off"]),
    dimension=st.none() | st.integers(1, 4096),
)


@settings(max_examples=150, deadline=None)
@given(ADDRESSES)
def test_an_address_is_read_back_from_its_own_spec(address: Address) -> None:
    """A worker, or a resumed job, makes the same embedder from the string."""
    embedder = parse_embedder(address.spec)
    assert embedder.spec == address.spec
    assert embedder.name == f"triton:{address.model}"


def test_several_servers_ports_and_options_are_read() -> None:
    """All that can be written, at once."""
    options = {"version": "3", "input": "IMAGE", "timeout": "2.5", "shm": "off", "concurrency": "4"}
    assert read_address("http", "//a:8000,[::1]:81,b/clip%20vit", options) == Address(
        "http",
        (HostPort("a", 8000), HostPort("::1", 81), HostPort("b", 8000)),
        "clip vit",
        version="3",
        input="IMAGE",
        timeout=2.5,
        shm="off",
        concurrency=4,
    )


def test_ports_default_to_tritons_own() -> None:
    """8000 for HTTP, 8001 for gRPC."""
    assert read_address("http", "//a/m", {}).servers == (HostPort("a", 8000),)
    assert read_address("grpc", "//a/m", {}).servers == (HostPort("a", 8001),)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("triton+http:localhost:8000/m", "write triton"),
        ("triton+http://localhost:8000", "write triton"),
        ("triton+http://localhost:8000/", "write triton"),
        ("triton+http://localhost:8000/a/b", "write triton"),
        ("triton+http:///m", "no host:port"),
        ("triton+http://h:0/m", "no host:port"),
        ("triton+http://h:65536/m", "no host:port"),
        ("triton+http://h:x/m", "no host:port"),
        ("triton+http://::1:8000/m", "no host:port"),
        ("triton+http://h:1,/m", "no host:port"),
        ("triton+http://h:1,h:1/m", "named twice"),
        ("triton+http://me:secret@h:1/m", "no user or password"),
        ("triton+http://h:1/m?timeout=0", "timeout='0'"),
        ("triton+http://h:1/m?timeout=nan", "timeout='nan'"),
        ("triton+http://h:1/m?patience=-1", "patience='-1'"),
        ("triton+http://h:1/m?concurrency=0", "concurrency='0'"),
        ("triton+http://h:1/m?dimension=1.5", "dimension='1.5'"),
        ("triton+http://h:1/m?version=new", "version='new'"),
        ("triton+http://h:1/m?shm=yes", "auto or off"),
        ("triton+http://h:1/m?input=", "input= is empty"),
        ("triton+http://h:1/m?tokens=1", "no option 'tokens'"),
        ("triton://h:1/m", "did you mean 'triton"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(spec: str, message: str) -> None:
    """Each mistake is named, before any server is asked."""
    with pytest.raises(ConfigError, match=message):
        parse_embedder(spec)


def test_a_password_is_not_repeated_in_the_message() -> None:
    """Messages are logged."""
    with pytest.raises(ConfigError) as caught:
        parse_embedder("triton+grpc://me:secret@h:1/m")
    assert "secret" not in str(caught.value)


def test_grpc_without_its_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an optional part; HTTP needs none of it."""
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    with pytest.raises(ConfigError, match=r"pip install 'penstock\[triton\]'"):
        _ = parse_embedder("triton+grpc://127.0.0.1:9/m").wants


@pytest.mark.parametrize("rest", ["//u:s3cret@h:8000", "//u:s3cret@h/m?bad=1", "//u:s3c/ret@h/m", "//h/m@s3cret"])
def test_a_secret_in_an_address_is_in_no_message(rest: str) -> None:
    """Also where the address has other faults."""
    with pytest.raises(ConfigError, match="no user or password") as caught:
        parse_embedder(f"triton+http:{rest}")
    assert "s3c" not in str(caught.value)
