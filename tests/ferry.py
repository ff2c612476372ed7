#!/usr/bin/env python3
"""A ferry: how fast do files travel, and how late is a chat line beside them?

    python3 tests/ferry.py                     a file of 10 MiB, up and down
    python3 tests/ferry.py 10 --downloads 10   fetched by ten people at once
    python3 tests/ferry.py --port 9999         with the server that runs there

One person sends files, others fetch one of them again and again, each in a process of
its own, and four people chat meanwhile. Each of their lines says when it was sent (the
clock is the same for all programs of a computer), so whoever reads it knows how long it
took; the people at the files read theirs between two chunks. Who fetches checks each
offset and each hash, and is measured in two ways of asking for the next 8 chunks:

    when all 8 have come      simple, but then nothing is on its way for a moment
    when 4 of 8 have come     as our client does it

The rate is that of all files together, in MB/s (1,000,000 bytes), from the first
request to the last byte decoded and checked. Before you believe a figure, see who was
busy, the server or we, and how late a chat line is when nobody moves a file.
"""
import argparse
import base64
import collections
import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import re
import secrets
import socket
import statistics
import sys
import time
from pathlib import Path

from crowd import OURS, Options, number
from dialects import NoStart, Trouble
from measuring import Delays, Server, clock, usage
from parcels import AHEAD, CHUNK, TURN
from people import Person

TALKERS = 4
PATIENCE = 30               # seconds for an answer; then it is lost
# Less of the processors for those who fetch, if they are several: here they would keep
# the server from running, which on computers of their own they could not.
NICE = 5
WAYS = {"when all 8 have come": TURN, "when 4 of 8 have come": TURN // 2}
Address = collections.namedtuple("Address", "host port tls")


# ------------------------------------------------------------------------------- people

class Passenger(Person):
    """Somebody who takes note how long each chat line has been on its way."""

    def __init__(self, address, name, tag):
        super().__init__(address, name, limit=PATIENCE)
        self.tag = tag              # of this run: others may talk there as well
        self.begin()

    def begin(self):
        self.delays = Delays()
        self.heard = collections.Counter()
        self.talking = TALKERS      # so many have not said yet that it is over

    def next(self, limit=PATIENCE):
        """The next message. A chat line is timed first, as a client would show it."""
        line = self.read_line(limit)
        if line is None:
            raise Trouble(f"{self.name} was cut off")
        message = json.loads(line)
        if message["type"] == "error":
            raise Trouble(f"{self.name} reads: {message['text']}")
        if message["type"] == "chat" and message["text"].startswith(self.tag):
            self.hear(message)
        return message

    def hear(self, message):
        author, (_, place, sent) = message["from"], message["text"].split()
        if int(place) != self.heard[author]:
            raise Trouble(f"{self.name} hears line {place} of {author} where line "
                          f"{self.heard[author]} is due")
        self.heard[author] += 1
        if sent == "over":
            self.talking -= 1
        else:
            self.delays.add(clock(), [int(sent)])

    def chat(self, delay, pause, seconds):
        """Talk so long, a line each `pause` seconds; listen until all have ended."""
        self.begin()
        due = time.monotonic() + delay
        end = due + seconds
        for place in itertools.count():
            self.listen_until(due)
            over = time.monotonic() >= end
            self.send({"type": "chat", "text": " ".join(
                [self.tag, str(place), "over" if over else str(clock())])})
            if over:
                break
            due += pause
        self.listen()
        return {"delays": self.delays}

    def only_listen(self):
        self.begin()
        self.listen()
        return {"delays": self.delays}

    def listen_until(self, moment):
        """Read what comes until then."""
        try:
            while (rest := moment - time.monotonic()) > 0:
                self.next(rest)
        except socket.timeout:
            pass

    def listen(self):
        while self.talking:
            self.next()

    # ---- files

    def report(self, start, size):
        """How it was; `size` bytes since `start` and until now."""
        end = clock()
        self.listen()
        return {"start": start, "end": end, "bytes": size, "delays": self.delays,
                "cpu": time.process_time() - self.cpu}

    def get_ready(self, size):
        """Make what is going to be sent: not while lines are timed."""
        self.data = bytearray(os.urandom(size))
        self.most_of_it = hashlib.sha256(self.data[:-8])

    def send_files(self, most):
        """Send one file after the other while the others talk, `most` at most."""
        self.begin()
        sent, self.cpu = 0, time.process_time()
        start = clock()
        while not sent or self.talking and sent < most:
            self.data[-8:] = secrets.token_bytes(8)     # no two are the same…
            whole = self.most_of_it.copy()              # …and hashed nearly at once
            whole.update(self.data[-8:])
            self.line = self.send_file(self.data, whole.hexdigest())
            sent += 1
        return self.report(start, sent * len(self.data))

    def send_file(self, data, sha256):
        """Send one file; return its `file` line."""
        self.send({"type": "upload", "ref": secrets.token_hex(8), "name": "ferry.bin",
                   "size": len(data), "sha256": sha256})
        ready, place = self.wait_for("upload_ready"), 0
        while True:
            if place < min(len(data), ready["offset"] + AHEAD * CHUNK):
                self.send_chunk(ready["file"], place, data[place:place + CHUNK])
                place += CHUNK
                continue
            message = self.wait_for("upload_ready", "file")
            if message["type"] == "file":
                return message
            ready = message

    def send_chunk(self, file, offset, piece):
        """By hand: to look for what JSON must escape in base64 takes longer than it."""
        self.send_raw(b'{"type":"chunk","file":%s,"offset":%d,"data":"%s"}\n' % (
            json.dumps(file).encode(), offset, base64.b64encode(piece)))

    def wait_for(self, *kinds):
        while (message := self.next())["type"] not in kinds:
            pass
        return message

    def line_of_file(self):
        return self.line

    def fetch_files(self, line, early):
        """Fetch this file again and again while the others talk."""
        self.begin()
        self.cpu, fetched = time.process_time(), 0
        start = clock()
        while not fetched or self.talking:
            self.fetch_file(line, early)
            fetched += 1
        return self.report(start, fetched * line["size"])

    def fetch_file(self, line, early):
        """Fetch it once; ask for 8 chunks more when `early` of the last 8 are here."""
        size, place, asked, came = line["size"], 0, 0, hashlib.sha256()
        while place < size:
            if asked < size and place >= asked - (TURN - early) * CHUNK:
                self.send({"type": "download", "file": line["file"], "offset": asked})
                asked += TURN * CHUNK
            message = self.wait_for("chunk")
            piece = base64.b64decode(message["data"])
            if message["offset"] != place or not piece:
                raise Trouble(f"{self.name} gets {len(piece)} bytes at "
                              f"{message['offset']} where byte {place} is due")
            came.update(piece)
            place += len(piece)
        if place != size or came.hexdigest() != line["sha256"]:
            raise Trouble(f"{self.name} has got other bytes than were sent")


def travel(pipe, nice, *who):
    """What one of the processes does: obey, until there is nothing more to obey."""
    try:
        if hasattr(os, "nice"):     # (Windows has none)
            os.nice(nice)
        with Passenger(*who) as passenger:
            pipe.send("is in")
            while order := pipe.recv():
                word, *values = order
                pipe.send(getattr(passenger, word)(*values))
            passenger.leave()
    except (Trouble, AssertionError) as problem:
        pipe.send(Trouble(str(problem)))
    except OSError as problem:
        pipe.send(Trouble(f"{who[1]} was cut off ({problem.strerror or problem})"))
    except (EOFError, KeyboardInterrupt):
        pass                        # our program has been stopped


class Process:
    """One passenger's process, as seen from here."""

    def __init__(self, nice, *who):
        self.pipe, other = multiprocessing.Pipe()
        self.process = multiprocessing.Process(
            target=travel, args=(other, nice, *who), daemon=True)
        self.process.start()
        other.close()               # so that we see it when that process has ended
        try:
            self.answer()
        except Trouble as trouble:
            raise NoStart(f"not everybody could come in: {trouble}") from None

    def order(self, *words):
        self.pipe.send(words)

    def ask(self, *words):
        self.order(*words)
        return self.answer()

    def answer(self):
        if not self.pipe.poll(4 * PATIENCE):
            raise Trouble("one of us has not come to an end")
        try:
            answer = self.pipe.recv()
        except EOFError:
            answer = Trouble("one of us has died")
        if isinstance(answer, Trouble):
            raise answer
        return answer

    def leave(self):
        with contextlib.suppress(OSError):      # it has ended already
            self.pipe.send(None)

    def close(self, limit):
        self.process.join(max(0, limit - time.monotonic()))
        self.process.kill()
        self.process.join()


# ------------------------------------------------------------------------- the crossing

class Ferry:
    """The people at one server, and what they do together."""

    def __init__(self, server, options):
        self.server, self.options, self.all = server, options, []

    def __enter__(self):
        address = Address(*self.server.address, self.server.tls)
        tag, nice = secrets.token_hex(4), NICE if self.options.downloads > 1 else 0
        try:
            for one in range(TALKERS):
                self.all.append(Process(0, address, f"Talker{one}", tag))
            for one in range(self.options.downloads):
                self.all.append(Process(nice, address, f"Loader{one}", tag))
        except BaseException:
            self.__exit__()
            raise
        self.talkers, self.loaders = self.all[:TALKERS], self.all[TALKERS:]
        return self

    def __exit__(self, *_):
        for process in self.all:
            process.leave()
        limit = time.monotonic() + 5
        for process in self.all:
            process.close(limit)

    def cross(self, loaders, *order):
        """These people do something with files while the talkers talk."""
        pause = TALKERS / self.options.rate
        before = usage(self.server.pid)
        others = [loader for loader in self.loaders if loader not in loaders]
        for loader in loaders:
            loader.order(*order)
        for other in others:
            other.order("only_listen")
        for place, talker in enumerate(self.talkers):
            talker.order("chat", place * pause / TALKERS, pause, self.options.seconds)
        talked = [other.answer() for other in self.talkers + others]
        loaded = [loader.answer() for loader in loaders]
        after = usage(self.server.pid)
        return Crossing(talked, loaded, before and after and after[1] - before[1])

    def rest(self):
        """The talkers talk, and nobody does anything with files: how late is that?"""
        return self.cross([])

    def up(self):
        """Somebody sends files, at most as many as 100 MiB: they are all kept."""
        sender, size = self.loaders[0], int(self.options.mib * 2**20)
        sender.ask("get_ready", size)
        return self.cross([sender], "send_files", max(1, 100 * 2**20 // size))

    def down(self, early):
        line = self.loaders[0].ask("line_of_file")
        return self.cross(self.loaders, "fetch_files", line, early)


class Crossing:
    """The figures of one round."""

    def __init__(self, talked, loaded, server_cpu):
        """What the processes have answered; how many seconds the server has worked
        meanwhile, if it is known."""
        self.others = sum_of(each["delays"] for each in talked)
        self.loaders = sum_of(each["delays"] for each in loaded)
        if loaded:
            start = min(each["start"] for each in loaded)
            end = max(each["end"] for each in loaded)
            seconds = (end - start) / 1e9
            self.rate = sum(each["bytes"] for each in loaded) / seconds / 1e6
            self.our_cpu = sum(each["cpu"] for each in loaded) / seconds
            self.server_cpu = server_cpu and server_cpu / seconds


def sum_of(delays):
    total = Delays()
    for each in delays:
        total.counts.update(each.counts)
    return total


def figures(rounds):
    """What is shown of several rounds: medians, and the times of all chat lines."""
    rates = [each.rate for each in rounds]
    busy = [each.server_cpu for each in rounds]
    return {
        "mb_per_second": round(statistics.median(rates), 1),
        "rounds": [round(rate, 1) for rate in rates],
        "chat_ms": {
            "everybody": sum_of(part for each in rounds for part in (
                each.others, each.loaders)).figures(),
            "the others": sum_of(each.others for each in rounds).figures(),
            "those at the files": sum_of(each.loaders for each in rounds).figures()},
        "server_cpu_share": None if None in busy else round(statistics.median(busy), 2),
        "our_cpu_share": round(statistics.median(each.our_cpu for each in rounds), 2)}


# ------------------------------------------------------------------------------- memory

class Memory:
    """How much more memory a process has needed at its peak, since we began to look.

    All that the kernel keeps in memory for it counts (RSS). On Linux the kernel itself
    takes note of the peak (VmHWM), and forgets it when told to: nothing is missed.
    Elsewhere there is no such figure.
    """
    def __init__(self, pid):
        self.pid, self.before = pid, None
        try:
            # 5 means: let the peak be what it is now. See proc_pid_clear_refs(5).
            Path(f"/proc/{pid}/clear_refs").write_text("5")
            self.before = self.peak()
        except OSError:
            pass

    def peak(self):
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+)", text)[1]) * 1024

    def figures(self):
        return self.before and {"before": self.before,
                                "grown": self.peak() - self.before}


def measure(server, options):
    """All the figures of one server: some rounds up; then nothing, and down in two
    ways, in turn: other work of this computer meets all of these."""
    rounds = range(options.rounds)
    with server, Ferry(server, options) as ferry:
        memory = Memory(server.pid)
        up = [ferry.up() for _ in rounds]
        memory_up, memory = memory.figures(), Memory(server.pid)
        rest, down = [], {way: [] for way in WAYS}
        for _ in rounds:
            rest.append(ferry.rest().others)
            for way, early in WAYS.items():
                down[way].append(ferry.down(early))
        memory_down = memory.figures()
    return {"mib": options.mib, "downloads": options.downloads, "tls": server.tls,
            "rate": options.rate, "seconds": options.seconds,
            "rest": {"chat_ms": sum_of(rest).figures()},
            "up": {**figures(up), "memory": memory_up},
            "down": {way: figures(its) for way, its in down.items()},
            "memory": memory_down}


# --------------------------------------------------------------------- the command line

def report(found):
    """The figures for a person to read."""
    ways = {"up": found["up"]}
    ways.update((f"down, the next 8 {way}", found["down"][way]) for way in WAYS)
    lines = [f"Files of {found['mib']:g} MiB, {found['downloads']} fetched at once, "
             f"{found['rate']} chat lines a second{', TLS' * found['tls']}; rounds of "
             f"{found['seconds']:g} s", "",
             "no files", late("everybody", found["rest"]["chat_ms"])]
    for title, its in ways.items():
        lines += ["", f"{title}: {its['mb_per_second']} MB/s (the median of "
                  f"{', '.join(map(str, its['rounds']))})"]
        lines += [late(whose, times) for whose, times in its["chat_ms"].items()]
        share = its["server_cpu_share"]
        lines.append("  busy: " + (f"the server {share:.0%} of one core, " if share
                     else "") + f"we {its['our_cpu_share']:.0%}")
    lines += ["", "server memory " + ("is not known here" if not found["memory"] else
              f"{mib(found['memory']['before'])}; at most "
              f"{mib(found['memory']['grown'])} more while files were fetched, "
              f"{mib(found['up']['memory']['grown'])} while they came")]
    return "\n".join(lines)


def late(whose, times):
    return f"  a chat line reaches {whose:22}" + "   ".join(
        f"{rank} {value} ms" for rank, value in times.items())


def mib(size):
    return f"{size / 2**20:.1f} MiB"


def loopback(word):
    """An argparse type: this computer. To load another one is not what this is for."""
    if not re.fullmatch(r"127\.\d+\.\d+\.\d+|localhost|::1", word):
        raise argparse.ArgumentTypeError("it wants an address of this computer")
    return word


def read_options(words=None):
    """Return the options in `words`, or in the command line that started us."""
    options = Options(prog="ferry.py", allow_abbrev=False,
                      formatter_class=argparse.RawDescriptionHelpFormatter,
                      description=__doc__)
    add = options.add_argument
    add("mib", type=number(0.001, 1000, float), nargs="?", default=10, metavar="MIB",
        help="how large the files are (default: 10)")
    add("--downloads", type=number(1, 100), default=1, metavar="N",
        help="how many fetch at once (default: 1)")
    add("--rate", type=number(1, 1000), default=20, metavar="R",
        help="chat lines a second, of all together (default: 20)")
    add("--seconds", type=number(0.1, 60, float), default=2, metavar="S",
        help="how long a round lasts (default: 2)")
    add("--rounds", type=number(1, 100), default=3, metavar="K",
        help="how many rounds, of which the median counts (default: 3)")
    add("--host", type=loopback, default="127.0.0.1", help="with --port")
    add("--port", type=number(1, 65535),
        help="where a server runs already on this computer (default: it is started)")
    add("--pid", type=number(1, 2**31), metavar="PID",
        help="its process, to show memory and CPU of that one too")
    add("--tls", action="store_true", help="talk TLS to the server")
    add("--json", action="store_true", help="print the figures as one JSON object")
    return options.parse_args(words)


def main():
    """Return the exit status: 0, 1 what came was wrong, 2 it could not begin."""
    options = read_options()
    command = OURS + ["--max-file", str(max(10, int(options.mib) + 1)),
                      "--all-files", "100000"] + ["--tls"] * options.tls
    server = Server("ChattyCat", command, options.port and (options.host, options.port),
                    pid=options.pid)
    try:
        found = measure(server, options)
    except (Trouble, NoStart, OSError) as problem:
        print(f"ferry.py: {problem}{server.last_words()}.", file=sys.stderr)
        return 1 if isinstance(problem, Trouble) else 2
    except KeyboardInterrupt:
        return 130
    print(json.dumps(found) if options.json else report(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
