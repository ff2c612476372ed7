#!/usr/bin/env python3
"""How fast is the window? Real clients on a screen that nobody sees, and a stopwatch.

    python3 tests/window_figures.py                the figures that one feels: 1 minute
    python3 tests/window_figures.py --seconds 10   each of the longer ones for 10 s
    python3 tests/window_figures.py --all          dense screens, 200 people, memory too

Processor time and memory are what the system says of the client's process. “First
paint” is the time from the start of the process until the blue of the Connect button
is on the screen: Xvfb, the screen, keeps its pixels in a file, and whoever maps that
into memory sees them change. (Asking for a picture of the screen would take longer
than the thing itself.) The whole card was there 9 ms later at most (of 8 times).

How late a timer is in the middle of a flood can only be seen from inside. For that the
client is run with a Chat of its own (Stopwatch), as everybody may do (see its main()):
the same window, and a timer each 10 ms. It is obeyed by what is said in the room.

It needs Xvfb, openbox and xdotool, so it runs on Linux.
"""
import argparse
import contextlib
import json
import mmap
import os
import pathlib
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

from measuring import usage
from people import Person, ServerProcess
from screen import CLIENT, ClientWindow, wait_until

BLUE = "#1F5FD6"            # the Connect button, in the light theme
LOT = 10                    # messages that are sent by one sendall()


# ---------------------------------------------------------------- the client's own part

class Stopwatch:
    """A Chat that measures; to be put in front of the client's own Chat.

    Somebody says “number 0”, “number 1”, …: it takes note of what comes. Before that
    they say “stopwatch start”, and in the end “stopwatch stop”, or “stopwatch visit”.
    """

    def __init__(self, face, options):
        super().__init__(face, options)
        self.root, self.due = face.root, time.perf_counter()
        self.path = os.path.join(os.environ["CHATTYCAT_HOME"], "figures.json")
        self.start()
        self.root.after(10, self.ring)

    def ring(self):
        """Each 10 ms, and so much later as whatever else keeps this thread busy."""
        now = time.perf_counter()
        self.late.append(1000 * (now - self.due))
        self.due = now + 0.01
        self.root.after(10, self.ring)

    def on_chat(self, message):
        super().on_chat(message)
        word, value = message["text"].split()[:2]
        if word == "stopwatch":
            getattr(self, value)()
        else:
            self.heard.append(int(value))

    def start(self):
        self.late, self.heard, self.since = [], [], time.perf_counter()
        self.cpu = time.process_time()          # of all threads

    def stop(self):
        # Not at once: what came with this line is to be on the screen first.
        self.root.after(100, self.report)

    def report(self, **more):
        view = self.face.views[self.current].text
        shown = [int(line.split()[1]) for line in view.get("1.0", "end").splitlines()
                 if line.startswith("number ")]
        found = {"cpu": time.process_time() - self.cpu, **ranks(self.late),
                 "seconds": time.perf_counter() - self.since - 0.1,
                 "heard": len(self.heard), "shown": len(shown),
                 "in order": self.heard == list(range(len(self.heard))),
                 # The newest of them, without a gap.
                 "shown in order": shown == self.heard[len(self.heard) - len(shown):],
                 "at the end": view.yview()[1] == 1.0, **more}
        # In one step, or it would be read when half of it is there.
        with open(self.path + ".new", "w") as file:
            json.dump(found, file)
        os.replace(self.path + ".new", self.path)

    def visit(self):
        """Open a private conversation with everybody, one after the other."""
        names = [name for name, _ in self.people.values() if name != self.me]
        times = []

        def visit_next():
            if not names:
                return self.report(visits=[len(times), *ranks(times).values()])
            start = time.perf_counter()
            self.typed(f"/msg {names.pop()}")
            self.root.update_idletasks()        # now it is drawn as well
            times.append(1000 * (time.perf_counter() - start))
            self.root.after(1, visit_next)

        self.root.after(1, visit_next)


def ranks(times):
    times = sorted(times) or [0]
    return {"p50": statistics.median(times), "p99": times[len(times) * 99 // 100],
            "max": times[-1]}


def run_with_stopwatch(words):
    """Be the client, with these options."""
    import ChattyCat_Client as client           # (ClientWindow says where it is)

    class Probe(Stopwatch, client.Chat):
        pass

    sys.argv[1:] = words
    return client.main(Probe)


class StopwatchWindow(ClientWindow):
    """The window of a client with a stopwatch, seen from outside."""

    def __init__(self, *options):
        super().__init__()
        self.command = [sys.executable, __file__, "--stopwatch", "--name", "Minou",
                        *map(str, options)]

    def figures(self, person, order="stop", limit=100, **to):
        """Tell it to stop the time, or another order, and return its report."""
        path = pathlib.Path(self.home.name, "figures.json")
        with contextlib.suppress(FileNotFoundError):
            path.unlink()                       # that of before
        person.send({"type": "chat", "text": f"stopwatch {order}", **to})
        wait_until(path.exists, limit, f"for the stopwatch; {self.said()}")
        return json.loads(path.read_text())


# --------------------------------------------------------------------------- the screen

class Screen:
    """A screen of our own, with a window manager, whose pixels can be read."""

    def __init__(self, dpi=96):
        self.dpi, self.scale = dpi, dpi / 96

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            display = self.start(stack, [
                "Xvfb", "-displayfd", "1", "-noreset", "-nolisten", "tcp", "-fbdir",
                folder, "-dpi", str(self.dpi), "-screen", "0",
                f"{round(1280 * self.scale)}x{round(1024 * self.scale)}x24"], "[0-9]")
            stack.callback(put_back, "DISPLAY", os.environ.get("DISPLAY"))
            os.environ["DISPLAY"] = ":" + display
            # Without a window manager no window gets the keyboard.
            self.start(stack, ["openbox", "--startup", "echo ready"], "ready")
            with open(os.path.join(folder, "Xvfb_screen0"), "rb") as file:
                self.pixels = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            # The file is one of xwd: a header of 25 numbers, the colour map, the rows.
            head = struct.unpack(">25I", self.pixels[:100])
            self.begin, self.row = head[0] + 12 * head[19], head[12]
            self.end = self.begin + head[5] * self.row
            self.stack = stack.pop_all()
        return self

    def start(self, stack, command, words):
        """Start a program, and return the line by which it says that it is ready."""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                                   stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        stack.callback(process.stdout.close)
        return next(line.strip() for line in process.stdout if re.match(words, line))

    def __exit__(self, *_):
        self.stack.close()

    def shows(self, colour) -> bool:
        """Whether 20 pixels of this colour stand side by side; each 8th row is asked,
        so that a look takes 0.5 ms (1.1 ms at 192 dpi)."""
        twenty = (bytes.fromhex(colour[1:])[::-1] + b"\0") * 20
        return any(self.pixels.find(twenty, spot, spot + self.row) >= 0 for spot in
                   range(self.begin, self.end, self.row * round(8 * self.scale)))


def put_back(name, value):
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


# -------------------------------------------------------------------------- the figures

def first_paint(screen, *words, **environment):
    """Return how many seconds a client needed until one saw it, its processor time,
    and how long it had to wait for a processor (0 where nobody tells)."""
    with tempfile.TemporaryDirectory() as home:
        assert not screen.shows(BLUE)
        start = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, str(CLIENT), *words], stdin=subprocess.DEVNULL,
            env={**os.environ, "CHATTYCAT_HOME": home, **environment})
        try:
            while not screen.shows(BLUE):
                assert process.poll() is None, "it has ended"
                assert time.monotonic() < start + 20, "no window in 20 s"
                time.sleep(0.002)
            return (time.monotonic() - start, usage(process.pid)[1],
                    waited(process.pid))
        finally:
            process.terminate()
            process.wait()
            wait_until(lambda: not screen.shows(BLUE))


def waited(pid):
    """Seconds in which a process could have run, and others had the processors."""
    try:                                # its first thread's, in nanoseconds
        return int(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0


def busy_share(window, seconds):
    """Which part of one processor a window needs when nothing happens."""
    before = usage(window.process.pid)[1]
    time.sleep(seconds)
    return (usage(window.process.pid)[1] - before) / seconds


@contextlib.contextmanager
def full_room(people=20, window=StopwatchWindow):
    """A server, Minou's window (None: none), and so many others with a socket each."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ServerProcess(
            "--rate", "0", "--recent", "0", "--max-clients", people + 10))
        minou = stack.enter_context(window("--port", server.port))
        minou.wait_for_title("ChattyCat — Minou")
        others = [stack.enter_context(Person(server, f"Cat{number}"))
                  for number in range(people)]
        for each in others:
            stack.callback(each.leave)
            threading.Thread(target=swallow, args=(each,), daemon=True).start()
        yield server, minou, others


def swallow(person):
    """Read all that comes, for ever: who does not is thrown out by the server."""
    person.ended = True                         # for leave(): nobody else may read
    with contextlib.suppress(OSError):
        person.socket.settimeout(None)
        while person.socket.recv(65536):
            pass


def talk(person, count, rate=0, first=0, **to):
    """Say so many messages; `rate`: so many a second, 0: as fast as they are taken."""
    start = time.monotonic()
    for number in range(first, first + count, LOT):
        if rate:
            time.sleep(max(0, start + (number - first) / rate - time.monotonic()))
        person.socket.sendall(b"".join(
            json.dumps({"type": "chat", "text": f"number {at}", **to}).encode() + b"\n"
            for at in range(number, number + LOT)))


def flood(window, person, count, rate=0, **to):
    """Let somebody say so much, and return what the stopwatch has seen."""
    person.send({"type": "chat", "text": "stopwatch start", **to})
    talk(person, count, rate, **to)
    found = window.figures(person, **to)
    assert found["heard"] == count and found["in order"], found
    return found


def memory(window):
    return usage(window.process.pid)[0] / 2**20


# -------------------------------------------------------------------- one after another

def show(what, figure, aim=""):
    print(f"{what:46}{figure}{aim and f'   (aim: {aim})'}", flush=True)


def show_first_paint(dpis):
    bare = shutil.which("true")                 # a gsettings that says nothing
    for dpi in dpis:
        with Screen(dpi) as screen, tempfile.TemporaryDirectory() as folder:
            os.symlink(bare, os.path.join(folder, "gsettings"))
            for theme in ("light", "auto"):
                runs = [first_paint(screen, "--theme", theme, PATH=folder)
                        for _ in range(7)]
                seconds, cpu, _ = map(statistics.median, zip(*runs))
                show(f"start to first paint, {dpi} dpi, {theme}",
                     f"{seconds:.2f} s, {cpu:.2f} s of processor time", "0.5 s")


def show_floods(seconds):
    with full_room() as (_, window, people):
        found = flood(window, people[0], 10_000)
        show("10,000 messages", f"{found['cpu']:.2f} s of processor time, in "
             f"{found['seconds']:.1f} s", "1 s")
        for where in ("at the end", "scrolled up", "elsewhere"):
            if where == "scrolled up":
                window.key(*["Prior"] * 5)
            if where == "elsewhere":            # then each counts as unread
                window.type("/msg Cat1\n")
                window.wait_for_title("ChattyCat — Minou")
            found = flood(window, people[2], 1000 * seconds, rate=1000)
            show(f"1,000 a second, {where}: a timer is late",
                 "   ".join(f"{rank} {found[rank]:.1f} ms" for rank in
                            ("p50", "p99", "max")), "p99 50 ms")
            show("", f"{found['cpu'] / found['seconds']:.0%} of one processor; all "
                 f"came, in order; {found['shown']:,} shown"
                 f"{' at the end' * found['at the end']}")


def show_idle(seconds, crowd):
    for people in crowd:
        with full_room(people, lambda *words: ClientWindow("--name", "Minou", *words)
                       ) as (server, window, _):
            time.sleep(1)                       # the last who came have been drawn
            show(f"nothing happens, {people + 1} in the room",
                 f"{busy_share(window, seconds):.2%} of one processor", "1 %")
            if people == 0:
                server.stop()
                show("reconnecting", f"{busy_share(window, seconds):.2%} of one "
                     "processor", "1 %")


def show_memory():
    with full_room() as (_, window, people):
        show("memory, 21 in the room", f"{memory(window):.1f} MiB")
        said = 0
        for count in (20_000, 50_000, 100_000):
            person = people[0]
            person.send({"type": "chat", "text": "stopwatch start"})
            talk(person, count - said, first=said)
            window.figures(person)
            said = count
            show(f"memory after {count:,} messages", f"{memory(window):.1f} MiB")
        window.key(*["Prior"] * 3)
        flood(window, people[0], 50_000)
        show("… and 50,000 more, scrolled up", f"{memory(window):.1f} MiB")
        window.key("Escape")
        for person in people:
            talk(person, 5000, to="Minou")
            window.figures(person, to="Minou")
        show("… and 5,000 private ones of each of 20", f"{memory(window):.1f} MiB")


def show_visits():
    with full_room(200) as (_, window, people):
        before = memory(window)
        count, p50, p99, slowest = window.figures(people[0], "visit")["visits"]
        show(f"{count} private conversations opened",
             f"p50 {p50:.1f} ms   p99 {p99:.1f} ms   max {slowest:.1f} ms each; "
             f"{memory(window) - before:.1f} MiB more")


def main():
    if sys.argv[1:2] == ["--stopwatch"]:
        return run_with_stopwatch(sys.argv[2:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5, choices=range(1, 61),
                        metavar="S", help="how long some of it is watched (default: 5)")
    parser.add_argument("--all", action="store_true", help="what takes longer, too")
    options = parser.parse_args()
    for program in ("Xvfb", "openbox", "xdotool"):
        if not shutil.which(program):
            sys.exit(f"{program} is missing; on Debian and Ubuntu: sudo apt install "
                     "xvfb openbox xdotool")
    show_first_paint((96, 192) if options.all else (96,))
    with Screen():
        show_floods(options.seconds)
        show_idle(2 * options.seconds, (0, 200) if options.all else (0,))
        if options.all:
            show_memory()
            show_visits()
    return 0


if __name__ == "__main__":
    sys.exit(main())
