"""Real servers on this machine, for the demo, the benchmarks and the tests. See the README beside this file."""

from ...errors import ServerError, ServerUnavailableError
from .milvus import MilvusLiteServer, MilvusServer, milvus_venv
from .repository import Tensor, add_model
from .s3 import MotoServer, S3Server, SeaweedServer
from .triton import TritonServer, triton_venv
from .venvs import server_venv

__all__ = [
    "MilvusLiteServer",
    "MilvusServer",
    "MotoServer",
    "S3Server",
    "SeaweedServer",
    "ServerError",
    "ServerUnavailableError",
    "Tensor",
    "TritonServer",
    "add_model",
    "milvus_venv",
    "server_venv",
    "triton_venv",
]
