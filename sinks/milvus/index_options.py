"""The vector index: which types and parameters can be, told before a server is asked (Milvus Lite takes anything)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from ...errors import ConfigError

Number = int | float | str

_MANY = 2**31 - 1
_NLIST = {"nlist": (1, 65_536)}
_HNSW = {"M": (2, 2048), "efConstruction": (1, _MANY)}
_PQ = {"m": (1, 65_536), "nbits": (1, 24)}
_REFINE: dict[str, tuple[int, int] | None] = {"refine": None, "refine_type": None}

_TYPES: Mapping[str, Mapping[str, tuple[int, int] | None]] = {
    "AUTOINDEX": {},
    "FLAT": {},
    "IVF_FLAT": _NLIST,
    "IVF_SQ8": _NLIST,
    "IVF_PQ": {**_NLIST, **_PQ},
    "IVF_RABITQ": {**_NLIST, **_REFINE},
    "SCANN": {**_NLIST, "with_raw_data": None},
    "HNSW": _HNSW,
    "HNSW_SQ": {**_HNSW, "sq_type": None, **_REFINE},
    "HNSW_PQ": {**_HNSW, **_PQ, **_REFINE},
    "HNSW_PRQ": {**_HNSW, **_PQ, "nrq": (1, 16), **_REFINE},
    "DISKANN": {},
    "GPU_BRUTE_FORCE": {},
    "GPU_IVF_FLAT": _NLIST,
    "GPU_IVF_PQ": {**_NLIST, **_PQ},
    "GPU_CAGRA": {"intermediate_graph_degree": (1, _MANY), "graph_degree": (1, _MANY), "build_algo": None},
}
"""Index type -> its parameters -> the least and the most; None: not a number, the server judges."""

_REQUIRED = {"HNSW": ("M", "efConstruction"), "IVF_FLAT": ("nlist",), "IVF_SQ8": ("nlist",), "SCANN": ("nlist",)}
_DEFAULTS: Mapping[str, Number] = {"M": 16, "efConstruction": 200, "nlist": 1024}


def check_index(kind: str, params: Mapping[str, Number]) -> dict[str, Number]:
    """The parameters to build an index of this type with: the given ones, and what the type cannot do without.

    Raises:
        ConfigError: no such type, or parameters that it does not have.
    """
    if kind not in _TYPES:
        raise ConfigError(f"index: there is no type {kind!r:.60}{_near(kind.upper(), list(_TYPES))}")
    known = _TYPES[kind]
    for name, value in params.items():
        if name not in known:
            said = _near(name, list(known)) if known else "; it takes none"
            raise ConfigError(f"index_params: {kind} has no parameter {name!r:.60}{said}")
        limits = known[name]
        if limits and (not isinstance(value, int) or not limits[0] <= value <= limits[1]):
            raise ConfigError(f"index_params: {name}={value} is not possible, {limits[0]} to {limits[1]} is")
    # Milvus before 2.4 builds no HNSW and no IVF without being told these.
    return {name: _DEFAULTS[name] for name in _REQUIRED.get(kind, ())} | dict(params)


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
