"""A real server and real people, for the tests.

    with ServerProcess("--rate", "0") as server:
        with Person(server, "Minou") as minou:
            minou.send({"type": "chat", "text": "Hello"})
            minou.expect("chat", text="Hello")

Nothing here imitates anything: the server is a process of its own, and a person is
a TCP socket. Every wait has a limit, and one that fails says what it waited for
and what came instead.
"""
import collections
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

SERVER = pathlib.Path(__file__).resolve().parent.parent / "ChattyCat_Server.py"
LISTENING = re.compile(r"^ChattyCat server is listening on (\S+):(\d+)$")
COMINGS = ("joined", "left")    # for `skip`: who comes and goes is not the question
FINGERPRINT = re.compile(r"([0-9A-F]{4}-){15}[0-9A-F]{4}$")


def as_module(script):
    """What runs a script as `python script` does: (words, the PYTHONPATH they need).

    That one compiles all of it at each start; `python -m` only if it has changed since
    (conftest.py sees to that). It saves a quarter of what a start costs, and the tests
    start a thousand times.
    """
    return ["-m", script.stem], str(script.parent)


def shorten(text):
    """Without the middle of what is very long: 4,000 times an x tells nobody more."""
    return re.sub(r"(\S{60})\S{100,}", r"\1…", text)


def keep_apart(server, other):
    """Move `other` off the processor that the first server has taken, by chance.

    Where they share it, what holds up the one holds up the other, too, and to compare
    them shows nothing.
    """
    if hasattr(os, "sched_setaffinity"):
        free = os.sched_getaffinity(0) - os.sched_getaffinity(server.pid)
        for task in os.listdir(f"/proc/{other.pid}/task") if free else ():
            os.sched_setaffinity(int(task), free)


class ServerProcess:
    """A server in a process of its own, on a free port.

    `console=True` gives it an operator, whose lines go in with `type_line`. With the
    option "--tls", whoever is a `Person` there speaks TLS.
    When the `with` ends, so does the server: with SIGTERM, exit status 0 and not
    a word on stderr, or the test fails.
    """
    def __init__(self, *options, console=False, quiet_stderr=True):
        self.command = [sys.executable, str(SERVER), "--port", "0"]
        self.command += [] if console else ["--no-console"]
        self.command += [str(option) for option in options]
        self.tls = "--tls" in self.command
        self.stdin = subprocess.PIPE if console else subprocess.DEVNULL
        self.quiet_stderr = quiet_stderr
        self.lines, self.errors = [], []
        self.at_end = []            # the streams that have ended
        self.news = threading.Condition()

    def __enter__(self):
        self.home = tempfile.TemporaryDirectory(prefix="chattycat-")
        env = dict(os.environ, CHATTYCAT_HOME=self.home.name)
        if self.command[1] == str(SERVER):
            self.command[1:2], env["PYTHONPATH"] = as_module(SERVER)
        # Set in some containers, it would hide that the server forgot to flush.
        env.pop("PYTHONUNBUFFERED", None)
        self.process = self.open_process(env)
        self.pid = self.process.pid
        # A pipe that nobody empties fills up, and then the server stands still
        # in a print. So two threads read, whatever the test is doing.
        self.readers = [
            self.start_reader(self.process.stdout, self.lines),
            self.start_reader(self.process.stderr, self.errors)]
        try:
            listening = self.wait_for_line(LISTENING)
        except BaseException:
            self.close(failed=True)
            raise
        self.host, self.port = listening[1], int(listening[2])
        if self.host == "0.0.0.0":      # all addresses: one can listen there,
            self.host = "127.0.0.1"     # but not every system connects there
        return self

    def open_process(self, env):
        return subprocess.Popen(
            self.command, env=env, stdin=self.stdin,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def start_reader(self, stream, lines):
        reader = threading.Thread(
            target=self.collect, args=(stream, lines), daemon=True)
        reader.start()
        return reader

    def collect(self, stream, lines):
        try:
            for line in stream:
                with self.news:
                    lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
                    self.news.notify_all()
        except OSError:
            pass                # how a closed terminal (pty) ends on Linux
        with self.news:
            self.at_end.append(stream)
            self.news.notify_all()

    def wait_for_line(self, pattern, limit=10):
        """The match of the first line on stdout that fits, as soon as it is there."""
        def look():
            matches = (re.search(pattern, line) for line in self.lines)
            return next((match for match in matches if match), None)

        deadline = time.monotonic() + limit
        with self.news:
            while not look() and self.process.stdout not in self.at_end:
                if not self.news.wait(deadline - time.monotonic()):
                    break
            match = look()
        if not match and self.process.stdout in self.at_end:
            self.readers[1].join(5)     # its last words say why it has ended
        shown = "\n".join(self.lines[-20:] + self.errors)
        assert match, f"waited for a line like {pattern!r}, but there was:\n{shown}"
        return match

    def fingerprint(self):
        """That of its certificate, as the operator would read it to somebody."""
        return self.wait_for_line(FINGERPRINT)[0]

    def type_line(self, text):
        """What the operator types, Enter included."""
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def stop(self, signal_number=signal.SIGTERM, limit=10):
        """Ask it to end, and return its exit status."""
        if os.name == "nt":
            self.process.terminate()
        else:
            self.process.send_signal(signal_number)
        return self.process.wait(limit)

    def freeze(self):
        """Let it stand still (until SIGCONT), as a computer that is overloaded."""
        self.process.send_signal(signal.SIGSTOP)
        # That is not instantaneous; the kernel says when it has happened.
        os.waitpid(self.pid, os.WUNTRACED)

    def kill(self):
        self.process.kill()
        self.process.wait(10)

    def close(self, failed=False):
        """End it if the test has not, and look at what it leaves behind."""
        still_ran = self.process.poll() is None
        if failed and still_ran:
            self.kill()
        status = self.stop() if self.process.poll() is None else 0
        for reader in self.readers:
            reader.join(5)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
        self.home.cleanup()
        errors = "\n".join(self.errors)
        if failed:
            print(f"the server's stderr was: {errors or '(empty)'}")
            return
        assert not errors or not self.quiet_stderr, f"on the server's stderr:\n{errors}"
        # Windows ends a process with whatever status terminate() names: nothing
        # to learn from it there.
        assert status == 0 or os.name == "nt", f"exit status {status} after SIGTERM"

    def __exit__(self, kind, error, trace):
        self.close(failed=kind is not None)


@contextlib.contextmanager
def as_without_tls():
    """A connection that breaks is a ConnectionError.

    With ssl.SSLSocket it can also be one of two errors of its own; which one depends
    on the version of Python.
    """
    try:
        yield
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
        raise ConnectionResetError(*error.args) from None


class TLSSocket(ssl.SSLSocket):
    """Python's own socket with TLS, which behaves as one without TLS does."""

    def do_handshake(self, *how):
        with as_without_tls():
            super().do_handshake(*how)

    def recv(self, *how):
        with as_without_tls():
            return super().recv(*how)

    def sendall(self, *how):
        with as_without_tls():
            super().sendall(*how)

    def shutdown(self, how):
        # That of SSLSocket forgets the keys, and could not read what still comes.
        socket.socket.shutdown(self, how)


def tls_context(newest=ssl.TLSVersion.MAXIMUM_SUPPORTED):
    """What a client needs to speak TLS, up to this version of it.

    It takes any certificate. A test that asks whose it is compares fingerprints.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = newest
    context.sslsocket_class = TLSSocket
    return context


TLS_CONTEXT = tls_context()


class Person:
    """Somebody with a socket. With a name: has said hello and read the welcome.

    `tls` is an SSLContext. Without it TLS is spoken if the server has it switched on.
    """
    def __init__(self, server, name=None, receive_buffer=None, limit=5, from_ip=None,
                 tls=None):
        self.name = name or "somebody without a name"
        self.buffer = bytearray()
        self.latest = collections.deque(maxlen=5)   # for the text of a failure
        self.welcome = None
        self.ended = False
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:      # only before connect() does it bound the window
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if from_ip:             # Linux has all of 127.x.x.x
            self.socket.bind((from_ip, 0))
        self.socket.settimeout(limit)
        self.socket.connect((server.host, server.port))
        # Without this, the second of two small sends waits for the first one's ACK.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls or getattr(server, "tls", False):    # (a proxy says nothing of it)
            # An end without TLS's own goodbye is not one in good order (3.9 takes it).
            self.socket = (tls or TLS_CONTEXT).wrap_socket(
                self.socket, suppress_ragged_eofs=False)
        if name:
            self.hello(name)
            self.expect("welcome", limit=limit)

    def hello(self, name, **fields):
        self.send({"type": "hello", "name": name, "version": 1, **fields})

    def send(self, message):
        self.send_raw(json.dumps(message).encode() + b"\n")

    def send_raw(self, data):
        self.socket.settimeout(10)
        self.socket.sendall(data)

    def read_line(self, limit=5):
        """The next line's bytes without its end, or None where the server closed."""
        deadline = time.monotonic() + limit
        start = 0
        while (end := self.buffer.find(b"\n", start)) < 0:
            start = len(self.buffer)
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            piece = self.socket.recv(65536)
            if not piece:
                self.ended = True
                assert not self.buffer, f"half a line, then closed: {self.buffer!r}"
                return None
            self.buffer += piece
        line = bytes(self.buffer[:end])
        del self.buffer[:end + 1]
        return line

    def read(self, limit=5):
        """The next message, or None where the server closed in good order."""
        try:
            line = self.read_line(limit)
        except socket.timeout:
            raise AssertionError(f"{self} waited {limit} s in vain") from None
        except ConnectionError as error:
            raise AssertionError(f"{self}: connection broken: {error}") from None
        message = None if line is None else json.loads(line)
        self.latest.append(message)
        if message and message["type"] == "welcome":
            self.welcome = message
        return message

    def expect(self, kind, skip=(), limit=5, **fields):
        """The next message, which must be of this type and hold these fields.

        Only types in `skip` may come before it. The field `from`, a word that
        Python keeps to itself, is written `from_`.
        """
        wanted = {"type": kind}
        wanted.update((key.rstrip("_"), value) for key, value in fields.items())
        try:
            message = self.read(limit)
            while message and message["type"] in skip:
                message = self.read(limit)
        except AssertionError as error:
            raise AssertionError(f"{error} (waiting for {wanted})") from None
        fits = message and all(
            key in message and message[key] == wanted[key] for key in wanted)
        assert fits, shorten(f"{self} waited for {wanted}, but there came {message}")
        return message

    def say(self, text, **fields):
        """Send a chat and return its receipt."""
        self.send({"type": "chat", "text": text, **fields})
        return self.expect("chat", skip=COMINGS)

    def silence(self):
        """Prove that nothing has come, without waiting for it not to come.

        The answer to a `list` stands behind all that was sent before.
        """
        self.send({"type": "list"})
        return self.expect("people")

    def until_closed(self, limit=5):
        """All messages up to the end of the connection."""
        deadline = time.monotonic() + limit
        messages = []
        while message := self.read(max(deadline - time.monotonic(), 0.001)):
            messages.append(message)
        return messages

    def leave(self):
        """Say bye, and wait until the server has closed.

        So nobody who comes afterwards can meet this person's `left`.
        """
        if self.welcome and not self.ended:
            try:
                self.send({"type": "bye"})
                while self.read_line() is not None:
                    pass
            except OSError:
                pass            # broken already: then that was what the test wanted
        self.close()

    def reset(self):
        """Break the connection as a crash does: with RST instead of FIN."""
        self.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER,
            struct.pack("hh" if os.name == "nt" else "ii", 1, 0))
        self.close()

    def close(self):
        self.ended = True
        self.socket.close()

    def __str__(self):
        latest = "".join(f"\n  {message}" for message in self.latest)
        return shorten(f"{self.name} (the latest that came:{latest})")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()
