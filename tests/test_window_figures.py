"""How fast the window is, and how it ends: in every state, by every way.

tests/window_figures.py measures; here are the limits. What else this computer does can
only make a figure worse: so there are some tries, and one that is good enough counts.

Closing: a real client is brought into a state, and closed. It has to end within a
second, with status 0, without a word on stderr, and without a process left behind.
"""
import contextlib
import ctypes
import itertools
import os
import pathlib
import random
import signal
import socket
import threading
import time

import pytest

import window_figures as figures
from bad_network import BadNetwork
from parcels import send_file
from people import Person, ServerProcess
from screen import ClientWindow, visible_windows, wait_until, why_no_screen, xdotool

pytestmark = pytest.mark.skipif(bool(why_no_screen()), reason=why_no_screen())
TRIES = 3
NUMBERS = itertools.count(1)            # for names that nobody else has


# ------------------------------------------------------------------------------ figures

@pytest.mark.parametrize("dpi, theme", [(96, "light"), *(
    pytest.param(*case, marks=pytest.mark.long)
    for case in ((96, "auto"), (192, "light"), (192, "auto")))])
def test_first_paint(dpi, theme):
    with figures.Screen(dpi) as screen:
        for _ in range(TRIES):
            seconds, cpu, waited = figures.first_paint(screen, "--theme", theme)
            print(f"\nfirst paint after {seconds:.2f} s, {cpu:.2f} s of work, and "
                  f"{waited:.2f} s of waiting for a processor")
            # The aim is 0.5 s; twice that, as its screen may have to wait too. What
            # it waits for the other tests says nothing of it; any other wait counts.
            if seconds - waited < 1:
                return
    assert seconds - waited < 1


def in_time(window, person, seconds):
    """1,000 messages a second: all come, in order, and the window stays awake."""
    late = []
    for _ in range(TRIES):
        found = figures.flood(window, person, 1000 * seconds, rate=1000)
        late.append(found["p99"])
        if late[-1] <= 50:
            break
    print(f"\na 10 ms timer is late by {late} ms (p99)")
    assert min(late) <= 50
    return found


def test_a_flood():
    with figures.full_room(3) as (_, window, people):
        found = figures.flood(window, people[0], 10_000)
        print(f"\n10,000 messages: {found['cpu']:.2f} s of work")
        # Aim: 1 s. Three times that, since this computer may be a slow one.
        assert found["cpu"] < 3
        assert found["shown in order"] and found["at the end"]
        assert 4900 <= found["shown"] <= 5600, "older ones are forgotten"
        in_time(window, people[1], 2)


@pytest.mark.long
def test_a_long_flood():
    with figures.full_room() as (_, window, people):
        assert in_time(window, people[1], 10)["at the end"]
        window.key(*["Prior"] * 3)              # somebody reads further up
        assert not in_time(window, people[2], 10)["at the end"]
        window.type("/msg Cat1\n")
        found = in_time(window, people[3], 10)
        assert found["shown"] == 0, "that was another conversation"


def plain_window(*words):
    return ClientWindow("--name", "Minou", *words)


@pytest.mark.parametrize("people, seconds", [
    (0, 2), pytest.param(200, 10, marks=pytest.mark.long)])
def test_idle(people, seconds):
    with figures.full_room(people, plain_window) as (server, window, _):
        at_rest(window)
        shares = []
        for state in ("online", "reconnecting"):
            shares.append(figures.busy_share(window, seconds))
            print(f"\n{state}: {shares[-1]:.2%} of one processor")
            server.stop()
    # Aim: 1 %. In 2 s, counted in 1/100 s, one cannot tell that from 2 %.
    assert max(shares) < 0.03


@pytest.mark.long
def test_memory_has_a_bound():
    with figures.full_room() as (_, window, people):
        sizes, shown = [], []
        for number in range(10):
            found = figures.flood(window, people[0], 20_000)
            sizes.append(round(figures.memory(window)))
            shown.append(found["shown"])
            if number == 4:
                window.key(*["Prior"] * 3)      # somebody reads further up
    print(f"\nMiB after each 20,000 messages: {sizes}; lines in the text: {shown}")
    # It grows until 5,000 lines are kept, which is so after the first lot; and three
    # times as many while somebody reads.
    assert sizes[4] - sizes[0] < 10 and max(shown[:5]) <= 5600
    assert sizes[9] - sizes[0] < 20 and max(shown) <= 15_200


@pytest.mark.long
def test_two_hundred_private_conversations():
    with figures.full_room(200) as (_, window, people):
        before = figures.memory(window)
        count, p50, _, slowest = window.figures(people[0], "visit")["visits"]
        grown = figures.memory(window) - before
    print(f"\n{count} conversations opened: p50 {p50:.0f} ms, {slowest:.0f} ms at most")
    assert count == 200 and p50 < 50 and grown < 40


# --------------------------------------------------------------- states to be closed in

class Case:
    """One client, a server and a folder; what the states below are made with."""

    def __init__(self, stack, server, folder):
        self.stack, self.server, self.folder = stack, server, folder
        folder.mkdir()
        self.enter = stack.enter_context
        # Of its own: a client that did not end well leaves a name that is kept for it.
        self.name = f"Minou{next(NUMBERS)}"

    def open(self, *options, port=None, **environment):
        return self.enter(ClientWindow("--port", port or self.server.port,
                                       *options, HOME=str(self.folder), **environment))

    def open_online(self, **how):
        """A client that is in the room."""
        window = self.open("--name", self.name, **how)
        window.wait_for_title(f"ChattyCat — {self.name}")
        return window

    def cat(self):
        """Somebody else who is in the room."""
        cat = Person(self.server, f"Cat{next(NUMBERS)}")
        self.stack.callback(cat.leave)
        return cat

    def silent_port(self, backlog):
        """A port that takes connections, and nobody ever says a word."""
        listener = self.enter(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(backlog)
        return listener.getsockname()[1]

    def slow_port(self):
        """The server's, at the end of a long line: 10 MiB take some seconds."""
        network = self.enter(BadNetwork((self.server.host, self.server.port),
                                        delay=100))
        return network.port


def at_rest(window):
    """Wait until a client has nothing more to do: it takes no processor time."""
    same, last = 0, None
    while same < 3:
        time.sleep(0.04)
        now = figures.usage(window.process.pid)[1]
        same, last = (same + 1 if now == last else 0), now


def login_card(case):
    return case.open()


def just_opened(case):
    """It has a window, and is about to connect."""
    return case.open("--name", case.name)


def connecting(case):
    """A full backlog swallows connections: they hang, and are not refused."""
    port = case.silent_port(0)
    for _ in range(3):
        sock = case.enter(socket.socket())
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", port))
    return case.open("--name", case.name, port=port)


def greeting(case):
    return case.open("--name", case.name, port=case.silent_port(5))


def name_taken(case):
    return case.open("--name", case.cat().name)


def waiting(case):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    return case.open("--name", case.name, port=port)


def online(case):
    return case.open_online()


def a_draft(case):
    window = case.open_online()
    window.type("Half a thou")
    return window


def reconnecting(case):
    server = case.enter(ServerProcess())
    window = case.open_online(port=server.port)
    server.kill()
    at_rest(window)
    return window


def kept_lines(case):
    """What would be lost with the window: it asks once, by staying open."""
    window = reconnecting(case)
    window.type("Say this when we are back\n")
    window.asks = True
    return window


def in_a_burst(case):
    window, cat = case.open_online(), case.cat()
    begun = threading.Event()

    def swallow():
        with contextlib.suppress(OSError):
            while cat.socket.recv(65536):
                begun.set()

    def talk():
        with contextlib.suppress(OSError):
            figures.talk(cat, 20_000)

    cat.ended = True
    for work in (swallow, talk):
        threading.Thread(target=work, daemon=True).start()
    assert begun.wait(5)
    return window


def open_dialog(case):
    window = case.open_online()
    window.key("ctrl+o")
    wait_until(lambda: visible_windows("TkFDialog"), what="for the dialog")
    return window


def open_menu(case):
    window = case.open_online()
    window.key("shift+Tab", "shift+Tab", "space")
    wait_until(lambda: visible_windows("Menu"), what="for the menu")
    return window


def open_help(case):
    window = case.open_online()
    window.key("F1")
    wait_until(lambda: len(visible_windows()) == 2, what="for the page")
    return window


def open_about(case):
    window = case.open_online()
    window.choose(9)
    wait_until(lambda: len(visible_windows()) == 2, what="for the page")
    return window


def open_wire(case):
    window = case.open_online()
    window.key("F12")
    return window


def telling(case):
    """It lies in the task bar, and the system's program for toasts hangs."""
    program, told = case.folder / "notify-send", case.folder / "told"
    program.write_text(f"#!/bin/sh\necho >{told}\nexec sleep 30\n")
    program.chmod(0o755)
    cat, window = case.cat(), case.open_online(
        PATH=f"{case.folder}:{os.environ['PATH']}")
    xdotool("windowminimize", window.number)
    wait_until(window.gone, what="for it to be hidden")
    cat.say("Psst", to=case.name)
    wait_until(told.exists, what="for the toast")
    return window


def sending_a_file(case):
    """The server has the first pieces of it."""
    (case.folder / "film").write_bytes(os.urandom(10 * 2**20))
    files = case.folder / "files"
    server = case.enter(ServerProcess("--files", files, quiet_stderr=False))
    case.server = server
    window = case.open_online(port=case.slow_port())
    window.type("/file ~/film\n")
    wait_until(lambda: holds_bytes(files), what="for the first pieces")
    window.asks = True
    return window


def fetching_a_file(case):
    """A part of it is in the folder Downloads."""
    cat, window = case.cat(), case.open_online(port=case.slow_port())
    send_file(cat, os.urandom(5 * 2**20), "film")
    at_rest(window)
    window.type("/save 1\n")
    wait_until(lambda: holds_bytes(case.folder / "Downloads"), what="for a piece")
    return window


def holds_bytes(folder):
    return any(path.is_file() and path.stat().st_size for path in folder.rglob("*"))


STATES = (login_card, just_opened, connecting, greeting, name_taken, waiting, online,
          a_draft, reconnecting, kept_lines, in_a_burst, open_dialog, open_menu,
          open_help, open_about, open_wire, telling, sending_a_file, fetching_a_file)
RESTLESS = (just_opened, in_a_burst, sending_a_file, fetching_a_file)
# The keyboard belongs to somebody else: to a menu, a dialog, the window on top.
DEAF = (open_menu, open_dialog, telling)


# ------------------------------------------------------------------------ ways to close

class ClientMessage(ctypes.Structure):
    """What programs send each other through the screen: XClientMessageEvent of Xlib."""
    _fields_ = [("type", ctypes.c_int), ("serial", ctypes.c_ulong),
                ("send_event", ctypes.c_int), ("display", ctypes.c_void_p),
                ("window", ctypes.c_ulong), ("message", ctypes.c_ulong),
                ("format", ctypes.c_int), ("data", ctypes.c_long * 20)]


def close_button(case, window):
    """Ask the window manager to close it, as a task bar does: also a window that has a
    menu open, or a dialog, and could not be reached by mouse."""
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XDefaultRootWindow.restype = x11.XInternAtom.restype = ctypes.c_ulong
    display = ctypes.c_void_p(x11.XOpenDisplay(None))
    event = ClientMessage(
        type=33, window=int(window.number), format=32,
        message=x11.XInternAtom(display, b"_NET_CLOSE_WINDOW", False))
    event.data[1] = 2                           # from a task bar: it is obeyed at once
    root = ctypes.c_ulong(x11.XDefaultRootWindow(display))
    # To the root, for whoever manages the windows there (the two bits of the mask).
    x11.XSendEvent(display, root, False, ctypes.c_long(3 << 19), ctypes.byref(event))
    x11.XCloseDisplay(display)


def ctrl_q(case, window):
    xdotool("key", "ctrl+q")


def sigterm(case, window):
    window.process.send_signal(signal.SIGTERM)


def sigint(case, window):
    window.process.send_signal(signal.SIGINT)


def server_dies_too(case, window):
    case.server.kill()
    close_button(case, window)


WAYS = (close_button, ctrl_q, sigterm, sigint, server_dies_too)


def name(function):
    return function.__name__


def left_behind(window):
    """The processes that have the client's folder in their environment."""
    mark = f"CHATTYCAT_HOME={window.home.name}".encode()
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):      # not ours, or it has just ended
            if mark in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
    return found


def close_well(state, way, server, folder):
    """Bring a client there, close it, and return how many seconds that took."""
    with contextlib.ExitStack() as stack:
        if way is server_dies_too:
            server = stack.enter_context(ServerProcess("--rate", "0"))
        case = Case(stack, server, folder)
        window = state(case)
        if state not in RESTLESS:
            at_rest(window)
        if way is ctrl_q and state in RESTLESS:
            window.focus()
        if getattr(window, "asks", False) and way not in (sigterm, sigint):
            way(case, window)
            at_rest(window)
            assert not window.ended(), "it did not ask"
        start = time.monotonic()
        way(case, window)
        status = window.process.wait(10)
        seconds = time.monotonic() - start
        ended = status, window.said(), left_behind(window)
        assert ended == (0, "", []), f"{name(state)} by {name(way)}: {ended}"
    return seconds


CASES = [(state, way) for state in STATES for way in WAYS
         if not (state in DEAF and way is ctrl_q)]


# Where most of what can go wrong is met; all of them with --long.
ALWAYS = ((just_opened, ctrl_q), (connecting, sigterm), (online, server_dies_too),
          (kept_lines, close_button), (in_a_burst, sigint), (open_dialog, close_button),
          (open_menu, sigterm), (open_help, ctrl_q), (telling, close_button))


@pytest.mark.parametrize("state, way", [
    pytest.param(*case, marks=() if case in ALWAYS else pytest.mark.long)
    for case in CASES], ids=name)
def test_closing(state, way, server, tmp_path):
    for number in range(TRIES):
        seconds = close_well(state, way, server, tmp_path / str(number))
        if seconds < 1:
            return
    assert seconds < 1


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_hundred_closings(server, tmp_path):
    seed = random.randrange(10**6)
    print(f"\nseed {seed}")
    cases, times = random.Random(seed), []
    for number in range(100):
        case = cases.choice(CASES)
        times.append(close_well(*case, server, tmp_path / str(number)))
    times.sort()
    print(f"a hundred closings: p50 {times[50]:.2f} s, max {times[-1]:.2f} s")
    assert times[-3] < 1        # two may have met a moment in which all stood still
