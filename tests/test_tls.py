"""What --tls promises: nobody reads along, nobody changes a line, nobody plays the
server. Strangers on its port are gone by the same limits as on any other.

tests/eavesdropper.py is who sits in between; its docstring says how to try it.
"""
import collections
import concurrent.futures
import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import random
import re
import selectors
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
import warnings

import pytest

import eavesdropper
from eavesdropper import Eavesdropper, anybody
from people import COMINGS, SERVER, Person, ServerProcess, as_module, tls_context
from test_bad_guests import may_open, resources, wait_for_resources
from test_connection import TIME
from test_plain_lines import CLIENT, POSIX, WAYS, plain

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(not OPENSSL, reason="needs the command openssl")
LONG = pytest.mark.long
NUMBERS = itertools.count(1)
NOISE = random.Random(6).randbytes(100_000)

# A Python that was built without OpenSSL.
WITHOUT_SSL = """
import runpy, sys
sys.modules["ssl"] = sys.modules["_ssl"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


# ------------------------------------------------------------------- servers and people

class TLSServer(ServerProcess):
    """A server with --tls; what stands in `env` is put into its environment."""

    def __init__(self, *options, env=None, **how):
        super().__init__("--tls", "--rate", "0", "--recent", "0", *options, **how)
        self.env = env or {}

    def open_process(self, env):
        return super().open_process({**env, **self.env})


Place = collections.namedtuple("Place", "host port")


def stranger(server, say=b""):
    """Somebody who speaks no TLS, or whose TLS the test makes by hand."""
    person = Person(Place(server.host, server.port))
    if say:
        person.send_raw(say)
    return person


@pytest.fixture(scope="module")
def server():
    with TLSServer("--max-clients", "1000", console=True) as process:
        yield process
    assert not [line for line in process.lines if "Traceback" in line]


@pytest.fixture
def two(server):
    """Two who talk over TLS. When the test is over nothing else is left in the server.
    """
    people = [Person(server, f"{name}{next(NUMBERS)}") for name in ("Ann", "Bob")]
    people[0].expect("joined")
    before = resources(server)
    yield people
    talk(people)
    wait_for_resources(server, before)
    for person in people:
        person.leave()
    if before:                          # the next test will count, too
        threads, descriptors = before
        wait_for_resources(server, (threads - 2, descriptors - 4))


def talk(people):
    """Each says a line, and all read it. Who comes and goes meanwhile is not looked at.
    """
    for speaker in people:
        text = f"line {next(NUMBERS)}"
        speaker.send({"type": "chat", "text": text})
        for person in people:
            while person.expect("chat", skip=COMINGS)["text"] != text:
                pass                    # what was said earlier, to somebody else


def wait_until(condition, what, limit=10):
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"waited {limit} s for this: {what}"
        time.sleep(0.01)


def openssl(*words):
    """What the command openssl prints."""
    return subprocess.run([OPENSSL, *map(str, words)], check=True, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, timeout=20).stdout


def new_certificate(folder, name="other"):
    """(A file with a certificate, one with its key, one with both.)"""
    cert, key, both = (folder / f"{name}.{end}" for end in ("crt", "key", "pem"))
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", key, "-out", cert)
    both.write_text(key.read_text() + cert.read_text())
    return cert, key, both


def digits(fingerprint):
    return re.sub("[^0-9A-F]", "", fingerprint.upper())


def fingerprint_by_openssl(cert):
    said = openssl("x509", "-in", cert, "-noout", "-fingerprint", "-sha256")
    return digits(said.partition("=")[2])


def fingerprint_by_wire(server):
    pem = ssl.get_server_certificate((server.host, server.port))
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()


# ---------------------------------------------------------------------- the certificate

def failed_start(*options, **env):
    """What a server says that does not start."""
    module, folder = as_module(SERVER)
    command = [sys.executable, *module, "--port", "0", "--no-console", *options]
    done = subprocess.run(
        list(map(str, command)), env={**os.environ, "PYTHONPATH": folder, **env},
        stdin=subprocess.DEVNULL, capture_output=True, timeout=50,
        start_new_session=True)                 # no terminal to ask somebody on
    said = done.stderr.decode("utf-8", "backslashreplace")
    assert (done.returncode, done.stdout) == (2, b""), said
    return said


def refusal(*options, **env):
    """The same, if it is one sentence."""
    said = failed_start(*options, **env)
    assert re.fullmatch(r"ChattyCat_Server\.py: [^\n]*\w\)?\.\n", said), said
    # What Python says of its own objects tells an operator nothing.
    assert not re.search("Traceback|NoneType|codec", said), said
    return said


def test_the_certificate_is_made_once(tmp_path):
    home = tmp_path / "new" / "home"
    env = {"CHATTYCAT_HOME": str(home)}
    with TLSServer(env=env) as first:
        assert fingerprint_by_wire(first) == digits(first.fingerprint())
    made = home / "server_certificate.pem"
    assert os.listdir(home) == [made.name]      # and nothing that was only in between
    before = made.read_bytes()
    with TLSServer(env=env) as second:
        assert second.fingerprint() == first.fingerprint()
    assert made.read_bytes() == before
    assert fingerprint_by_openssl(made) == digits(first.fingerprint())
    text = openssl("x509", "-in", made, "-noout", "-text")
    assert re.search("prime256v1|P-256", text)
    assert "ecdsa-with-SHA256" in text
    assert "DNS:localhost" in text and "127.0.0.1" in text


@POSIX
def test_nobody_else_may_read_the_key(tmp_path):
    home = tmp_path / "home"
    umask = os.umask(0)                 # whatever this user usually lets others read
    try:
        with TLSServer(env={"CHATTYCAT_HOME": str(home)}):
            assert stat.S_IMODE(home.stat().st_mode) == 0o700
            made = home / "server_certificate.pem"
            assert stat.S_IMODE(made.stat().st_mode) == 0o600
    finally:
        os.umask(umask)


def test_a_certificate_of_our_own(tmp_path):
    cert, key, both = new_certificate(tmp_path)
    for options in (("--cert", cert, "--key", key), ("--cert", both)):
        with TLSServer(*options) as server:
            assert digits(server.fingerprint()) == fingerprint_by_openssl(cert)
            assert fingerprint_by_wire(server) == digits(server.fingerprint())
            assert os.listdir(server.home.name) == []   # none was made
            Person(server, "Minou").leave()


def test_a_certificate_that_cannot_be_used(tmp_path):
    cert, key, both = new_certificate(tmp_path)
    other_key = new_certificate(tmp_path, "another")[1]
    empty, noise = tmp_path / "empty", tmp_path / "noise"
    empty.write_bytes(b"")
    noise.write_bytes(NOISE[:1000])
    missing = tmp_path / "missing"
    for options in (
            (cert, "--key", other_key), (cert,), (key,), (missing,),
            (cert, "--key", missing), (empty,), (noise,), (both, "--key", empty)):
        said = refusal("--tls", "--cert", *options)
        assert options[0].name in said and "--cert" in said, said


@POSIX
def test_a_key_that_may_not_be_read(tmp_path):
    cert, key, _ = new_certificate(tmp_path)
    key.chmod(0)
    if os.access(key, os.R_OK):         # root may read everything
        TLSServer("--cert", cert, "--key", key).__enter__().close()
    else:
        assert "ermission" in refusal("--tls", "--cert", cert, "--key", key)


def test_a_key_with_a_password_and_nobody_to_ask(tmp_path):
    cert, key, _ = new_certificate(tmp_path)
    locked = tmp_path / "locked.key"
    openssl("ec", "-in", key, "-aes128", "-passout", "pass:meow", "-out", locked)
    # Above it OpenSSL has asked for the password, and so it should where it can.
    said = failed_start("--tls", "--cert", cert, "--key", locked)
    assert said.splitlines()[-1].startswith("ChattyCat_Server.py: the certificate in")


def test_cert_and_key_alone(tmp_path):
    cert, key, both = new_certificate(tmp_path)
    assert "--tls" in refusal("--cert", both)
    assert "--cert" in refusal("--tls", "--key", key)


def test_the_kept_certificate_is_damaged(tmp_path):
    with TLSServer(env={"CHATTYCAT_HOME": str(tmp_path)}):
        pass
    made = tmp_path / "server_certificate.pem"
    good = made.read_text()
    for bad in ("", good[:len(good) // 2]):
        made.write_text(bad)
        assert str(made) in refusal("--tls", CHATTYCAT_HOME=str(tmp_path))
        assert made.read_text() == bad          # it may be mended: we leave it alone


@POSIX
def test_no_openssl(tmp_path):
    home, nothing = tmp_path / "home", tmp_path / "nothing"
    nothing.mkdir()
    said = refusal("--tls", CHATTYCAT_HOME=str(home), PATH=str(nothing))
    assert "sudo apt install openssl" in said
    assert not home.exists() or os.listdir(home) == []


def fake_openssl(folder, script):
    """A PATH where openssl is this."""
    folder.mkdir()
    fake = folder / "openssl"
    fake.write_bytes(b"#!/bin/sh\n" + script)
    fake.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@POSIX
@pytest.mark.parametrize("script", [
    b"echo 'first line' >&2; echo 'it went wrong' >&2; exit 1", b"exit 1", b"exit 0",
    b"kill -9 $$", b"printf 'no character: \\377\\376' >&2; exit 1",
    pytest.param(b"exec sleep 100", marks=LONG),
    pytest.param(b"echo 'I think' >&2; exec sleep 100", marks=LONG)],
    ids=["says why", "says nothing", "makes nothing", "killed", "no text", "hangs",
         "says something and hangs"])
def test_an_openssl_that_fails(tmp_path, script):
    home = tmp_path / "home"
    path = fake_openssl(tmp_path / "fake", script)
    said = refusal("--tls", CHATTYCAT_HOME=str(home), PATH=path)
    assert "--cert" in said
    assert ("it went wrong" in said) == (b"it went wrong" in script)
    assert os.listdir(home) == []


def test_a_home_that_is_a_file(tmp_path):
    home = tmp_path / "home"
    home.write_text("")
    assert "--cert" in refusal("--tls", CHATTYCAT_HOME=str(home))


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=LONG)])
def test_two_servers_at_once_in_an_empty_home(tmp_path, rounds):
    """Each prints the fingerprint of the certificate that it uses, and one stays."""
    for number in range(rounds):
        env = {"CHATTYCAT_HOME": str(tmp_path / str(number))}
        with contextlib.ExitStack() as stack, \
                concurrent.futures.ThreadPoolExecutor(2) as threads:
            starts = [threads.submit(TLSServer(env=env).__enter__) for _ in "12"]
            servers = [stack.push(start.result()) for start in starts]
            third = stack.enter_context(TLSServer(env=env))
            for server in (*servers, third):
                assert fingerprint_by_wire(server) == digits(server.fingerprint())
                Person(server, "Minou").leave()
            assert third.fingerprint() in [each.fingerprint() for each in servers]


# -------------------------------------------------------------------------- handshakes

class SClient:
    """`openssl s_client`, a program that none of us has written."""

    def __init__(self, server, *options):
        self.process = subprocess.Popen(
            [OPENSSL, "s_client", "-connect", f"{server.host}:{server.port}", *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def send(self, message):
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def read(self):
        return json.loads(self.process.stdout.readline())

    def end(self):
        """(Exit status, what else it printed, and its complaints.)"""
        try:
            out, complaints = self.process.communicate(timeout=10)
        finally:
            self.process.kill()
        return self.process.returncode, out, complaints.decode()


def test_s_client(server, two):
    guest = SClient(server, "-quiet")
    guest.send({"type": "hello", "name": "Openssl", "version": 1})
    assert guest.read()["type"] == "welcome"
    two[0].expect("joined", name="Openssl")
    guest.send({"type": "chat", "text": "made elsewhere"})
    assert guest.read()["text"] == "made elsewhere"
    two[0].expect("chat", text="made elsewhere", from_="Openssl")
    two[0].say("Hello Openssl")
    assert guest.read()["text"] == "Hello Openssl"
    guest.send({"type": "bye"})
    assert guest.read()["type"] == "goodbye"
    status, out, complaints = guest.end()
    # 0 only if TLS was ended by its own goodbye (close_notify), and not just cut.
    assert (status, out) == (0, b"") and "unexpected eof" not in complaints


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_versions_that_are_spoken(server, two, version):
    newest = getattr(ssl.TLSVersion, version.replace(".", "_"))
    person = Person(server, f"Guest{next(NUMBERS)}", tls=tls_context(newest))
    assert person.socket.version() == version
    talk([*two, person])
    person.leave()


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_versions_that_are_refused(server, two, version):
    if not getattr(ssl, f"HAS_{version}"):
        pytest.skip("this Python has no TLS that is so old")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)     # that is the point
        context = tls_context(getattr(ssl.TLSVersion, version))
        context.minimum_version = getattr(ssl.TLSVersion, version)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    # An alert says why; a connection that is only cut would be tried again and again.
    with pytest.raises(ssl.SSLError, match="(?i)alert.protocol.version"):
        Person(server, tls=context)


@pytest.mark.parametrize("with_a_line", [
    False, pytest.param(True, marks=POSIX)], ids=["alone", "with a line"])
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_the_goodbye_of_tls_is_an_end(server, two, version, with_a_line):
    """As a FIN is without it: they have no more to say. The answer is ours."""
    name = f"Guest{next(NUMBERS)}"
    person = Person(server, name, tls=tls_context(getattr(ssl.TLSVersion, version)))
    if with_a_line:
        server.freeze()                 # so that both arrive in one piece
        person.send({"type": "chat", "text": "the last word"})
    below = None
    person.socket.settimeout(0)
    with contextlib.suppress(ssl.SSLWantReadError):     # it may be as quick as we are
        below = person.socket.unwrap()  # says it…
    if with_a_line:
        server.process.send_signal(signal.SIGCONT)
        person.expect("chat", text="the last word")
    person.socket.settimeout(5)
    below = below or person.socket.unwrap()     # …and reads the server's
    two[0].expect("left", skip=["joined", "chat"], name=name, reason="lost")
    assert below.recv(1) == b""
    below.close()


def test_no_handshake_after_the_handshake(server, two):
    """Renegotiation: TLS 1.2 had it, and a handshake costs the server more than whoever
    asks for it."""
    guest = SClient(server, "-tls1_2")
    guest.process.stdin.write(b"R\n")           # s_client's key for it
    guest.process.stdin.flush()
    _, out, complaints = guest.end()
    assert b"RENEGOTIATING" in out + complaints.encode()
    assert "no renegotiation" in complaints, complaints


def test_a_handshake_byte_by_byte(server, two):
    person = stranger(server)
    arrived, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = anybody().wrap_bio(arrived, leaving)

    def until_done(step):
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                return step()
            trickle()
            arrived.write(person.socket.recv(1))

    def trickle():
        for byte in leaving.read():
            person.send_raw(bytes([byte]))

    until_done(tls.do_handshake)
    tls.write(b'{"type":"hello","name":"Slow","version":1}\n')
    trickle()
    assert json.loads(until_done(lambda: tls.read(65536)))["type"] == "welcome"
    two[0].expect("joined", name="Slow")
    talk(two)
    person.reset()
    two[0].expect("left", skip=["chat"], name="Slow", reason="lost")


# ---------------------------------------------------------------------------- strangers

def client_hello():
    """The first words of a TLS client."""
    arrived, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        anybody().wrap_bio(arrived, leaving).do_handshake()
    return leaving.read()


def all_that_comes(person, limit=10):
    """What the server sends up to the end of the connection, FIN or RST."""
    came = bytearray()
    person.socket.settimeout(limit)
    with contextlib.suppress(ConnectionError):
        while piece := person.socket.recv(65536):
            came += piece
    return bytes(came)


@pytest.mark.parametrize("garbage", [
    NOISE, b"\x16\x03\x01" + NOISE, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + NOISE,
    b"\x80\x2e\x01\x03\x01" + NOISE, bytes(100_000), b"\xff" * 100_000,
    client_hello()[:100] + NOISE, client_hello() + NOISE, 50 * client_hello()],
    ids=["noise", "a head", "a longer head", "an old head", "zeros", "ones",
         "half a hello", "a hello", "many hellos"])
def test_garbage(server, two, garbage):
    for _ in range(3):
        person = stranger(server)
        with contextlib.suppress(ConnectionError):
            person.send_raw(garbage)
        talk(two)
        assert b'"welcome"' not in all_that_comes(person)
        person.close()


@pytest.mark.parametrize("said", [
    b'{"type": "hello", "name": "Plain", "version": 1}\n',
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n",
    b"CONNECT localhost:22 HTTP/1.1\r\n\r\n", b"Hello?\n", b"\n\n\n\n\n\n"],
    ids=lambda said: said.split()[0].decode() if said.strip() else "newlines")
def test_who_comes_without_tls_is_told_so(server, two, said):
    for data in (said, said + 2000 * b"x"):
        person = stranger(server, data)
        error = person.expect("error", code="bad_message")
        goodbye = person.expect("goodbye")
        assert person.until_closed() == []
        person.close()
        for text in (error["text"], goodbye["text"]):
            assert "TLS" in text and text.endswith(".") and "\n" not in text
    talk(two)


def test_the_operator_reads_of_it_once():
    with TLSServer() as server:
        for _ in range(5):
            for data in (b"Hello?\n", b"\x16\x03\x01" + NOISE[:1000]):
                person = stranger(server, data)
                all_that_comes(person)
                person.close()
    assert sum("without TLS" in line for line in server.lines) == 1
    assert sum("TLS has failed" in line for line in server.lines) == 1


@pytest.mark.parametrize("leave", [Person.close, Person.reset],
                         ids=["close", "reset"])
def test_who_leaves_within_the_handshake(server, two, leave):
    hello = client_hello()
    for say in (b"", hello[:1], hello[:100], hello):
        for person in [stranger(server, say) for _ in range(10)]:
            leave(person)
        talk(two)


def ended(people, wanted, meanwhile, limit=20):
    """Wait until so many connections are over; {person: all that came}, and who."""
    came, gone = {person: bytearray() for person in people}, []
    end = time.monotonic() + limit
    with selectors.DefaultSelector() as selector:
        for person in people:
            selector.register(person.socket, selectors.EVENT_READ, person)
        while len(gone) < wanted:
            assert time.monotonic() < end, f"{len(gone)} of {wanted} were sent away"
            for key, _ in selector.select(0.2):
                piece = key.fileobj.recv(65536)
                came[key.data] += piece
                if not piece:
                    selector.unregister(key.fileobj)
                    gone.append(key.data)
            meanwhile()
    return came, gone


def test_300_with_half_a_handshake(server, two):
    """Of those who are older than 5 s, the 64 youngest may stay: silent, or with half a
    hello, or with a whole one. What is said in the room they don't read."""
    may_open(1000)
    whole = client_hello()
    says = [b"", whole[:len(whole) // 2], whole]
    begin = time.monotonic()
    people = [stranger(server, says[number % 3]) for number in range(300)]
    came, gone = ended(people, 236, lambda: talk(two))
    assert time.monotonic() - begin > 5
    assert set(gone) == set(people[:236])
    for number, person in enumerate(people[:236]):
        # The answer to a hello, and not a byte more for all that was said since.
        assert bool(came[person]) == (number % 3 == 2)
        assert b"type" not in came[person] and len(came[person]) < 2000
    for person in people:
        person.close()


@LONG
def test_a_minute_without_a_handshake(server, two):
    hello = client_hello()
    begin = time.monotonic()
    people = [stranger(server, say) for say in (b"", hello[:1], hello[:100], hello)]
    ended(people, 4, lambda: talk(two), limit=70)
    assert 59 < time.monotonic() - begin < 63
    for person in people:
        person.close()


def test_strangers_hold_up_no_shutdown():
    with TLSServer() as server:
        hello = client_hello()
        people = [stranger(server, say) for say in (b"", hello[:50], hello)]
        minou = Person(server, "Minou")
        begin = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begin < 2.5
        minou.expect("goodbye", reason="shutdown")
        assert minou.until_closed() == []       # with TLS's own goodbye
        for person in people:
            assert b"type" not in all_that_comes(person)
            person.close()


@pytest.mark.parametrize("said", [
    b'{"type":"list"}\n', b"GET / HTTP/1.1\r\n\r\n", NOISE, client_hello()],
    ids=["a line", "http", "noise", "a new hello"])
def test_plain_bytes_inside_of_tls(server, two, said):
    """Whoever can put bytes into a connection that stands can end it. That is all: in
    clear they get no answer, and above all not what others say meanwhile."""
    name = f"Guest{next(NUMBERS)}"
    guest = Person(server, name)
    two[0].expect("joined", name=name)
    guest.send({"type": "chat", "text": "x" * 4000, "to": name})
    with contextlib.suppress(ConnectionError):
        socket.socket.sendall(guest.socket, said)       # past its own TLS
    two[0].expect("left", name=name, reason="lost")
    came = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := socket.socket.recv(guest.socket, 65536):
            came += piece
    assert b"type" not in came and b"xxxx" not in came
    guest.close()


# -------------------------------------------------------------- TLS to a plain server

def test_tls_to_a_plain_server():
    with ServerProcess() as server, Person(server, "Minou") as minou:
        for _ in range(3):
            person = stranger(server, client_hello())
            error = person.expect("error", code="bad_message")
            assert "TLS" in error["text"] and error["text"].endswith(".")
            person.close()
        assert SClient(server, "-quiet").end()[0] != 0
        assert minou.say("I am still here")
    assert sum("Somebody tried TLS" in line for line in server.lines) == 1


# ------------------------------------------------------------------------ eavesdroppers

SECRETS = ("Minou", "meow in the dark", "open sesame", "hello", "chat", "welcome")


def a_talk(server, tls):
    """Somebody comes in, says something, leaves; return the secret of the session."""
    minou = Person(server, tls=tls)
    minou.hello("Minou", password="open sesame")
    minou.expect("welcome")
    minou.say("meow in the dark")
    minou.leave()
    return minou.welcome["session"]


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
def test_what_can_be_read_on_the_way(monkeypatch, encrypted):
    """With TLS not a word. Without it everything: so he can read, if there is anything.
    """
    monkeypatch.setenv("CHATTYCAT_PASSWORD", "open sesame")
    with (TLSServer if encrypted else ServerProcess)() as server, Eavesdropper(
            (server.host, server.port)) as middle:
        session = a_talk(middle, tls_context() if encrypted else None)
    heard = bytes(middle.heard["client"] + middle.heard["server"])
    assert len(heard) > 300
    read = {secret for secret in (*SECRETS, session) if secret.encode() in heard}
    assert read == (set() if encrypted else {*SECRETS, session})


@pytest.fixture
def middle(server):
    with Eavesdropper((server.host, server.port)) as between:
        yield between


def come_through(middle, two):
    person = Person(middle, f"Guest{next(NUMBERS)}", tls=tls_context())
    for each in two:
        each.expect("joined", name=person.name)
    return person


@pytest.mark.parametrize("times", range(3))
def test_a_byte_is_changed_on_the_way_to_the_server(middle, two, times):
    guest = come_through(middle, two)
    guest.say("as I said it")
    middle.change("client")
    guest.send({"type": "chat", "text": "10 mice for Tigrou"})
    for each in two:
        each.expect("chat", text="as I said it")
        each.expect("left", name=guest.name, reason="lost")     # and no line before it
    with pytest.raises(OSError):
        guest.read_line()
    guest.close()


@pytest.mark.parametrize("times", range(3))
def test_a_byte_is_changed_on_the_way_to_the_client(middle, two, times):
    guest = come_through(middle, two)
    middle.change("server")
    two[0].say("10 mice for Tigrou")
    with pytest.raises(ssl.SSLError, match="(?i)mac|decrypt"):
        guest.read_line()
    assert guest.buffer == b""
    guest.close()
    two[0].expect("left", name=guest.name, reason="lost")


def test_an_end_without_a_goodbye(middle, two):
    """Who cuts the line can't make it look like a bye: that one is sealed."""
    guest = come_through(middle, two)
    middle.cut()
    two[0].expect("left", name=guest.name, reason="lost")
    guest.close()


@POSIX
def test_the_eavesdropper_is_a_program(start_server):
    server = start_server()
    program = subprocess.Popen(
        [sys.executable, eavesdropper.__file__, f"{server.host}:{server.port}",
         "--listen", "0"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    host, port = program.stdout.readline().split()[2].strip(";").split(":")
    Person(Place(host, int(port)), "Minou").leave()
    program.send_signal(signal.SIGINT)
    shown, _ = program.communicate(timeout=10)
    assert program.returncode == 0
    assert "--- the client says" in shown and "--- the server says" in shown
    assert re.search('"name": "Minou"', shown) and "goodbye" in shown


# --------------------------------------------------------------------------- our client

def known_servers(client):
    """What this client remembers: {"host:port": fingerprint}."""
    path = pathlib.Path(client.env["CHATTYCAT_HOME"], "known_servers.json")
    if os.name != "nt" and path.exists():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return json.loads(path.read_text()) if path.exists() else {}


def guest_client(plain, where, *options, **how):
    """A client that comes in, or not. Its name is another one each time."""
    name = f"Guest{next(NUMBERS)}"
    client = plain(where, "--name", name, *options, **how)
    client.name = name
    return client


def has_come_in(client, two):
    client.wait_for(f"You are in as {client.name}; ")
    for person in two:
        person.expect("joined", skip=["chat", "left"], name=client.name)


def test_the_client_over_tls(server, two, middle, plain):
    client = guest_client(plain, middle, "--fingerprint", server.fingerprint())
    has_come_in(client, two)
    client.type_line("meow in the dark")
    two[0].expect("chat", text="meow in the dark", from_=client.name)
    two[0].say("purr in the dark")
    client.wait_for("purr in the dark")
    client.close_input()
    assert client.status() == 0
    two[0].expect("left", name=client.name, reason="bye")
    assert known_servers(client) == {
        f"{middle.host}:{middle.port}": server.fingerprint()}
    for word in (client.name.encode(), b"in the dark", b"hello", b"chat", b"welcome"):
        assert word not in middle.heard["client"] + middle.heard["server"]


def turn_bad(middle, folder):
    """The one in between has a certificate of his own from now on; return its
    fingerprint as our programs print it."""
    cert, _, both = new_certificate(folder)
    middle.certificate = both
    middle.cut()
    middle.heard = {"client": bytearray(), "server": bytearray()}
    return "-".join(re.findall("....", fingerprint_by_openssl(cert)))


def is_refused(client, middle, *fingerprints):
    """The client shows these, ends with 1, and has told the one in between nothing."""
    for shown in fingerprints:
        client.wait_for(shown)
    client.close_input()
    assert client.status() == 1
    wait_until(lambda: not middle.lines, "the end of the connection")
    assert middle.heard["client"] == b""


def test_a_man_in_the_middle_of_a_given_fingerprint(
        server, two, middle, plain, tmp_path):
    """The promise of all this. That he can read, where he is trusted, is shown too."""
    bad = turn_bad(middle, tmp_path)
    good = server.fingerprint()
    client = guest_client(plain, middle, "--fingerprint", good)
    client.type_line("/trust")          # to say this does not help him either
    is_refused(client, middle, "not the server that you know", good, bad)
    assert known_servers(client) == {}
    fooled = guest_client(plain, middle, "--fingerprint", bad)
    fooled.wait_for(f"You are in as {fooled.name}; ")
    assert fooled.name.encode() in middle.heard["client"]


def test_a_man_in_the_middle_at_the_first_time(server, two, middle, plain, tmp_path):
    bad = turn_bad(middle, tmp_path)
    client = guest_client(plain, middle, "--tls", CHATTYCAT_PASSWORD="open sesame")
    client.type_line("meow in the dark")
    is_refused(client, middle, "do not know yet", bad)
    assert known_servers(client) == {}


def test_trust_on_first_use(server, two, middle, plain):
    good = server.fingerprint()
    client = guest_client(plain, middle, "--tls", terminal=True)
    client.wait_for(good)               # so that one could compare it
    client.type_line("/trust")
    has_come_in(client, two)
    client.type_line("/quit")
    assert client.status() == 0
    assert known_servers(client) == {f"{middle.host}:{middle.port}": good}


def test_a_pipe_trusts_nobody(server, two, middle, plain):
    """It was written before any fingerprint was shown: nobody has compared it."""
    client = guest_client(plain, middle, "--tls")
    client.type_line("/trust")
    client.type_line("Hello")
    assert client.status() == 1
    assert server.fingerprint() in client.text and "--fingerprint" in client.text
    assert known_servers(client) == {}


def test_a_man_in_the_middle_of_a_known_server(server, two, middle, plain, tmp_path):
    """He is refused while the client comes back by itself, and at its next start."""
    good, home = server.fingerprint(), str(tmp_path)
    known = tmp_path / "known_servers.json"
    known.write_text(json.dumps({f"{middle.host}:{middle.port}": good}))
    client = guest_client(plain, middle, "--tls", CHATTYCAT_HOME=home)
    has_come_in(client, two)
    assert good not in client.text      # nobody was asked
    bad = turn_bad(middle, tmp_path)
    client.type_line("/trust")          # is not how to accept a change
    is_refused(client, middle, "not the server that you know", good, bad)
    later = guest_client(plain, middle, "--tls", CHATTYCAT_HOME=home)
    is_refused(later, middle, "not the server that you know", good, bad)
    assert set(json.loads(known.read_text()).values()) == {good}


def test_a_server_that_has_another_certificate(plain):
    """It was started again, on another computer perhaps: no hello leaves for it."""
    with TLSServer() as server:
        client = guest_client(plain, server, "--fingerprint", server.fingerprint())
        client.wait_for("You are in as")
    with TLSServer("--port", server.port, "--trace") as other:
        client.wait_for("not the server that you know")
        client.wait_for(other.fingerprint())
        client.close_input()
        assert client.status() == 1
        Person(other, "Minou").leave()
    hellos = [line for line in other.lines if '"hello"' in line]
    assert len(hellos) == 1 and "Minou" in hellos[0], hellos


def test_how_a_fingerprint_may_be_typed(server, two, plain):
    good = server.fingerprint()
    for typed in (good.lower(), digits(good), good.replace("-", " "),
                  ":".join(re.findall("..", digits(good)))):
        client = guest_client(plain, server, "--fingerprint", typed)
        has_come_in(client, two)


@pytest.mark.parametrize("typed", [
    "", "A", 31 * "AB", 33 * "AB", 32 * "XY", 32 * "٣٣", "sha256:" + 32 * "AB"])
def test_what_is_no_fingerprint(plain, typed):
    client = plain(None, "--fingerprint", typed)
    assert client.status() == 2
    sentence = r"ChattyCat_Client\.py: [^\n]*fingerprint[^\n]*\.\n"
    assert re.fullmatch(sentence, client.text), client.text


def test_a_tls_client_and_a_plain_server(start_server, plain):
    client = guest_client(plain, start_server(), "--tls")
    client.close_input()
    assert client.status() == 1
    assert sum("no TLS" in line for line in client.printed) == 1


def test_a_plain_client_and_a_tls_server(server, two, plain):
    client = guest_client(plain, server)
    client.close_input()
    assert client.status() == 1
    assert sum("TLS" in line for line in client.printed) == 1


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_changed_byte_and_our_client(server, two, middle, plain, side):
    """It connects again, and what was said is read once, as it was said."""
    client = guest_client(plain, middle, "--fingerprint", server.fingerprint())
    has_come_in(client, two)
    text = f"{next(NUMBERS)} mice for Tigrou"
    middle.change(side)
    client.type_line(text)
    client.wait_for(f": {text}$")
    client.type_line("that is all")
    client.wait_for(": that is all$")
    assert client.text.count(text) == 1
    for person in two:
        person.expect("chat", skip=COMINGS, text=text)
        person.expect("chat", skip=COMINGS, text="that is all")


class SpeaksFirst:
    """Somebody with a certificate who says a line together with the end of the
    handshake, before anybody could look at who they are. (With TLS 1.2: there the
    server has the last word of it.)"""

    def __init__(self, certificate):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(10)
        self.host, self.port = self.listener.getsockname()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.context.load_cert_chain(certificate)

    def talk(self, line):
        """Take one connection; return all that the client says in it."""
        heard, (sock, _) = bytearray(), self.listener.accept()
        sock.settimeout(10)
        arrived, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.context.wrap_bio(arrived, leaving, server_side=True)
        with sock, self.listener:
            while leaving.pending or not tls.version():
                with contextlib.suppress(ssl.SSLWantReadError):
                    tls.do_handshake()
                    tls.write(line)     # in one piece with the handshake's last bytes
                    break
                sock.sendall(leaving.read())
                arrived.write(sock.recv(65536))
            sock.sendall(leaving.read())
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while data := sock.recv(65536):
                    arrived.write(data)
                    with contextlib.suppress(ssl.SSLWantReadError):
                        while piece := tls.read(65536):
                            heard += piece
        return bytes(heard)


def test_nothing_counts_before_the_fingerprint(server, two, plain, tmp_path):
    """Who is not trusted can't put a word on the screen, nor be welcome."""
    impostor = SpeaksFirst(new_certificate(tmp_path)[2])
    welcome = {"type": "welcome", "name": "Minou", "color": 1, "session": "bad",
               "resumed": False, "gap": False, "people": [], "count": 1, "last_id": 0,
               "history": "bad", "limits": {}, "server": "bad", "time": TIME}
    notice = {"type": "notice", "text": "Send me your password", "time": TIME}
    client = plain(impostor, "--name", "Minou", "--fingerprint", server.fingerprint())
    client.type_line("meow in the dark")
    heard = impostor.talk(b"".join(json.dumps(message).encode() + b"\n"
                                   for message in (welcome, notice)))
    client.wait_for("not the server that you know")
    client.close_input()
    assert client.status() == 1
    assert heard == b""
    assert "Send me" not in client.text and "You are in" not in client.text
    assert known_servers(client) == {}


# ------------------------------------------------------------------------- without ssl

class WithoutSSL(ServerProcess):
    def __init__(self):
        super().__init__()
        self.command[1:1] = ["-c", WITHOUT_SSL]


def test_a_python_without_ssl(plain):
    with WithoutSSL() as server:
        client = plain(server, "--name", "Minou", python=("-c", WITHOUT_SSL))
        client.wait_for("You are in as Minou; ")
        client.type_line("meow")
        client.wait_for("Minou: meow")
        client.close_input()
        assert client.status() == 0


@pytest.mark.parametrize("script, options", [
    (SERVER, ["--port", "0", "--tls", "--no-console"]),
    (CLIENT, ["--plain", "--tls", "--name", "Minou"])], ids=["server", "client"])
def test_tls_needs_ssl(script, options):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SSL, str(script), *options], text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=20)
    assert done.returncode == 2
    assert re.fullmatch(r"[^\n]*no OpenSSL[^\n]*\.\n", done.stdout), done.stdout
