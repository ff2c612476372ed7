"""The server as a program: how it starts, what it prints, how it ends."""
import collections
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time

import pytest

from people import COMINGS, LISTENING, SERVER, ServerProcess, as_module

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  \S")


def run_server(*words):
    """Run a server that is not going to listen; return what it left behind."""
    module, folder = as_module(SERVER)
    return subprocess.run(
        [sys.executable, *module, *map(str, words)], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30,
        env={**os.environ, "PYTHONPATH": folder})


def refuses_to_start(*words):
    """Exit status 2 and one sentence on stderr, which is returned."""
    result = run_server(*words)
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1 and result.stderr.endswith(".\n"), result
    assert "Traceback" not in result.stderr
    return result.stderr


# -------------------------------------------------------------------------------- start

def test_the_listening_line_is_alone_and_comes_first(start_server, join):
    server = start_server("--port", "0")
    address = f"127.0.0.1:{server.port}"
    assert server.lines[0] == f"ChattyCat server is listening on {address}"
    join("Minou", server)


def test_two_servers_get_two_free_ports(start_server):
    assert start_server().port != start_server().port


def may_stay_on_one_processor():
    """Whether this system lets a process choose so; a child tries it."""
    return not subprocess.run([
        sys.executable, "-c", "import os; os.sched_setaffinity(0, os.sched_getaffinity("
        "0)); os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))"],
        stderr=subprocess.DEVNULL).returncode


def test_threads_that_talk_share_a_processor(start_server, join):
    if not may_stay_on_one_processor():
        pytest.skip("only Linux has this, and some containers forbid it")
    server = start_server()
    for name in ("Minou", "Tigrou", "Félix"):
        join(name, server)
    found = collections.Counter(
        (tuple(os.sched_getaffinity(thread)), os.sched_getscheduler(thread))
        for thread in map(int, os.listdir(f"/proc/{server.pid}/task")))
    # The main thread, the postman, three readers; and the printer where it likes.
    (processors, policy), number = found.most_common(1)[0]
    assert (len(processors), policy, number) == (1, os.SCHED_BATCH, 5)
    assert sum(found.values()) == 6


def test_a_port_in_use(start_server):
    port = start_server().port
    sentence = refuses_to_start("--port", port, "--no-console")
    assert str(port) in sentence and "--port" in sentence


@pytest.mark.parametrize("host", [
    "192.0.2.1", "256.256.256.256", "no.such.host.invalid", "a..b", "x" * 70,
    "é" * 70], ids=lambda host: host[:20])
def test_no_such_address(host):
    sentence = refuses_to_start("--host", host, "--port", "0", "--no-console")
    assert host in sentence and "--host" in sentence


@pytest.mark.parametrize("words", [
    ["--port", "banana"], ["--port", "65536"], ["--port", "-1"], ["--port", ""],
    ["--port"], ["--rate", "-1"], ["--rate", "fast"], ["--recent", "-1"],
    ["--recent", "1.5"], ["--max-clients", "many"], ["--max-clients", "0"],
    ["--clients", "x"], ["--meow"], ["meow"], ["--lan", "--host", "127.0.0.1"],
    ["--port", "9" * 5000]], ids=lambda words: " ".join(words)[:20])
def test_bad_options(words):
    wrong = "--host" if "--lan" in words else words[-1]
    assert wrong[:100] in refuses_to_start("--no-console", *words)


def test_version():
    result = run_server("--version")
    assert result.returncode == 0 and result.stderr == ""
    assert re.fullmatch(r"ChattyCat \d+(\.\d+)+\n", result.stdout)


def test_help_names_every_option():
    result = run_server("--help")
    assert result.returncode == 0 and result.stderr == ""
    for option in ("--host", "--lan", "--port", "--max-clients", "--recent", "--rate",
                   "--clients", "--no-console", "--version", "@FILE"):
        assert option in result.stdout


def test_options_from_a_file(start_server, join, tmp_path):
    path = tmp_path / "my options.txt"
    path.write_text("# our classroom\n\n--port 0\n--max-clients 1\n\n  # the end\n"
                    "--recent\n0\n")
    server = start_server("--max-clients", "7", f"@{path}")
    join("Minou", server)
    late = join(to=server)
    late.hello("Tigrou")
    late.expect("error", code="server_full")
    late.expect("goodbye", reason="server_full")


@pytest.mark.parametrize("kind", ["missing", "folder", "not text", "bad option"])
def test_a_file_of_options_that_is_no_good(tmp_path, kind):
    path = tmp_path / "options"
    if kind == "folder":
        path.mkdir()
    elif kind == "not text":
        path.write_bytes(b"--port \xff\xfe\x00")
    elif kind == "bad option":
        path.write_text("--port banana\n")
    word = "banana" if kind == "bad option" else str(path)
    assert word in refuses_to_start(f"@{path}")


def test_lan_prints_the_address_to_type_in(start_server, join):
    server = start_server("--lan")
    assert server.wait_for_line(LISTENING)[1] == "0.0.0.0"
    # a line with a stamp, an address and the port
    typed = server.wait_for_line(r"^\d+-.*  .*?(\d+\.\d+\.\d+\.\d+)\D+(\d+)$")
    assert typed[1] != "0.0.0.0"
    server.host, server.port = typed[1], int(typed[2])
    join("Minou", server).say("Hello from the network")


# ------------------------------------------------------------------------ while it runs

def test_every_line_has_a_stamp_and_none_has_private_text(start_server, join):
    server = start_server("--rate", "0", "--max-clients", "3")
    minou, tigrou = join("Minou", server), join("Tigrou", server)
    minou.say("a-secret-of-two", to="Tigrou")
    minou.say("a-secret-of-one", to="Minou")
    tigrou.expect("chat", text="a-secret-of-two")
    minou.send({"type": "chat", "text": "a-secret-for-nobody", "to": "Nobody"})
    minou.expect("error", code="no_such_person")
    minou.send({"type": "chat", "text": "a-secret\0", "to": "Tigrou"})
    minou.expect("error", code="bad_text")
    minou.send_raw(b'{"type": "chat", "to": "Tigrou", "text": "a-secret-in-half\n')
    minou.expect("error", code="bad_message")
    minou.send_raw(b'{"type": "meow", "to": "Tigrou", "text": "a-secret-type"}\n')
    minou.expect("error", code="unknown_type")
    tigrou.reset()
    minou.expect("left", name="Tigrou")
    loud = join("Loud", server)
    loud.send_raw(b'{"type": "chat", "to": "Minou", "text": "a-secret' + b"x" * 70_000)
    loud.until_closed()
    server.wait_for_line("Loud left")
    assert server.stop() == 0 or os.name == "nt"
    for reader in server.readers:
        reader.join(10)
    assert len(server.lines) > 5
    unstamped = [line for line in server.lines[1:] if not STAMP.match(line)]
    assert unstamped == []
    assert "secret" not in "\n".join(server.lines + server.errors)


@pytest.mark.skipif(os.name == "nt", reason="a shell of Windows cannot close stdin")
@pytest.mark.parametrize("closed", ["<&-", "</dev/null", "<&- >&- 2>&-", "2>&-"])
def test_it_goes_on_without_a_stdin(join, closed):
    """Under cron, `nohup … &` or a service there is nothing to read from."""
    with socket.socket() as probe:      # without stdout nobody says which port it has
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = f'exec "$0" "$1" --port {port} {closed}'
    process = subprocess.Popen(
        ["/bin/sh", "-c", command, sys.executable, str(SERVER)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_for_port(port)
        process.host, process.port = "127.0.0.1", port
        minou = join("Minou", process)
        minou.say("Hello")
        minou.leave()
        process.terminate()
        _, errors = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode == 0
    assert errors == b""


def wait_for_port(port, limit=10):
    """Wait until somebody listens there; there is nothing else to see of them."""
    deadline = time.monotonic() + limit
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"nobody listens on {port}"
            time.sleep(0.02)


# ------------------------------------------------------------------------------ the end

@POSIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_goodbye_to_everybody(start_server, join, number):
    server = start_server("--rate", "0")
    people = [join(f"Cat{n}", server) for n in range(50)]
    stranger = join(to=server)
    stranger.send({"type": "list"})
    stranger.expect("error", code="hello_first")    # so it is past the backlog
    stranger.send_raw(b'{"type": "hello", "na')
    begin = time.monotonic()
    # Nobody reads meanwhile, and nobody closes: the server must not wait for them.
    assert server.stop(number) == 0
    assert time.monotonic() - begin < 2
    for person in people + [stranger]:
        person.expect("goodbye", skip=["joined"], reason="shutdown")
        assert person.until_closed() == []
    again = start_server("--port", server.port)
    assert again.port == server.port
    join("Minou", again)


@POSIX
def test_it_ends_in_time_though_somebody_does_not_read(start_server, join):
    server = start_server("--rate", "0", "--recent", "0")
    speaker = join("Speaker", server)
    join("Sleeper", server, receive_buffer=4096)
    speaker.expect("joined")
    # How much do the server and the two kernels hold for a sleeper at most?
    most = 0
    while "left" not in [message["type"] for message in speaker.latest]:
        speaker.say("x" * 3900)
        most += 1
    # Nearly as much for the next one: then something waits, and nobody is thrown out.
    join("Sleeper2", server, receive_buffer=4096)
    for _ in range(most * 8 // 10):
        speaker.say("x" * 3900)
    assert speaker.silence()["count"] == 2
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < 2
    speaker.expect("goodbye", reason="shutdown")


@POSIX
def test_goodbye_in_the_middle_of_it_all(start_server, join):
    """The readers of ten busy people meet the thread that says goodbye."""
    server = start_server("--rate", "0")
    people = [join(f"Cat{n}", server) for n in range(10)]
    for person in people:
        person.send_raw(
            b'{"type": "list"}\n{"type": "chat", "text": "a", "to": "Cat0"}\n' * 500)
    assert server.stop() == 0
    for person in people:
        came = [message["type"] for message in person.until_closed()]
        assert came[-1] == "goodbye"
        assert set(came[:-1]) <= {"people", "chat", "joined"}


@POSIX
def test_killed_it_leaves_the_port_free(start_server, join):
    server = start_server()
    people = [join(f"Cat{n}", server) for n in range(10)]
    server.kill()
    again = start_server("--port", server.port)
    assert again.port == server.port
    join("Minou", again)
    for person in people:
        with pytest.raises((AssertionError, ConnectionError)):
            person.say("Is anybody there?")


@POSIX
def test_ctrl_c_twice_is_as_good_as_once(start_server, join):
    server = start_server()
    minou = join("Minou", server)
    server.process.send_signal(signal.SIGINT)
    assert server.stop(signal.SIGINT) == 0
    minou.expect("goodbye", reason="shutdown")


# -------------------------------------------------------------------- who says no hello

def first_to_speak(people, limit):
    """The first of these people to whom something comes."""
    sockets = {person.socket: person for person in people}
    ready, _, _ = select.select(sockets, [], [], limit)
    assert ready, f"nothing came within {limit} s"
    return sockets[ready[0]]


@pytest.fixture
def hasty_server():
    """A server whose strangers have 0.5 s instead of 5."""
    process = ServerProcess("--rate", "0")
    process.command[1:2] = ["-c", (
        f"import sys; sys.path.insert(0, {str(SERVER.parent)!r}); "
        "import ChattyCat_Server as script; script.STRANGER_SECONDS = 0.5; "
        "sys.exit(script.main())")]
    with process as server:
        yield server


def test_too_many_strangers(hasty_server, join):
    """Of more than 64 who say no hello, the oldest goes, once it has had its time."""
    server = hasty_server
    minou = join("Minou", server)       # older than all of them, but no stranger
    begin = time.monotonic()
    strangers = [join(to=server) for _ in range(66)]
    for place in (0, 1):
        person = first_to_speak(strangers[place:], 12)
        assert person is strangers[place]
        assert 0.5 <= time.monotonic() - begin < 12
        assert person.expect("goodbye", reason="hello_timeout")["text"]
        assert person.until_closed() == []
    # 64 are as many as may be; each of them is still welcome.
    for number, stranger in enumerate(strangers[2:]):
        stranger.hello(f"Cat{number}")
        stranger.expect("welcome", skip=COMINGS)
    minou.expect("joined", name="Cat0")


@pytest.mark.long
def test_a_minute_without_hello(start_server, join):
    server = start_server()
    minou, stranger, typist = join("Minou", server), join(to=server), join(to=server)
    typist.send_raw(b'{"type": "hello", ')
    asker = join(to=server)
    asker.send({"type": "list"})
    asker.expect("error", code="hello_first")
    begin = time.monotonic()
    assert first_to_speak([minou, stranger, typist, asker], 70) is not minou
    assert 58 < time.monotonic() - begin < 65
    for person in (stranger, typist, asker):
        person.expect("goodbye", reason="hello_timeout")
        assert person.until_closed() == []
    minou.silence()                     # and whoever is in is not thrown out


def test_our_own_tool_notices_a_server_that_cannot_start():
    """It says so at once, instead of waiting for a line that will not come."""
    with pytest.raises(AssertionError, match="--meow"):
        ServerProcess("--meow").__enter__()
