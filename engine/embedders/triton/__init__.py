"""Models on Triton Inference Servers: ``triton+http://host:port[,host:port...]/model`` and ``triton+grpc://...``.

::

    address.py    the spec string and its options
    contract.py   what the model takes and gives: read from metadata and configuration, held against the pixels
    discovery.py  asking all servers for it before the start; they must agree
    embedder.py   TritonEmbedder: the face; splits a batch by the model's limit, bisects what it refuses, finds NaN
    endpoints.py  Fleet: the least loaded server that is well; waiting in line; taking out, probing, patience
    exchange.py   one request: in shared memory where the server maps it, else in the body
    regions.py    which segments a server has mapped for us; `owner.py`: names that say whose they are
    faults.py     what an error means: away, region lost, crashed, refused, misfit
    transport.py  what is needed of a connection; `over_http.py`, `over_grpc.py`: the two there are
    waiting.py    how to wait: in greenlets of a hub, or in threads that have none

**The life of one batch.** A greenlet of the engine calls ``embed(view, rows)``. It waits in line for the least loaded
server with room (two requests for each instance of the model). If the ring that the slot lies in is new to that server,
it is registered, once and whole; others who come meanwhile wait for that. The request of a few hundred bytes names
region, offsets and sizes; a greenlet of its own sends it and holds the view. Triton reads the pixels in the slot and
writes float32 vectors beside them. The answer's shape is checked, the hold ends, and vectors that are not finite are
refused by their row. The parent has copied nothing.

**When the server does not map our memory** (it refuses, it is remote, it lacks the extension), it is told by its answer
to the registration, never assumed; pixels then travel in the body, which is sent from the slot without a copy. That
is said once for each server.

**When no answer comes** within ``timeout``, the caller goes on to another server, or the same one later; the request is
left under way, with its hold, because the server may still read and write the slot. The hold ends with the late answer,
with the proof that the server's process is gone (connection refused), or when the server has let go of all our regions,
which it refuses while a request uses one. Requests given up keep their place in the server's count, so a server that is
merely slow is not buried under repetitions.

**Threads and hubs.** `start_in_hub` makes the connections for greenlets; they and all state around them belong to that
thread, until `stop_in_hub` unregisters and closes. Any other thread that calls ``embed`` gets blocking sockets and the
in-band way, with states of its own, and no hub. HTTP needs nothing beyond gevent; gRPC needs ``penstock[triton]`` and
runs in threads.
"""

from .address import Address, HostPort, read_address
from .embedder import TritonEmbedder, make_triton

__all__ = ["Address", "HostPort", "TritonEmbedder", "make_triton", "read_address"]
