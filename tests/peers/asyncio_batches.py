#!/usr/bin/env python3
"""The asyncio chat server once more, with one change: it batches, as ours does.

    python3 tests/peers/asyncio_batches.py --port 0

What is told to all waits until the loop comes round. By then more may have come; all
of it together becomes one `write` a person. Everything else is asyncio_streams.py,
so what the figures of the two differ by is what batching is worth.
"""
import asyncio

from asyncio_streams import Room, encode, main

BOUND = 2 * 1024 * 1024     # of bytes that may wait for one person, as in ours


class BatchingRoom(Room):
    title = "asyncio batches"

    def __init__(self):
        super().__init__()
        self.pending = []           # lines for all that nobody has yet
        self.starts = {}            # newcomer -> where in pending their lines begin

    async def tell(self, message, newcomer=None):
        if not self.pending:        # the bell has not rung for this round
            asyncio.get_running_loop().call_soon(self.flush)
        self.pending.append(encode(message))
        if newcomer:                # what is older, and their own joined, is not theirs
            self.starts[newcomer] = len(self.pending)

    def flush(self):
        """One write a person for all that has come since the last round."""
        lines, self.pending = self.pending, []
        starts, self.starts = self.starts, {}
        batch = b"".join(lines)
        for person in self.people.values():
            start = starts.get(person, 0)
            data = b"".join(lines[start:]) if start else batch
            transport = person.writer.transport
            if data and not transport.is_closing():
                transport.write(data)
                # Nobody waits in a drain() here, so this is what bounds the memory.
                if transport.get_write_buffer_size() > BOUND:
                    person.reason = "too_slow"
                    transport.abort()

    async def send(self, person, message):
        if person.key:              # what they were told before comes before this
            self.flush()
        await super().send(person, message)


if __name__ == "__main__":
    main(BatchingRoom())
