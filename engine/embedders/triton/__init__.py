"""Models on Triton Inference Servers: ``triton+http://host:port[,host:port...]/model`` and ``triton+grpc://...``."""

from .address import Address, HostPort, read_address
from .embedder import TritonEmbedder, make_triton

__all__ = ["Address", "HostPort", "TritonEmbedder", "make_triton", "read_address"]
