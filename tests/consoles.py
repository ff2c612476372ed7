"""Plays the terminals of a page: what its `console` blocks show is really typed.

    for part in play(page):
        print(part.typed, part.seen)

Each terminal of a page is a shell on a pty of its own, so that programs behave there
as they do on a screen. All of it happens in a copy of the project, on free ports.
tests/pages.py compares what was printed with what the page shows.
"""
import codecs
import difflib
import errno
import os
import pathlib
import random
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

LIMIT = 15              # seconds for what a block shows to appear
QUIET = 1               # seconds without a word: what is wrong now will stay wrong
MOMENT = 0.2            # seconds until half a line counts as one
UNFINISHED = "…"
PORTS = ("9999", "9998")    # what pages type; each play has its own, which are free
NEEDLESS = shutil.ignore_patterns(
    ".*", "__pycache__", "mine", "test_*", "*.png", "peers")

# A line that somebody types: "$ " and a command, "> " and an answer, or a key. A prompt
# with nothing behind it: "$" waits until the shell is back, ">" types an empty line.
TYPED = re.compile(r"(> )?\^[CD]|\$( .*)?|>( .*)?")

# A program's words come right behind Ctrl+C, on the same line.
AND_WORDS = re.compile(r"((?:> )?\^C)(.+)")

# What is never twice the same. Two things of the same form are the same for us.
CHANGING = re.compile(r"""
    (?P<home>(?<![\w.])(?:[A-Z]:)?[/\\][\w./\\-]*?[/\\]ChattyCat\b)
  | (?P<day>\d{4}-\d\d-\d\d)
  | (?P<time>\b\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?![\d:]))
  | (?P<seconds>\d+\.\d+(?=\ (?:s|ms|seconds)\b))
  | (?P<address>\b0x[0-9a-f]{8,16}\b)
  | (?P<port>(?<![\w.])[1-6]\d{4}(?![\w]))
    """, re.VERBOSE)

# Pages have Linux' numbers of errors; macOS has others for the same.
LINUX_ERRNO = {"EADDRINUSE": 98, "EADDRNOTAVAIL": 99, "ECONNRESET": 104,
               "ENOTCONN": 107, "ETIMEDOUT": 110, "ECONNREFUSED": 111}

# The shell must be the master of its terminal: otherwise Ctrl+C reaches nobody. And who
# was started with Ctrl+C ignored (`tests &` in a script) would hand that on.
IN_TERMINAL = """
import fcntl, os, signal, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv("/bin/sh", ["sh", "-i"])
"""


def why_no_console():
    """Say why no terminal can be played here; "" if it can."""
    if os.name == "nt":
        return "playing a terminal needs a pty, and Windows has none for Python"
    return "" if os.path.exists("/bin/sh") else "playing a terminal needs /bin/sh"


# --- does this fit what the page shows? ---

def form(line):
    """The line with a stand-in for all that changes from run to run."""
    def stand_in(found):
        kind = found.lastgroup
        return re.sub(r"\d", "0", found[0]) if kind in ("day", "time") else f"<{kind}>"

    return CHANGING.sub(stand_in, line.rstrip())


def ports_in(line):
    return [found["port"] for found in CHANGING.finditer(line) if found["port"]]


def same_line(shown, seen, ports):
    """`ports` with what these two lines add to it; None if they are not the same.

    It holds the number in the run for each number in the page: a port that stands in
    two places of the page has to be the same in both.
    """
    if form(shown) != form(seen):
        return None
    for mine, real in zip(ports_in(shown), ports_in(seen)):
        if ports.get(mine, real) != real or mine not in ports and (
                real in ports.values()):
            return None
        ports = {**ports, mine: real}
    return ports


def fit(shown, seen, ports, whole=True):
    """How many of the seen lines the shown ones take, and the ports; or None.

    `whole`: no seen line may be left over.
    """
    if not shown:
        return None if whole and seen else (0, ports)
    if shown[0].strip() == "...":
        for skipped in range(len(seen) + 1):
            found = fit(shown[1:], seen[skipped:], ports, whole)
            if found:
                return found[0] + skipped, found[1]
        return None
    added = same_line(shown[0], seen[0], ports) if seen else None
    found = None if added is None else fit(shown[1:], seen[1:], added, whole)
    return found and (found[0] + 1, found[1])


class Part:
    """What one terminal prints after something was typed, and what was to come."""

    def __init__(self, block, number, typed=None):
        self.block, self.number, self.typed = block, number, typed
        self.shown = []         # the output lines of the page, from line `number` on
        self.before = ""        # what stands in the first of them before the output
        self.seen = None        # the lines that really came; None: it was not played
        self.trouble = ""


def could_fit(shown, seen, ports):
    """Whether the seen lines may be the first of what is shown."""
    if not seen:
        return True
    if not shown:
        return False
    if shown[0].strip() == "...":
        return any(could_fit(shown[1:], seen[skipped:], ports)
                   for skipped in range(len(seen) + 1))
    added = same_line(shown[0], seen[0], ports)
    return added is not None and could_fit(shown[1:], seen[1:], added)


def parts_of(block):
    """The block's lines, cut where something is typed."""
    parts = []
    for number, line in enumerate(block.lines, block.line + 1):
        if TYPED.fullmatch(line):
            parts.append(Part(block, number + 1, line))
            continue
        interrupts = AND_WORDS.fullmatch(line)
        if interrupts:
            parts.append(Part(block, number, interrupts[1]))
            parts[-1].before, line = interrupts.groups()
        elif not parts:
            parts.append(Part(block, number))
        parts[-1].shown.append(line)
    return parts


# --- a terminal ---

class Terminal:
    """A shell on a pty; `text` is what it has printed and nobody has taken yet."""

    def __init__(self, folder, environment):
        import fcntl            # Windows has neither of them
        import pty
        import termios
        self.folder = folder
        self.screen, inside = pty.openpty()
        # Wide, so that no line is wrapped.
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("4H", 50, 500, 0, 0))
        self.shell = subprocess.Popen(
            [sys.executable, "-ISc", IN_TERMINAL], cwd=folder, env=environment,
            stdin=inside, stdout=inside, stderr=inside, start_new_session=True)
        os.close(inside)
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.text, self.echo, self.last = "", "", None
        self.interrupted = self.at_start = False
        self.news = time.monotonic()

    def read(self):
        try:
            data = os.read(self.screen, 65536)
        except OSError:
            data = b""          # how Linux says that everybody in there has ended
        self.news = time.monotonic()
        self.text = (self.text + self.decoder.decode(data)).replace("\r\n", "\n")
        # The terminal shows what is typed. That stands in the page as well.
        if self.echo and self.echo in self.text:
            self.text, self.echo = self.text.replace(self.echo, "", 1), ""
            self.at_start = True
        if self.interrupted and self.at_start and self.text:
            # On a screen the program's words come right behind ^C; some begin a new
            # line first. In the page they always stand on the next line.
            self.text = self.text[self.text.startswith("\n"):]
            self.at_start = False
        return bool(data)

    def lines(self):
        """The lines that have come, and the prompt behind them, if one is there.

        A program may print a line in two goes. Half a line is one (“Name? ”, say) when
        nobody has written on for a while; before, it is UNFINISHED.
        """
        *lines, rest = self.text.split("\n")
        if rest.endswith(("$ ", "> ")) and rest != ">>> ":
            return lines + ([rest[:-2]] if rest[:-2] else []), rest[-2:]
        if rest and self.is_quiet(MOMENT):
            return lines + [rest], ""
        return lines, UNFINISHED if rest else ""

    def is_quiet(self, seconds):
        return time.monotonic() - self.news > seconds

    def drop(self, count):
        """Forget so many lines."""
        self.text = "\n".join(self.text.split("\n")[count:])

    def type(self, text):
        key = {"^C": "\x03", "^D": "\x04"}.get(text)
        # Ctrl+D shows nothing.
        self.echo = "" if text == "^D" else text if key else text + "\n"
        self.text, self.interrupted = "", text == "^C"
        os.write(self.screen, (key or text + "\n").encode())

    def close(self):
        groups = {self.shell.pid}
        try:
            groups.add(os.tcgetpgrp(self.screen))   # what runs in the foreground
        except OSError:
            pass
        os.close(self.screen)       # SIGHUP, also for what runs in the background
        for group in groups - {0, os.getpgrp()}:
            try:
                os.killpg(group, signal.SIGKILL)
            except OSError:
                pass
        self.shell.wait(10)


# --- the stage: a copy of the project, and all terminals of a page ---

class Stage:
    def __init__(self, page):
        self.page, self.terminals, self.parts, self.ports = page, {}, [], {}
        self.written = {}
        self.real = free_ports(page.text)

    def __enter__(self):
        self.top = os.path.realpath(tempfile.mkdtemp(prefix="chattycat-page-"))
        # The page says /home/luna/ChattyCat; we take off what stands before it.
        self.folder = os.path.join(self.top, "home", "luna", "ChattyCat")
        shutil.copytree(self.page.project, self.folder, ignore=NEEDLESS)
        tools = os.path.join(self.top, "bin")
        os.mkdir(tools)
        python = os.path.join(tools, "python3")
        with open(python, "w", encoding="utf-8") as script:
            script.write(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        os.chmod(python, 0o755)
        home = os.path.dirname(self.folder)
        # Nothing else of ours: neither DISPLAY nor what sets Python's ways.
        self.environment = {
            "PATH": tools + os.pathsep + os.environ["PATH"], "HOME": home,
            "CHATTYCAT_HOME": os.path.join(home, ".config", "chattycat"),
            "LANG": "C.UTF-8", "TERM": "dumb", "PYTHON_COLORS": "0",
            "PS1": "$ ", "PS2": ""}
        return self

    def __exit__(self, *exception):
        for terminal in self.terminals.values():
            terminal.close()
        shutil.rmtree(self.top, ignore_errors=True)

    def write(self, files):
        """Bring the student's folder to what it is at this place of the page."""
        for name, text in files.items():
            if self.written.get(name) != text:
                if "sys.argv" not in text:      # then its port stands in its code
                    text = self.with_our_ports(text)
                path = pathlib.Path(self.folder, "lessons", "mine", name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        self.written = dict(files)

    def with_our_ports(self, text):
        return re.sub(r"\b999[89]\b", lambda found: self.real[found[0]], text)

    def as_in_page(self, line):
        """A line that was really printed, as the page would show it."""
        for mine, real in self.real.items():
            line = re.sub(rf"\b{real}\b", mine, line)
        line = re.sub(r"(?<=\[Errno )\d+(?=\])", linux_errno, line)
        return line.replace(self.top, "").rstrip()

    # --- waiting ---

    def wait(self, terminal, enough):
        """Read all terminals until enough(); False if that does not come."""
        end = time.monotonic() + LIMIT
        pause = 0
        while True:
            self.read(pause)        # first: what has come already is no silence
            answer = enough()
            if answer or answer is None or time.monotonic() > end:
                return bool(answer)
            pause = 0.05

    def read(self, seconds):
        """Let every terminal read what has come. One that is full stands still."""
        open_ones = {terminal.screen: terminal for terminal in self.terminals.values()}
        ready, _, _ = select.select(list(open_ones), [], [], seconds)
        for screen in ready:
            if not open_ones[screen].read():
                time.sleep(0.01)        # its shell has ended, which is always readable
        return bool(ready)

    def lines(self, terminal):
        """What stands there, as the page shows it; and the prompt behind it."""
        lines, prompt = terminal.lines()
        if terminal.interrupted and lines[-1:] == [""] and prompt == "$ ":
            lines.pop()         # the shell's own, behind a program that Ctrl+C ended
        return [self.as_in_page(line) for line in lines], prompt

    def ready_for(self, terminal, prompt, is_key):
        """True when all is there that was to come, and the prompt. None: never."""
        lines, there = self.lines(terminal)
        last = terminal.last
        if is_key and not terminal.is_quiet(MOMENT):
            # A key, between a program's word and its next wait, may get lost: the
            # signal comes too early to interrupt the wait. No finger is so quick.
            return False
        if terminal.echo or there == UNFINISHED or prompt and there != prompt:
            # Another prompt than we want, and nothing more: that will not change.
            return None if there and terminal.is_quiet(QUIET) else False
        if not last or last.seen is not None and not lines:
            return True
        lines = (last.seen or []) + lines
        if fit(last.shown, lines, self.ports):
            return True
        return self.hopeless(terminal, last.shown, lines, there)

    def has_come(self, terminal, part):
        """True when the last lines of a block are there. None: they never will be."""
        lines, there = self.lines(terminal)
        if terminal.echo:
            return False
        if not part.shown and part.typed and part.typed[0] == "$":
            # It shows nothing. Has it ended, or is it a program that says nothing?
            return there == "$ " or terminal.is_quiet(3 * QUIET)
        if fit(part.shown, lines, self.ports, whole=False):
            return True
        return self.hopeless(terminal, part.shown, lines, there)

    def hopeless(self, terminal, shown, lines, prompt):
        """None if these lines will not become those that are shown; else False."""
        if not terminal.is_quiet(QUIET):
            return False        # somebody is still writing
        goes_on = not prompt and could_fit(shown, lines, self.ports)
        return False if goes_on else None

    # --- playing ---

    def play(self, block):
        name = (block.info.split() + ["one"])[1]
        terminal = None
        for part in parts_of(block):
            self.parts.append(part)
            terminal = self.terminals.get(name)
            if terminal is None or terminal.last and terminal.last.trouble:
                if not (part.typed or "").startswith("$"):
                    part.trouble = "nothing runs in this terminal"
                    continue
                folder = terminal.folder if terminal else self.folder
                if terminal:
                    terminal.close()
                terminal = Terminal(folder, self.environment)
                self.terminals[name] = terminal
            if part.typed is not None:
                self.type(terminal, part)
            terminal.last = part
        if terminal and not part.trouble:
            self.settle(terminal, part)

    def type(self, terminal, part):
        """Wait until all that was to come is there; then type."""
        key = part.typed[-2:] if re.fullmatch(r"(> )?\^[CD]", part.typed) else ""
        prompt = "" if part.typed == key else part.typed[0] + " "
        self.wait(terminal, lambda: self.ready_for(terminal, prompt, key != ""))
        self.take_all(terminal)
        there = terminal.lines()[1]
        if key and there == "$ ":
            part.trouble = "nothing runs here any more that a key could end"
        elif prompt and there != prompt:
            part.trouble = f"waited in vain for the prompt “{prompt}” to type this"
        elif part.typed != "$":
            text = key or part.typed[2:]
            terminal.type(self.command(text, terminal) if prompt == "$ " else
                          self.with_our_ports(text))

    def take_all(self, terminal):
        """What is there now belongs to what was typed before."""
        lines, prompt = self.lines(terminal)
        if terminal.last and not terminal.last.trouble:
            terminal.last.seen = (terminal.last.seen or []) + lines
            found = fit(terminal.last.shown, terminal.last.seen, self.ports)
            self.ports = found[1] if found else self.ports
        terminal.text = prompt if prompt != UNFINISHED else ""

    def settle(self, terminal, part):
        """The end of a block: take the lines that it shows, and leave the others."""
        self.wait(terminal, lambda: self.has_come(terminal, part))
        lines, prompt = self.lines(terminal)
        found = fit(part.shown, lines, self.ports, whole=False)
        if found:
            count, self.ports = found
        else:
            count = len(lines) if prompt == "$ " else min(len(lines), len(part.shown))
        part.seen = lines[:count]
        terminal.drop(count)

    def command(self, text, terminal):
        """The command with our ports, also where it leaves the port to the program."""
        folder = re.match(r"cd +(\S+)$", text)
        if folder:
            terminal.folder = os.path.normpath(os.path.join(terminal.folder, folder[1]))
        return re.sub(r"(\S+\.py)([^|;&<>]*)",
                      lambda found: self.with_port(*found.groups(), terminal.folder),
                      self.with_our_ports(text))

    def with_port(self, program, words, folder):
        """`program words` with our port behind it, if it would take one."""
        path = pathlib.Path(folder, program)
        asks = re.search(r"\b\d{4,5}\b|--version|--help|@", words)
        if asks or not path.exists():
            return program + words
        port = self.real["9999"]
        if path.name not in ("ChattyCat_Server.py", "ChattyCat_Client.py"):
            is_lesson = path.parent.parent.name == "lessons"
            if not is_lesson or "sys.argv" not in path.read_text(encoding="utf-8"):
                return program + words
        else:
            port = f"--port {port}"
        # A blank belongs to what follows: `... server.py | more`.
        given = words.rstrip()
        return f"{program}{given} {port}{words[len(given):]}"

    def finish(self):
        """What no block shows is taken too: so it is noticed."""
        while self.terminals and self.read(0.2):
            pass
        for terminal in self.terminals.values():
            if not (terminal.last and terminal.last.trouble):
                self.take_all(terminal)


def linux_errno(found):
    name = errno.errorcode.get(int(found[0]))
    return str(LINUX_ERRNO.get(name, found[0]))


def free_ports(text):
    """A free port for each that the page names, of four digits too, and not in it."""
    # Of four digits: nothing gets wider. And nobody gets such a one from the kernel.
    found = []
    while len(found) < len(PORTS):
        port = random.randrange(2000, 9900)
        with socket.socket() as sock:
            try:
                sock.bind(("", port))
            except OSError:
                continue
        if str(port) not in text and str(port) not in found:
            found.append(str(port))
    return dict(zip(PORTS, found))


def play(page):
    """Play all terminals of the page, and return its parts with what was seen."""
    if not any(block.kind == "console" for block in page.blocks):
        return []
    with Stage(page) as stage:
        for block, files in page.story:
            stage.write(files)
            if block.kind == "console":
                stage.play(block)
        stage.finish()
        return stage.parts


# --- the verdict ---

def broken_parts(parts):
    """Each part that did not print what the page shows, and the ports until there."""
    ports = {}
    for part in parts:
        found = fit(part.shown, part.seen, ports) if part.seen is not None else None
        if found and not part.trouble:
            ports = found[1]
        else:
            yield part, ports


def compare(parts):
    """(line, sentence) for each of them."""
    for part, ports in broken_parts(parts):
        if part.trouble or part.seen is None:
            yield part.number - 1, part.trouble or "this was not played"
        else:
            yield first_difference(part, ports)


def first_difference(part, ports):
    count = len(part.shown)
    while not fit(part.shown[:count], part.seen, ports, whole=False):
        count -= 1
    taken = fit(part.shown[:count], part.seen, ports, whole=False)[0]
    got = f"“{part.seen[taken]}”" if taken < len(part.seen) else "nothing more"
    if count == len(part.shown):
        return part.number + count - 1, f"behind this the terminal shows {got}"
    if count and part.shown[count - 1].strip() == "...":
        return part.number + count, (f"the terminal never shows “{part.shown[count]}”; "
                                     f"it ends with “{(part.seen or [''])[-1]}”")
    return part.number + count, f"the terminal shows {got}, not “{part.shown[count]}”"


def mended(part, ports):
    """The output lines as they really are, or None where `...` leaves it open.

    What fits stays as it is: its times and ports need not change with every run.
    """
    if part.seen is None or part.trouble:
        return None
    gaps = [n for n, line in enumerate(part.shown) if line.strip() == "..."]
    if not gaps:
        return merged(part.shown, part.seen, ports)
    before, after = gaps[0], len(part.shown) - gaps[-1] - 1
    if len(gaps) > 1 or len(part.seen) < before + after:
        return None
    tail = merged(part.shown[gaps[0] + 1:], part.seen[len(part.seen) - after:], ports)
    return (merged(part.shown[:before], part.seen[:before], ports)
            + [part.shown[gaps[0]]] + tail)


def merged(shown, seen, ports):
    page_port = {real: mine for mine, real in ports.items()}
    lines = []
    steps = difflib.SequenceMatcher(None, [form(line) for line in shown],
                                    [form(line) for line in seen], autojunk=False)
    for what, a, b, c, d in steps.get_opcodes():
        for line in seen[c:d] if what != "equal" else shown[a:b]:
            if what != "equal":
                line = re.sub(r"\b\d{5}\b", lambda p: page_port.get(p[0], p[0]), line)
            lines.append(line)
    return lines
