"""What keeps a start short: the order of things between the start of a process and its first batch.

No test here measures time: each pins what somebody waited for needlessly before.
"""

from __future__ import annotations

from pathlib import Path

from penstock.preprocess import preset
from penstock.shm import Zygote
from penstock.tests.children import hear

SPEC = preset("clip", size=32)


def test_what_is_preloaded_is_imported_without_collections_and_left_alone_by_those_of_children(entries: str) -> None:
    """All of it stays, so a collection finds nothing; in a child it would copy every page of what was imported."""
    Path(entries, "shm_preload.py").write_text("import gc; collecting = gc.isenabled()")
    Path(entries, "shm_collects.py").write_text(
        "import gc, shm_preload\n"
        "from penstock.shm import send_frame\n"
        "def tell(sock, argument, fds):\n"
        "    send_frame(sock, b'%d %d %d' % (shm_preload.collecting, gc.isenabled(), gc.get_freeze_count() > 1000))\n"
    )
    with Zygote(["shm_preload"]) as zygote, zygote.fork("shm_collects:tell") as child:
        assert hear(child) == b"0 1 1"
