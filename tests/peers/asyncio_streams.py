#!/usr/bin/env python3
"""The most natural asyncio chat server, to measure ours against.

    python3 tests/peers/asyncio_streams.py --port 0

It speaks as much of PROTOCOL.md as a crowd needs: hello, chat to all, list, bye.
No history, no private lines, no files, no coming back: all that would only make it
slower. It is written as asyncio's documentation would do it: `start_server`, one
coroutine a person, and for each message a `write` to everybody and a `drain`.

What we chose, so that it is as fast as this way can be:
- A message becomes JSON once, not once a person, and with `json.dumps` as it is:
  told to leave the spaces out, it would set up a new encoder for every message.
- First the `write` to all, then the `drain` of all. Between two writes there is no
  `await`, so everybody sees the same order. `gather` would wait for all drains at
  once, but it makes a task of each: 100 people got less than half as much (measured),
  since nearly all drains have nothing to wait for. Without any, it was a tenth more.
- asyncio sets TCP_NODELAY by itself; the backlog is ours.

Python 3.10.6 or newer for people who read slowly: before, two coroutines could not
wait in the `drain` of the same person.
"""
import argparse
import asyncio
import json
import re
import secrets
import signal
from datetime import datetime, timezone


class Person:
    """Somebody with a connection; `key` is None until hello has been said."""

    def __init__(self, writer):
        self.writer, self.key, self.name, self.color = writer, None, None, 0
        self.reason = "lost"


class Room:
    title = "asyncio streams"

    def __init__(self):
        self.people = {}                    # casefolded name -> Person
        self.last_id = 0
        self.history = secrets.token_urlsafe(8)

    async def meet(self, reader, writer):
        """One person, from the first line to the last."""
        person = Person(writer)
        try:
            while line := await reader.readline():
                if line.strip():
                    await self.obey(person, line)
        except (ConnectionError, ValueError):
            pass                            # ValueError: a line without an end
        finally:
            if person.key:
                del self.people[person.key]
                await self.tell({"type": "left", "name": person.name,
                                 "reason": person.reason, "time": utc_now()})
            writer.close()

    async def obey(self, person, line):
        try:
            message = json.loads(line)
            obey = getattr(self, f"on_{message['type']}", None)
            if obey is None:
                await self.refuse(person, "unknown_type", "What is that?")
            elif not person.key and message["type"] != "hello":
                await self.refuse(person, "hello_first", "Say hello first.")
            else:
                await obey(person, message)
        except (ValueError, KeyError, TypeError, AttributeError):
            await self.refuse(person, "bad_message", "Not a message of the protocol.")

    async def on_hello(self, person, message):
        name = message["name"]
        if person.key:
            raise ValueError("hello again")
        if not re.fullmatch(r"[^\W_][\w.-]{0,19}", name):
            return await self.refuse(person, "bad_name", "Choose another name.")
        if name.casefold() in self.people:
            return await self.refuse(person, "name_taken", "Choose another name.")
        # From here to `tell` nothing waits: no line can come between a welcome and
        # what its reader sees next.
        person.name, person.color = name, sum(name.encode()) % 12
        person.writer.write(encode(self.welcome(person)))
        person.key = name.casefold()
        self.people[person.key] = person
        await self.tell({"type": "joined", "name": name, "color": person.color,
                         "time": utc_now()}, newcomer=person)

    def welcome(self, person):
        return {
            "type": "welcome", "name": person.name, "color": person.color,
            "session": secrets.token_urlsafe(16), "resumed": False, "gap": False,
            "people": self.who() + [{"name": person.name, "color": person.color}],
            "count": len(self.people) + 1, "last_id": self.last_id,
            "history": self.history, "server": f"{self.title} 1",
            "limits": {"line": 65536, "text": 4000, "file": 0}, "time": utc_now()}

    def who(self):
        return [{"name": person.name, "color": person.color}
                for person in list(self.people.values())[:499]]

    async def on_chat(self, person, message):
        text = message["text"].strip()
        if "to" in message or not 1 <= len(text) <= 4000:
            return await self.refuse(person, "bad_text", "Say 1 to 4,000 letters.")
        self.last_id += 1
        chat = {"type": "chat", "id": self.last_id, "from": person.name,
                "color": person.color, "text": text, "time": utc_now()}
        if "ref" in message:
            chat["ref"] = message["ref"]
        await self.tell(chat)

    async def on_list(self, person, message):
        await self.send(person, {
            "type": "people", "people": self.who(), "count": len(self.people)})

    async def on_bye(self, person, message):
        person.reason = "bye"
        await self.send(person, {"type": "goodbye", "reason": "bye", "text": "Bye."})
        person.writer.close()               # then readline() finds the end

    async def refuse(self, person, code, text):
        await self.send(person, {"type": "error", "code": code, "text": text})

    async def send(self, person, message):
        """To one person alone."""
        person.writer.write(encode(message))
        await person.writer.drain()

    async def tell(self, message, newcomer=None):
        """To everybody but the newcomer: the heart of it, and what is measured."""
        line = encode(message)
        others = [person for person in self.people.values()
                  if person is not newcomer and not person.writer.is_closing()]
        for person in others:
            person.writer.write(line)       # one send() a message and person
        for person in others:
            try:
                await person.writer.drain()     # waits for who is slow to read
            except ConnectionError:
                pass                        # their own coroutine sees it too


def encode(message):
    return json.dumps(message).encode() + b"\n"


def utc_now():
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    return now.replace("+00:00", "Z")


async def serve(room, port):
    # backlog: as many may knock at once as at ours. asyncio's own 100 would make some
    # of 1,000 wait a second until their system knocks again.
    server = await asyncio.start_server(room.meet, "127.0.0.1", port, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    print(f"{room.title} server is listening on 127.0.0.1:{port}", flush=True)
    async with server:
        await server.serve_forever()


def main(room):
    parser = argparse.ArgumentParser(description="A chat server to measure against.")
    parser.add_argument("--port", type=int, default=9999, help="0: any free one")
    # Nothing is to be saved, so Ctrl+C ends it at once. As a KeyboardInterrupt it would
    # wait until everybody has left (3.12) or show a traceback of each (3.11).
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(serve(room, parser.parse_args().port))


if __name__ == "__main__":
    main(Room())
