"""A chat with a door: who does not know the password stays outside, whoever tries it
out is slowed and nobody else, and nothing that is kept or shown tells it.
"""
import ast
import base64
import collections
import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import re
import select
import shutil
import socket
import subprocess
import sys
import time
import unicodedata

import pytest

import ChattyCat_Server
from people import LISTENING, SERVER, Person, ServerProcess, keep_apart
from test_bad_guests import TRIES, resources, times_the_limit
from test_plain_lines import ON_A_TERMINAL, STAMP, come_in, plain   # noqa: F401
from test_server_process import first_to_speak

PASSWORD, WRONG = "Kater-Mikesch-7", "Katze-Mikesch-8"
ON_LINUX = sys.platform.startswith("linux")
LINUX = pytest.mark.skipif(not ON_LINUX, reason="needs /proc and all of 127.x.x.x")
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no pty")


# --------------------------------------------------------------- servers and who knocks

class Guarded(ServerProcess):
    """A server that finds its password in the environment.

    `changed`: Python that first changes something in the `script`; for what would take
    too long with the numbers that it has.
    """
    def __init__(self, *options, password=PASSWORD, changed="", **how):
        super().__init__("--rate", "0", "--recent", "0", *options, **how)
        self.password = password
        if changed:
            self.command[1:2] = ["-c", (
                f"import sys; sys.path.insert(0, {str(SERVER.parent)!r}); "
                f"import ChattyCat_Server as script; {changed}; "
                "sys.exit(script.main())")]

    def open_process(self, env):
        return super().open_process({**env, "CHATTYCAT_PASSWORD": self.password})


@pytest.fixture(scope="module")
def guarded():
    """One server for most of this file."""
    with Guarded(console=True) as server:
        yield server


@pytest.fixture
def guard():
    """A function that starts a guarded server for one test."""
    with contextlib.ExitStack() as running:
        yield lambda *options, **how: running.enter_context(Guarded(*options, **how))


ADDRESSES = itertools.count(2)


def new_address():
    """An address of this computer from which nobody has tried a password yet; None
    where there are no such: all of 127.x.x.x is here on Linux only."""
    return f"127.0.7.{next(ADDRESSES)}" if ON_LINUX else None


@pytest.fixture
def knock(guarded):
    """A function that connects, from this test's own address, and says nothing."""
    address, came = new_address(), []

    def come(to=guarded):
        came.append(Person(to, from_ip=address))
        return came[-1]

    yield come
    for person in came:
        person.leave()
    if address is None:         # the next test comes from the same one
        with Person(guarded) as person:
            enter(person, "Cleaner", limit=70)
            person.leave()


def enter(person, name, password=PASSWORD, limit=5, **fields):
    """Say hello with the password, and read the welcome."""
    person.hello(name, password=password, **fields)
    return person.expect("welcome", name=name, limit=limit)


def is_refused(person, code="bad_password", limit=5):
    """The next answer is this error, with a sentence."""
    assert person.expect("error", code=code, limit=limit)["text"].endswith(".")


def use_up(person, count=3):
    """Say so many wrong ones; when they are three, the connection is over."""
    for _ in range(count):
        person.hello("Minou", password=WRONG)
        is_refused(person, limit=70)
    if count == 3:
        assert person.expect("goodbye", reason="bad_password")["text"]
        assert person.until_closed() == []


def say_at_once(person, *words):
    """A hello with each of these passwords, all in one packet."""
    person.send_raw(b"".join(json.dumps(
        {"type": "hello", "version": 1, "name": "Minou", "password": word}
        ).encode() + b"\n" for word in words))


def has_answer(person):
    return bool(person.buffer or select.select([person.socket], [], [], 0)[0])


# ------------------------------------------------------------------ where it comes from

def shows_what_is_typed(terminal):
    import termios                              # POSIX only, as all terminals here
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)


class Terminal:
    """The server on a terminal (a pty) of its own, as when somebody sits there."""

    def __init__(self, *options):
        import pty                              # POSIX only, as this whole class
        env = {**os.environ, "PYTHONUTF8": "1"}
        env.pop("CHATTYCAT_PASSWORD", None)
        self.screen, inside = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_A_TERMINAL, str(SERVER), "--port", "0", *options],
            env=env, stdin=inside, stdout=inside, stderr=inside, start_new_session=True)
        os.close(inside)
        self.text = ""

    def read(self, limit=10):
        """Take what has come; False at the end."""
        assert select.select([self.screen], [], [], limit)[0], (
            f"nothing more than this has come:\n{self.text}")
        try:
            data = os.read(self.screen, 65536)
        except OSError:                         # how a pty ends on Linux
            data = b""
        self.text += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)

    def wait_for(self, pattern):
        while not (found := re.search(pattern, self.text, re.MULTILINE)):
            assert self.read(), f"waited for {pattern!r}, but there was:\n{self.text}"
        return found

    def answer(self, keys):
        """Wait for the question, and type these bytes."""
        self.wait_for("assword.*: $")
        os.write(self.screen, keys)

    def status(self):
        """Its exit status, when all that it says has been read."""
        while self.read():
            pass
        return self.process.wait(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(10)
        os.close(self.screen)


@POSIX
def test_it_is_asked_for_on_a_terminal_and_not_shown():
    with Terminal("--password", "--no-console") as server:
        server.wait_for("assword.*: $")
        assert not shows_what_is_typed(server.screen)
        server.answer(PASSWORD.encode() + b"\r")
        listening = server.wait_for(LISTENING.pattern)
        server.host, server.port = listening[1], int(listening[2])
        assert shows_what_is_typed(server.screen)     # from here on it does again
        with Person(server) as minou:
            minou.hello("Minou", password=WRONG)
            is_refused(minou)
            enter(minou, "Minou")
            minou.leave()
        server.process.terminate()
        assert server.status() == 0
        assert PASSWORD not in server.text


@POSIX
@pytest.mark.parametrize("keys", [b"\r", b"\x04"], ids=["Enter", "Ctrl+D"])
def test_nothing_typed_is_no_password(keys):
    with Terminal("--password") as server:
        server.answer(keys)
        assert server.status() == 2
        assert is_one_sentence(server.text.partition("server: ")[2])


@POSIX
@pytest.mark.parametrize("keys", [b"\x03", b"\xe9\xe8\r"], ids=["Ctrl+C", "no UTF-8"])
def test_what_else_may_be_typed_at_the_question(keys):
    with Terminal("--password") as server:
        server.answer(keys)
        assert server.status() != 0 or keys == b"\x03"
        for word in ("Traceback", "codec", "0xe9", "listening"):
            assert word not in server.text
        assert server.text.count("\n") <= 2


def is_one_sentence(text):
    """Whether somebody who wanted a password was told, in one line, what to do."""
    return re.fullmatch(r"ChattyCat_Server\.py: .*CHATTYCAT_PASSWORD.*\.", text.strip())


@POSIX
@pytest.mark.parametrize("stdin, empty", [
    ("</dev/null", {}), ("<&-", {"CHATTYCAT_PASSWORD": ""})], ids=["null", "closed"])
def test_nobody_is_there_to_be_asked(stdin, empty):
    """A service at the start of a computer: no terminal, nothing in the environment."""
    env = {name: value for name, value in os.environ.items()
           if name != "CHATTYCAT_PASSWORD"}
    result = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" "$1" --port 0 --password {stdin}',
         sys.executable, str(SERVER)], env={**env, **empty}, capture_output=True,
        text=True, timeout=30, start_new_session=True)
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert is_one_sentence(result.stderr), result.stderr


def test_the_environment_alone_is_enough(guarded, guard, knock):
    """All servers of this file have it from there, most of them without the option."""
    minou = knock(to=guard("--password"))       # asks nobody, or it would not be there
    for person in (minou, knock()):
        person.hello("Minou")
        is_refused(person)
        enter(person, "Minou")


def test_a_server_without_one_does_not_mind(server, join):
    minou = join()
    enter(minou, "Minou")
    assert minou.welcome["resumed"] is False


def test_any_words_can_be_one(guard):
    """As they are: neither cut at the ends, nor folded, nor normalized."""
    words = ' "Pâte"\\ с 小猫 😀 '
    server = guard(password=words)
    others = [words.strip(), words.casefold(), unicodedata.normalize("NFD", words),
              words + "\0", words.replace("😀", "\ud83d"), words.replace("😀", "?")]
    assert len({words, *others}) == 7
    for other in others:                # one right one each time, or this took minutes
        with Person(server) as person:
            person.hello("Minou", password=other)
            is_refused(person)
            enter(person, "Minou", password=words)
            person.leave()


@LINUX
def test_bytes_that_are_no_text(guard):
    """A terminal in Latin-1: not each word of so many letters must open the door."""
    words = b"\xe9\xe8\xe0\xea".decode("utf-8", "surrogateescape")
    try:
        server = guard(password=words)
    except AssertionError as trouble:   # to refuse it at the start is an answer as well
        assert "CHATTYCAT_PASSWORD" in str(trouble) and "Trace" not in str(trouble)
        return
    with Person(server) as person:
        for guess in ("????", "\udcff" * 4):
            person.hello("Minou", password=guess)
            is_refused(person)


# -------------------------------------------------------------------------------- hello

def test_without_with_a_wrong_and_with_the_right_one(knock):
    person = knock()
    person.hello("Minou")
    is_refused(person)
    person.hello("Minou", password=WRONG)
    is_refused(person)
    enter(person, "Minou")
    assert person.say("I am in")["from"] == "Minou"


def test_what_is_not_given_is_not_wrong(knock):
    person = knock()
    for _ in range(30):
        person.hello("Minou")
        is_refused(person)
    use_up(person, 2)
    enter(person, "Minou")


def test_nothing_can_be_said_or_seen_outside(guarded, knock):
    insider, person = knock(), knock()
    enter(insider, "Insider")
    use_up(person, 2)
    insider.say("Only for us")
    for message in ({"type": "chat", "text": "Hello"}, {"type": "list"}):
        person.send(message)
        is_refused(person, "hello_first")
    assert insider.silence()["count"] == 1      # and has read nothing of all this
    welcome = enter(person, "Minou")
    assert welcome["count"] == 2


def test_the_third_wrong_one_is_the_last(knock):
    use_up(knock())


def test_all_in_one_piece_is_no_way_around(knock):
    """The right one stands behind three wrong ones, in the same packet."""
    person = knock()
    say_at_once(person, WRONG, WRONG, WRONG, PASSWORD)
    for _ in range(3):
        is_refused(person)
    person.expect("goodbye", reason="bad_password")
    assert person.until_closed() == []


@pytest.mark.parametrize("password", [
    7, 1.5, None, True, [], [PASSWORD], {"password": PASSWORD}], ids=repr)
def test_of_a_wrong_kind(knock, password):
    """A mistake of a program, and no try: the third one is as good as the first."""
    person = knock()
    for _ in range(4):
        person.hello("Minou", password=password)
        is_refused(person, "bad_message")
    enter(person, "Minou")


@pytest.mark.parametrize("password", [
    "", " ", "\0", PASSWORD + "\0", PASSWORD[:-1], PASSWORD + "\n", PASSWORD.upper(),
    "\ud83d", "e\u0301" * 5000, "x" * 65_400], ids=lambda text: ascii(text)[:20])
def test_odd_strings(guarded, knock, password):
    person = knock()
    begin = time.monotonic()
    person.hello("Minou", password=password)
    is_refused(person)
    enter(person, "Minou")
    assert time.monotonic() - begin < 1


# The order in which a hello is looked at: version, password, session, name.

def test_the_version_comes_first(knock):
    member, person = knock(), knock()
    session = enter(member, "Minou")["session"]
    for fields in ({}, {"password": WRONG}, {"password": 7}, {"session": session}):
        person.send({"type": "hello", "name": "!!", "version": 2, **fields})
        is_refused(person, "bad_version")
    person.send({"type": "hello", "name": "Tigrou", "password": WRONG})
    is_refused(person, "bad_message")           # no version at all
    use_up(person, 2)                           # none of these was a try
    enter(person, "Tigrou")


@pytest.mark.parametrize("name, code", [
    ("Minou", "name_taken"), ("!!", "bad_name"), ("Server", "bad_name"),
    (None, "bad_message")])
def test_the_password_comes_before_the_name(knock, name, code):
    """Outside nobody can find out who is in."""
    member, person = knock(), knock()
    enter(member, "Minou")
    for fields in ({}, {"password": WRONG}):
        person.hello(name, **fields)
        is_refused(person)
    person.hello(name, password=PASSWORD)
    is_refused(person, code)
    person.hello("Tigrou", password=WRONG)      # it has to be right each time
    is_refused(person)
    enter(person, "Tigrou")


def test_the_password_comes_before_a_ban(guarded, knock):
    guarded.type_line("/ban Tom")
    guarded.wait_for_line("Tom.* is banned")
    person = knock()
    for fields in ({}, {"password": WRONG}):
        person.hello("Tom", **fields)
        is_refused(person)
    person.hello("Tom", password=PASSWORD)
    person.expect("goodbye", reason="banned")


def test_the_password_comes_before_the_session(knock):
    """A session alone brings nobody in; and who holds it is not replaced by a try."""
    member, person = knock(), knock()
    session = enter(member, "Minou")["session"]
    for fields in ({}, {"password": WRONG}, {"password": ""}):
        person.hello("Minou", session=session, since=0, **fields)
        is_refused(person)
    assert member.say("Still here")["from"] == "Minou"
    assert enter(person, "Minou", session=session)["resumed"] is True
    member.expect("goodbye", reason="replaced")


# ---------------------------------------------------------------- who is slowed, or not

def test_an_address_is_slowed_until_the_right_one(guarded, knock):
    member = knock()
    enter(member, "Member")
    begin = time.monotonic()
    use_up(knock(), 2), use_up(knock(), 1)      # on whichever connections they come
    slowed = knock()
    say_at_once(slowed, WRONG, PASSWORD)        # in one packet, and yet two tries
    member.say("And who is in notices nothing")
    assert not has_answer(slowed)
    if ON_LINUX:                # from another address one gets in meanwhile
        with Person(guarded, from_ip=new_address()) as other:
            enter(other, "Tigrou")
            assert not has_answer(slowed)
            other.leave()
    is_refused(slowed)
    answered = time.monotonic()
    assert 1 <= answered - begin < 2
    slowed.expect("welcome")    # the right one waits as well
    # (The wrong one was looked at a little before we have read so.)
    assert 1.9 <= time.monotonic() - answered < 3
    begin = time.monotonic()
    use_up(knock(), 2)          # they count from the beginning again
    enter(knock(), "Tigrou")
    assert time.monotonic() - begin < 1


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_minute_at_most(guard):
    server = guard()
    for number, pause in enumerate((0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60)):
        with Person(server) as person:
            begin = time.monotonic()
            use_up(person, 1)
            waited = time.monotonic() - begin
            assert pause - 0.2 < waited < pause + 1, f"{waited} s before no {number}"


@pytest.mark.long
@pytest.mark.timeout(300)
@LINUX
def test_nobody_waits_for_ever(guard):
    """Each wrong one makes the others wait anew; but only for so long."""
    server = guard()
    with Person(server) as insider:
        enter(insider, "Insider")
        threads = resources(server)[0]
        with Person(server) as person:
            use_up(person)
        crowd = [Person(server) for _ in range(50)]
        for person in crowd:
            person.hello("Minou", password=WRONG)
        limit = time.monotonic() + 130
        for person in crowd:
            last = person.until_closed(max(1, limit - time.monotonic()))[-1]
            assert last["reason"] == "hello_timeout"
            person.close()
        wait_for_threads(server, threads)
        insider.say("And I am still here")


# As if there had been six wrong ones already: the next one is followed by 16 seconds.
# And strangers have half a second instead of five, when they are too many.
STERN = "script.WRONG_PASSWORDS = -3; script.STRANGER_SECONDS = 0.5"


def p99s(people, count=200):
    """The p99, in ms, of how long a line takes to come back to each of these people.

    They speak in turn: what else this computer does holds up all of them alike.
    """
    times = {person: [] for person in people}
    for _ in range(count):
        for person in people:
            begin = time.perf_counter()
            person.say("ping")
            times[person].append(1000 * (time.perf_counter() - begin))
    return [sorted(times[person])[-1 - count // 100] for person in people]


def wait_for_threads(server, count, limit=10):
    deadline = time.monotonic() + limit
    while (there := resources(server)[0]) != count:
        assert time.monotonic() < deadline, f"{there} threads, and not {count}"
        time.sleep(0.01)


@LINUX
def test_a_hundred_at_once_from_a_slowed_address(guard, server, join):
    """They wait, at most 64 of them, and who talks notices nothing; they do not hold
    up the end of the server either."""
    stern, slowed = guard(changed=STERN), new_address()
    insider, elsewhere = Person(stern), join("Elsewhere")
    enter(insider, "Insider")
    keep_apart(stern, server)
    threads = resources(stern)[0]
    with Person(stern, from_ip=slowed) as person:
        use_up(person, 1)
    crowd = [Person(stern, from_ip=slowed) for _ in range(100)]
    for number, person in enumerate(crowd):     # every other one does know it
        person.hello(f"Cat{number}", password=PASSWORD if number % 2 else WRONG)
    more = []
    for _ in range(TRIES):
        more.append(times_the_limit(5, *p99s([insider, elsewhere])))
        if more[-1] <= 1:
            break
    assert min(more) <= 1, more
    for _ in range(36):
        person = first_to_speak(crowd, 10)
        person.expect("goodbye", reason="hello_timeout")
        person.close()
        crowd.remove(person)
    wait_for_threads(stern, threads + len(crowd))
    assert not any(map(has_answer, crowd))
    # Until the newcomer has said hello, there are 65 of them: one more may have to go.
    enter(Person(stern, from_ip=new_address()), "Newcomer")
    begin = time.monotonic()
    assert stern.stop() == 0
    assert time.monotonic() - begin < 2
    reasons = collections.Counter(
        person.expect("goodbye")["reason"] for person in crowd)
    assert reasons["shutdown"] >= 63 and reasons["hello_timeout"] <= 1
    for person in crowd:
        person.close()


@LINUX
def test_who_hangs_up_while_waiting_leaves_nothing_behind(guard):
    """Nor does a wrong password of somebody who has gone make the others wait."""
    server = guard(changed="script.WRONG_PASSWORDS = 1")
    with Person(server) as first:
        enter(first, "First")           # so all threads of the server have begun
        threads = resources(server)[0] - 1
        first.leave()
    with Person(server) as first:
        use_up(first, 1)
        first.expect("goodbye", reason="bad_password")
    gone = [Person(server) for _ in range(20)]
    for person in gone:
        person.hello("Minou", password=WRONG)
    for person in gone[:10]:
        person.close()
    for person in gone[10:]:
        person.reset()
    with Person(server) as person:
        enter(person, "Minou", limit=4)     # 1 s, or 3 where one of them was quicker
        person.leave()
    wait_for_threads(server, threads, limit=4)


def test_what_counts_as_one_address():
    network_of = ChattyCat_Server.network_of
    assert network_of("192.0.2.7") == network_of("192.0.2.7")
    assert network_of("192.0.2.7") != network_of("192.0.2.8")
    # Of IPv6 everybody has 2^64 addresses, and may take another one for each try.
    assert network_of("2001:db8:1:2::") == network_of("2001:db8:1:2:ffff:0:1:9")
    assert network_of("2001:db8:1:2::") != network_of("2001:db8:1:3::")
    assert network_of("fe80::1%eth0") == network_of("fe80::1%eth0")
    assert network_of("::1") != network_of("fe80::1%eth0")
    # What IPv4 looks like to a server that listens on "::": all in one network, if
    # one takes it for IPv6.
    assert network_of("::ffff:127.0.0.1") != network_of("::ffff:127.0.0.2")
    assert network_of("::ffff:127.0.0.1") != network_of("::1")


@LINUX
def test_ipv4_on_a_server_for_ipv6(guard):
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    server = guard("--host", "::")
    server.host = "127.0.0.1"
    slowed, other = new_address(), new_address()
    with Person(server, from_ip=slowed) as person:
        use_up(person)
    with Person(server, from_ip=slowed) as person, Person(server, from_ip=other) as cat:
        person.hello("Minou", password=WRONG)
        enter(cat, "Tigrou")
        assert not has_answer(person)
        cat.leave()


# ----------------------------------------------------------------------- told to nobody

def forms(word):
    """What a password looks like in a file, if somebody has written it there."""
    for data in (word.encode(), word.encode("utf-16-le")):
        yield from (data, base64.b64encode(data), data.hex().encode())
        secret = hashlib.sha256(data)
        yield from (secret.digest(), secret.hexdigest().encode())


def assert_untold(where, data, words=(PASSWORD, WRONG)):
    for word in words:
        for number, form in enumerate(forms(word)):
            assert form not in data, f"{where} has {word} in it (form {number})"


def assert_untold_in_files(folder):
    """In none of the files; return how many there are."""
    paths = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
    for path in paths:
        assert_untold(path, path.read_bytes())
    return len(paths)


def assert_untold_to_other_users(process):
    if ON_LINUX:                # what `ps` shows to all users of this computer
        assert_untold("ps", pathlib.Path(f"/proc/{process.pid}/cmdline").read_bytes())


def what_all_may_send(person):
    """Hellos as they are, and as they should not be: with a password in each."""
    for word in (WRONG, [PASSWORD], {"a": PASSWORD}, "\0" + PASSWORD):
        person.hello("Minou", password=word)
    person.send({"type": "hello", "name": "Minou", "Password": PASSWORD, "version": 2})
    spelled = "".join(f"\\u{ord(letter):04x}" for letter in "password")
    for line in ('{"type":"hello","password":"%s"', '"%s"',
                 '{"type":"hello",\n"password":"%s"}',
                 '[{"password":"%s"}]', "password: %s",
                 '{"type":"hello","version":1,"' + spelled + '":"%s"}'):
        person.send_raw((line % PASSWORD).encode() + b"\n")
        person.send_raw((line % PASSWORD).encode("utf-16-le") + b"\n")


def test_the_server_tells_it_to_nobody(guard, tmp_path):
    """Not with --trace, which shows all lines; not in a traceback."""
    server = guard("--trace", "--log", tmp_path / "log", "--history", tmp_path / "chat",
                   console=True, changed="script.ChatServer.on_meow = "
                   "lambda self, person, message: person.no_such + message['password']")
    with Person(server) as stranger, Person(server) as minou:
        what_all_may_send(stranger)
        enter(minou, "Minou")
        minou.hello("Minou", password=WRONG)
        minou.send({"type": "meow", "password": PASSWORD})
        minou.send({"type": "chat", "text": "Hello", "password": PASSWORD})
        minou.send({"type": "bye"})
        came = minou.until_closed()
        stranger.send({"type": "list"})
        while came[-1].get("code") != "hello_first":    # all before it was looked at
            came.append(stranger.read())
        for word in ("/who", "/help", "/stats"):
            server.type_line(word)
        server.wait_for_line("Nothing waits")
        assert_untold_to_other_users(server)
    assert server.stop() == 0 or os.name == "nt"
    for reader in server.readers:
        reader.join(10)
    shown = "\n".join(server.lines)
    assert shown.count("AttributeError") == 1 and '"password":"•••"' in shown
    assert_untold("the terminal", "\n".join(server.lines + server.errors).encode())
    assert_untold("what people read", json.dumps(came).encode())
    assert assert_untold_in_files(tmp_path) >= 2
    assert_untold_in_files(server.home.name)


@pytest.mark.parametrize("options, warned", [
    ([], False), (["--host", "0.0.0.0"], True),
    (["--host", "0.0.0.0", "--tls"], False)],
    ids=["loopback", "everywhere", "TLS"])
def test_a_warning_where_it_travels_in_clear(guard, options, warned):
    if "--tls" in options and not shutil.which("openssl"):
        pytest.skip("needs the command openssl")
    server = guard(*options)
    server.wait_for_line("Ctrl[+]C stops it")       # the last line of the start
    assert any("must know the password" in line for line in server.lines)
    said = [line for line in server.lines if "Careful" in line]
    with Person(server) as minou:
        minou.hello("Minou", password=WRONG)
        is_refused(minou)
        enter(minou, "Minou")
        minou.leave()
    assert len(said) == warned
    assert not warned or "--tls" in said[0] and "in clear" in said[0]


def test_no_warning_where_there_is_no_password(start_server):
    server = start_server("--host", "0.0.0.0")
    server.wait_for_line("Ctrl[+]C stops it")
    assert "password" not in "\n".join(server.lines)


def test_it_is_compared_in_constant_time():
    """With == one could measure how much of a guess is right. The time itself says
    little on a busy computer; so this looks at the code."""
    tree = ast.parse(SERVER.read_text(encoding="utf-8"))
    door = next(node for node in tree.body
                if isinstance(node, ast.ClassDef) and node.name == "Door")
    check = next(node for node in door.body if getattr(node, "name", "") == "check")
    calls = [ast.unparse(node) for node in ast.walk(check)
             if isinstance(node, ast.Call) and "compare" in ast.unparse(node.func)]
    assert calls == ["hmac.compare_digest(digest(password), self.digest)"]
    for node in ast.walk(door):
        if isinstance(node, ast.Compare) and re.search("password|digest",
                                                       ast.unparse(node)):
            is_none = isinstance(node.ops[0], (ast.Is, ast.IsNot))
            counts = "wrong_passwords" in ast.unparse(node).lower()
            assert is_none or counts, ast.unparse(node)


# --------------------------------------------------------------------------- the client

def ask_client(plain, server, *options):
    """A client on a terminal that has asked for the password."""
    client = plain(server, "--password", "--name", "Minou", *options, terminal=True,
                   CHATTYCAT_PASSWORD=None)
    client.wait_for("assword: ?$")
    assert not shows_what_is_typed(client.stdin)
    return client


@POSIX
def test_the_client_asks_on_a_terminal(guarded, plain):
    minou = ask_client(plain, guarded)
    minou.type_line(PASSWORD)
    minou.wait_for("You are in as Minou; ")
    assert shows_what_is_typed(minou.stdin)     # from here on it does again
    minou.type_line("/quit")
    assert minou.status() == 0
    assert PASSWORD not in minou.text


@POSIX
@pytest.mark.parametrize("keys", [b"\x03", b"\xe9\xe8\r", b"\r"],
                         ids=["Ctrl+C", "no UTF-8", "Enter"])
def test_what_else_may_be_typed_at_the_clients_question(guarded, plain, keys):
    client = ask_client(plain, guarded)
    client.write(keys)
    status = client.status()                    # which allows no traceback
    assert status != 0 or keys == b"\x03"
    assert "You are in" not in client.text and "codec" not in client.text


@POSIX
def test_the_client_has_nobody_to_ask(guarded):
    """From a pipe: the first line is something to say, and no password."""
    client = SERVER.parent / "ChattyCat_Client.py"
    env = {name: value for name, value in os.environ.items()
           if name != "CHATTYCAT_PASSWORD"}
    result = subprocess.run(
        [sys.executable, str(client), "--plain", "--name", "Minou", "--password",
         "--host", guarded.host, "--port", str(guarded.port)], input=PASSWORD + "\n",
        env=env, capture_output=True, text=True, timeout=30, start_new_session=True)
    assert result.returncode in (1, 2)
    shown = result.stdout + result.stderr
    assert "password" in shown and "You are in" not in shown
    assert "Warning" not in shown and "Traceback" not in shown, shown


def test_the_client_finds_it_in_the_environment(guarded, plain):
    """With the option too; without it, in the test of coming back."""
    minou = plain(guarded, "--name", "Minou", "--password", CHATTYCAT_PASSWORD=PASSWORD)
    minou.wait_for("You are in as Minou; ")
    minou.write("Hello\n/quit\n")
    assert minou.status() == 0
    assert minou.printed.count("Minou: Hello") == 1


@pytest.mark.parametrize("terminal, password, word", [
    (False, WRONG, "not the password"), (False, None, "wants a password"),
    pytest.param(True, WRONG, "not the password", marks=POSIX)],
    ids=["wrong", "none", "wrong on a pty"])
def test_the_client_says_so_in_one_sentence(guard, plain, terminal, password, word):
    minou = plain(guard(), "--name", "Minou", terminal=terminal,
                  CHATTYCAT_PASSWORD=password)
    if not terminal:
        minou.write("Hello\n")
    assert minou.status() == 1
    said = [line for line in minou.printed if "password" in line]
    assert len(said) == 1 and word in said[0] and "--password" in said[0]


def come_back(guard, plain, password):
    """A client whose server was killed; the next one has this password."""
    server = guard()
    minou = come_in(plain, server, CHATTYCAT_PASSWORD=PASSWORD)
    server.kill()
    minou.wait_for("was lost|refused|Waiting for it")
    guard("--port", server.port, password=password)
    return minou


def test_the_client_comes_back_by_itself(guard, plain):
    minou = come_back(guard, plain, PASSWORD)
    minou.wait_for(r"You are in as Minou[\s\S]*You are in as Minou")
    minou.type_line("Hello again")
    minou.wait_for(f"^{STAMP}Minou: Hello again$")


@pytest.mark.long
def test_the_client_comes_back_to_another_password(guard, plain):
    minou = come_back(guard, plain, WRONG)
    assert minou.status() == 1
    assert "not the password" in minou.printed[-1]


@POSIX
def test_the_client_tells_it_to_nobody(guarded, plain, tmp_path):
    logs = ["--log", tmp_path / "log", "--log-chat", tmp_path / "chats"]
    minou = ask_client(plain, guarded, *logs)
    minou.type_line(PASSWORD)
    minou.wait_for("You are in as Minou; ")
    minou.type_line("Hello")
    minou.wait_for(f"^{STAMP}Minou: Hello$")
    tigrou = plain(guarded, "--name", "Tigrou", *logs, CHATTYCAT_PASSWORD=WRONG)
    tigrou.wait_for("not the password")
    for client in (minou, tigrou):
        assert_untold_to_other_users(client.process)
    minou.type_line("/quit")
    assert (minou.status(), tigrou.status()) == (0, 1)
    for client in (minou, tigrou):
        assert_untold("the terminal", client.output)
        assert_untold_in_files(client.home.name)
    assert os.path.exists(os.path.join(minou.home.name, "last_login.json"))
    assert assert_untold_in_files(tmp_path) == 2        # the log, and the chat's
