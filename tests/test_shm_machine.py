"""The ring's protocol as a state machine: any order of writing, reading, dying, being late, giving up.

The contract, held after every step:

* each slot is in one state, and the states sum up to the ring;
* a slot is never granted twice at a time, a generation never twice at all;
* a reader whose ``check`` passes sees one whole generation, the one it was told about;
* a writer that lost its slot and writes on is noticed, by the reader or by itself;
* nobody ever waits for a dead process.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.errors import StaleSlotError
from penstock.preprocess.slot_layout import pixel_layout
from penstock.shm import Grant, Ring, SlotState, SlotTable
from penstock.tests.searching import searching

LAYOUT = pixel_layout(4, (2, 3), "float32", 2)
FREE, GRANTED, READY, EMBEDDING, QUARANTINED = SlotState


@dataclass
class Header:
    """What the header of a slot must say."""

    writing: int = 0
    ready: int = 0
    rows: int = 0


class Protocol(RuleBasedStateMachine):
    """A parent, its worker, dead workers' ghosts that write late, and a model of what must be true."""

    @initialize(slots=st.integers(1, 4))
    def build(self, slots: int) -> None:
        self.folder = tempfile.mkdtemp()
        self.ring = Ring.create(LAYOUT, slots, directory=self.folder)
        self.worker = Ring.attach(os.dup(self.ring.fd), LAYOUT, slots)
        self.table = SlotTable(slots)
        self.headers = [Header() for _ in range(slots)]
        self.granted: dict[Grant, str] = {}  # what the worker has done: nothing, begun, half, committed
        self.ready: dict[Grant, int] = {}  # with rows
        self.quarantined: dict[Grant, int] = {}
        self.ghosts: list[Grant] = []
        self.generations: set[int] = set()

    def teardown(self) -> None:
        self.worker.close()
        self.ring.close()
        Path(self.folder).rmdir()  # fails unless it is empty

    # -- the parent grants ------------------------------------------------------------------------------------------

    @rule()
    def grant(self) -> None:
        grant = self.table.grant()
        taken = [each.slot for each in (*self.granted, *self.ready, *self.quarantined)]
        if grant is None:
            assert len(taken) == len(self.table)
            return
        assert grant.slot not in taken
        assert grant.generation not in self.generations
        self.generations.add(grant.generation)
        self.granted[grant] = "nothing"

    # -- the worker writes, in steps between which anything may happen ----------------------------------------------

    def at(self, step: str) -> list[Grant]:
        return [grant for grant, done in self.granted.items() if done == step]

    @precondition(lambda self: self.at("nothing"))
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        grant = data.draw(st.sampled_from(self.at("nothing")))
        self.worker.begin(grant.slot, grant.generation)
        self.headers[grant.slot].writing = grant.generation
        self.granted[grant] = "begun"
        assert self.ring.progress(grant.slot, grant.generation) == (True, None)

    @precondition(lambda self: self.at("begun"))
    @rule(data=st.data())
    def write_half(self, data: st.DataObject) -> None:
        grant = data.draw(st.sampled_from(self.at("begun")))
        self.worker.mark(grant.slot, 1)
        self.worker.view(grant.slot)["pixels"][:2] = grant.generation
        self.granted[grant] = "half"
        assert self.ring.progress(grant.slot, grant.generation) == (
            self.headers[grant.slot].writing == grant.generation,
            1 if self.headers[grant.slot].writing == grant.generation else None,
        )

    @precondition(lambda self: self.at("half"))
    @rule(data=st.data(), rows=st.integers(0, 4))
    def write_the_rest_and_commit(self, data: st.DataObject, rows: int) -> None:
        grant = data.draw(st.sampled_from(self.at("half")))
        view, header = self.worker.view(grant.slot), self.headers[grant.slot]
        view["pixels"][...] = grant.generation
        view["embeddings"][...] = -grant.generation
        if header.writing != grant.generation:  # a ghost came between
            with pytest.raises(StaleSlotError):
                self.worker.commit(grant.slot, grant.generation, rows)
            self.worker.begin(grant.slot, grant.generation)
            header.writing = grant.generation
        self.worker.commit(grant.slot, grant.generation, rows)
        header.ready, header.rows = grant.generation, rows
        self.granted[grant] = "committed"

    @precondition(lambda self: self.at("committed"))
    @rule(data=st.data())
    def tell(self, data: st.DataObject) -> None:
        grant = data.draw(st.sampled_from(self.at("committed")))
        del self.granted[grant]
        rows = self.headers[grant.slot].rows
        self.table.ready(grant, rows)
        self.ready[grant] = rows

    @rule()
    def do_a_whole_task(self) -> None:
        """The usual case, so that there is often something to be late for."""
        grant = self.table.grant()
        if grant is None:
            return
        self.generations.add(grant.generation)
        self.worker.begin(grant.slot, grant.generation)
        self.worker.view(grant.slot)["pixels"][...] = grant.generation
        self.worker.view(grant.slot)["embeddings"][...] = -grant.generation
        self.worker.commit(grant.slot, grant.generation, 4)
        self.headers[grant.slot] = Header(grant.generation, grant.generation, 4)
        self.table.ready(grant, 4)
        self.ready[grant] = 4

    # -- deaths, and what comes late --------------------------------------------------------------------------------

    @rule()
    def kill_the_worker(self) -> None:
        lost = self.table.reclaim()
        assert lost == sorted(self.granted, key=lambda grant: grant.generation)
        self.ghosts.extend(lost)
        self.granted.clear()

    @precondition(lambda self: self.ghosts)
    @rule(data=st.data(), commits=st.booleans())
    def a_ghost_writes(self, data: st.DataObject, commits: bool) -> None:
        """A worker that does not know that it lost its slot does its task from the start."""
        grant = data.draw(st.sampled_from(self.ghosts))
        header = self.headers[grant.slot]
        self.worker.begin(grant.slot, grant.generation)
        self.worker.view(grant.slot)["pixels"][:3] = -7
        header.writing = grant.generation
        if commits:
            self.worker.commit(grant.slot, grant.generation, 3)
            header.ready, header.rows = grant.generation, 3

    @precondition(lambda self: self.ghosts)
    @rule(data=st.data())
    def a_ghost_speaks(self, data: st.DataObject) -> None:
        grant = data.draw(st.sampled_from(self.ghosts))
        before = self.table.counts()
        with pytest.raises(RuntimeError):
            self.table.ready(grant, 1)
        with pytest.raises(RuntimeError):
            self.table.release(grant)
        assert self.table.counts() == before

    # -- the parent reads, gives back, gives up ---------------------------------------------------------------------

    @precondition(lambda self: self.ready)
    @rule(data=st.data())
    def embed(self, data: st.DataObject) -> None:
        grant = data.draw(st.sampled_from(list(self.ready)))
        if self.table.state(grant.slot) is READY:
            self.table.embedding(grant)
        assert self.table.state(grant.slot) is EMBEDDING

    @precondition(lambda self: self.ready)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        grant = data.draw(st.sampled_from(list(self.ready)))
        del self.ready[grant]
        self.table.release(grant)
        self.ghosts.append(grant)  # its former owner may be late as well

    @precondition(lambda self: self.ready)
    @rule(data=st.data())
    def quarantine(self, data: st.DataObject) -> None:
        grant = data.draw(st.sampled_from(list(self.ready)))
        self.quarantined[grant] = self.ready.pop(grant)
        self.table.quarantine(grant)

    @precondition(lambda self: self.quarantined)
    @rule(data=st.data())
    def lift(self, data: st.DataObject) -> None:
        grant = data.draw(st.sampled_from(list(self.quarantined)))
        del self.quarantined[grant]
        self.table.lift(grant.slot)

    # -- always -----------------------------------------------------------------------------------------------------

    @invariant()
    def states_sum_up(self) -> None:
        counts = self.table.counts()
        assert sum(counts.values()) == len(self.table)
        assert counts[GRANTED] == len(self.granted)
        assert counts[READY] + counts[EMBEDDING] == len(self.ready)
        assert counts[QUARANTINED] == len(self.quarantined)

    @invariant()
    def no_half_slot_passes(self) -> None:
        for grant, done in self.granted.items():
            if done != "committed":
                with pytest.raises(StaleSlotError):
                    self.ring.check(grant.slot, grant.generation, self.headers[grant.slot].rows)

    @invariant()
    def what_passes_is_whole(self) -> None:
        for grant, rows in self.ready.items():
            assert self.table.rows(grant) == rows
            header = self.headers[grant.slot]
            if header != Header(grant.generation, grant.generation, rows):
                with pytest.raises(StaleSlotError):
                    self.ring.check(grant.slot, grant.generation, rows)
            else:
                self.ring.check(grant.slot, grant.generation, rows)
                view = self.ring.view(grant.slot)
                assert (view["pixels"] == grant.generation).all()
                assert (view["embeddings"] == -grant.generation).all()


Protocol.TestCase.settings = searching(200, stateful_step_count=40)
TestProtocol = pytest.mark.slow(Protocol.TestCase)
