"""Models on Triton Inference Servers: ``triton+http://host:port[,host:port...]/model`` and ``triton+grpc://...``.

::

    address.py    the spec string and its options
    model_spec.py what the model takes and gives: read from metadata and configuration, held against the pixels
    discovery.py  asking all servers for it before the start; they must agree
    embedder.py   TritonEmbedder: the face; splits a batch by the model's limit, bisects what it refuses, finds NaN
    endpoint_pool.py EndpointPool: the least loaded server that is well; waiting in line; taking out, probing, patience
    exchange.py   one request: in shared memory where the server maps it, else in the body
    regions.py    which segments a server has mapped for us; `owner.py`: names that say whose they are
    processes.py  which processes have a segment mapped: the proof that a server can write there no more
    errors.py     what an error means: away, region lost, crashed, refused, misfit
    transport.py  what is needed of a connection; `over_http.py`, `over_grpc.py`: the two there are
    io_backend.py how to wait: in greenlets of a hub, or in threads that have none

**The life of one batch.** A greenlet of the engine calls ``embed(view, rows)``. It waits in line for the least loaded
server with room (two requests for each instance of the model). If the ring that the slot lies in is new to that server,
it is registered, once and whole; others who come meanwhile wait for that. The request of a few hundred bytes names
region, offsets and sizes; a greenlet of its own sends it and pins the view. Triton reads the pixels in the slot and
writes float32 vectors beside them. The answer's shape is checked, the pin ends, and vectors that are not finite are
refused by their row. The parent has copied nothing.

**When the server does not map our memory** (it refuses, it is remote, it lacks the extension), it is told by its answer
to the registration, never assumed; pixels then travel in the body, which is sent from the slot without a copy. That
is said once for each server.

**When no answer comes** within ``timeout``, the caller goes on to another server, or the same one later; the request is
left under way, with its pin, because the server may still write to the slot. The pin ends with the late answer, or
when the server's process is seen to have the segment mapped no more: it has unregistered it, which waits for the
requests that use it, or it is dead. What an address answers, or that it refuses, proves nothing: a proxy may stand
there. Until then the segment's other batches travel in bodies. A server whose process cannot be seen is not let write
at all: its vectors come in the answer. Requests given up keep their place in the server's count, so a server that is
merely slow is not buried under repetitions.

**When a server dies of a request** (its model's process, or all of it), whoever was under way there is repeated alone,
and a server is trusted again when it has embedded black pictures. What kills it twice alone is to blame, and bisected.
Where every row of a batch is refused in the same words, black pictures tell whether it is the model: its server is out
then, like one that is away.

**Threads and hubs.** `start_in_hub` makes the connections for greenlets; they and all state around them belong to that
thread, until `stop_in_hub` unregisters and closes. Any other thread that calls ``embed`` gets blocking sockets and the
in-band way, with states of its own, and no hub. HTTP needs nothing beyond gevent; gRPC needs ``penstock[triton]`` and
runs in threads.
"""

from .address import Address, HostPort, read_address
from .embedder import TritonEmbedder, make_triton

__all__ = ["Address", "HostPort", "TritonEmbedder", "make_triton", "read_address"]
