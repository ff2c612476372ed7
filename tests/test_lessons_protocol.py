"""lessons/PROTOCOL.md: all its examples are said to a real server, in its order.

How the page is read. Each heading of level 2 begins on a server of its own, which was
started a moment ago. In it, from top to bottom:

    ```json client Minou        these lines are sent on the connection of Minou; if
                                there is none (any more), a new one is made
    ```json server Minou        these lines come next on that connection, and no others
    <!-- here: Minou, Luna -->  they come in, and what is said about that is read away
    <!-- operator: /say Hi -->  typed at the server's keyboard
    <!-- breaks: Minou -->      the connection breaks, as a crash does it (with RST)
    <!-- endless: Luna -->      sends as many bytes as a line may have, and no newline
    <!-- option: --rate 9 -->   an option of this heading's server
    <!-- password: tuna -->     what this heading's server was told to want
    ```console                  typed into a terminal: test_pages.py plays these

A server's line is held to the letter, spaces included: it is shown as it really comes.
What must differ (a time, a session, a file's or the history's label) is held by its
form, and by this: what came twice stands there twice the same.
"""
import ast
import contextlib
import datetime
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import threading

import pytest

import ChattyCat_Server as script
from people import Person, ServerProcess

LESSONS = pathlib.Path(__file__).resolve().parent.parent / "lessons"
PAGE = (LESSONS / "PROTOCOL.md").read_text(encoding="utf-8")
STEP = re.compile(r"^```json (client|server) (\S+)\n((?:[^`].*\n)*)```$"
                  r"|^<!-- (\w+): (.*) -->$", re.MULTILINE)
VOLATILE = re.compile(r'"(time|session|history|file)":"([^"]*)"')
FORMS = {"time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",
         "session": r"[0-9]{1,17}\.[\w-]{43}", "history": r"[0-9a-f]{16}",
         "file": r"[0-9a-f]{16}-[0-9a-f]{16}"}


class Different(AssertionError):
    """The page and the server do not say the same."""


# ------------------------------------------------------------------- reading the page

def sections(page=PAGE):
    """{heading: what stands under it}, for the headings of level 2."""
    pieces = re.split(r"^## (.*)\n", page, flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2]))


def steps(section):
    """All that is to be done in a section: [(what, who or what, line)]."""
    found = []
    for side, who, block, word, rest in STEP.findall(section):
        if side:
            found += [(side, who, line) for line in block.splitlines()]
        else:
            found.append((word, rest, ""))
    return found


CONVERSATIONS = [name for name, section in sections().items() if steps(section)]


# ----------------------------------------------------------- the page beside the server

class Comparison:
    """What came, beside what the page shows, in one conversation."""

    def __init__(self):
        self.shown = {}         # what really came -> how the page shows it
        self.labels = {}        # a session or file of the page -> the real one
        self.record = []        # (the page's line, the real line)

    def compare(self, example, real):
        self.record.append((example, real))
        if blank(example) != blank(real):
            raise Different(f"the page:   {example}\nthe server: {real}")
        pairs = [(real, example)]
        for (kind, shown), (_, came) in zip(*map(VOLATILE.findall, (example, real))):
            check_form(kind, shown)
            check_form(kind, came)
            if kind != "time":
                pairs.append((came, shown))
            if kind in ("session", "file"):
                self.labels[shown] = came
        for came, shown in pairs:
            if self.shown.setdefault(came, shown) != shown:
                raise Different(f"the same, shown as {self.shown[came]} and {shown}")

    def said(self, line):
        """The client's line with what this server really gave: sessions, files."""
        for shown, real in self.labels.items():
            line = line.replace(shown, real)
        return line


def blank(line):
    return VOLATILE.sub(r'"\1":""', line)


def check_form(kind, value):
    if not re.fullmatch(FORMS[kind], value):
        raise Different(f"this is no {kind}: {value}")
    if kind == "time":
        try:
            datetime.datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ")
        except ValueError as problem:
            raise Different(str(problem)) from None


class Play:
    """One section, played with real connections to a server that has just started."""

    def __init__(self, server, obey, comparison, limit=5):
        self.server, self.obey, self.comparison = server, obey, comparison
        self.limit = limit              # seconds to wait for a line
        self.people = {}

    def run(self, todo):
        """Do all steps; then nothing may be left over that the page does not show."""
        try:
            for what, who, line in todo:
                getattr(self, "do_" + what)(who, line)
            for person in self.people.values():
                person.send({"type": "list"})
                came = person.read()
                if came["type"] != "people" and came.get("code") != "hello_first":
                    raise Different(f"the page does not show what came: {came}")
        finally:
            for person in self.people.values():
                person.close()

    def do_client(self, who, line):
        if who not in self.people:
            self.people[who] = Person(self.server)
        self.people[who].send_raw(self.comparison.said(line).encode() + b"\n")

    def do_server(self, who, line):
        real = self.people[who].read_line(self.limit)
        self.comparison.compare(line, "(the end)" if real is None else real.decode())
        if json.loads(line)["type"] == "goodbye":
            if self.people.pop(who).until_closed():
                raise Different(f"{who} was not told goodbye last")

    def do_here(self, names, _):
        for name in names.split(", "):
            newcomer = Person(self.server, name)
            for person in self.people.values():
                person.expect("joined", name=name)
            self.people[name] = newcomer

    def do_operator(self, command, _):
        self.obey(command)

    def do_breaks(self, who, _):
        self.people.pop(who).reset()

    def do_endless(self, who, _):
        self.people[who].send_raw(b"x" * script.LINE_LIMIT)

    def do_option(self, *_):
        pass                            # known when the server was started

    do_password = do_option


def options_of(todo):
    return [word for what, rest, _ in todo if what == "option" for word in rest.split()]


@contextlib.contextmanager
def password_of(todo):
    """What stands in the environment, where a server looks for its password."""
    passwords = [rest for what, rest, _ in todo if what == "password"]
    if passwords:
        os.environ["CHATTYCAT_PASSWORD"] = passwords[0]
    yield
    os.environ.pop("CHATTYCAT_PASSWORD", None)


def play_on_a_process(todo):
    """Play with a server as people start it; return what was compared."""
    comparison = Comparison()
    with password_of(todo), ServerProcess(*options_of(todo), console=True) as server:
        def obey(command):
            # The console obeys in order: when the answer to the second is there, the
            # first is done.
            server.type_line(command)
            server.type_line("/done")
            server.wait_for_line("There is no command /done")

        Play(server, obey, comparison).run(todo)
    return comparison


@contextlib.contextmanager
def server_in_a_thread(options):
    """The same server, in this process: started in a few ms, for hundreds of plays."""
    options = script.read_options(["--port", "0", *options])
    options.password = script.read_password(False)
    server = script.ChatServer(options)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(10)


def play_in_a_thread(todo):
    with password_of(todo), server_in_a_thread(options_of(todo)) as server:
        Play(server, script.Console(server).obey, Comparison(), limit=1).run(todo)


@pytest.mark.parametrize("heading", CONVERSATIONS)
def test_the_server_says_what_the_page_shows(heading):
    play_on_a_process(steps(sections()[heading]))


def test_the_first_conversation_typed_into_the_program_of_lesson_04():
    """As somebody does it who has no `nc`."""
    todo = steps(sections()["A first conversation"])
    said, shown = ([line for what, _, line in todo if what == side]
                   for side in ("client", "server"))
    client = next(LESSONS.glob("04_*")) / "client.py"
    with ServerProcess() as server:
        done = subprocess.run(
            [sys.executable, client, str(server.port)], text=True, encoding="utf-8",
            input="\n".join([*said, "", ""]), env={**os.environ, "PYTHONUTF8": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
    # (It prints "> " before each line that it reads.)
    came = [line.replace("> ", "") for line in done.stdout.split("\n")][:len(shown)]
    assert list(map(blank, came)) == list(map(blank, shown)) and done.returncode == 0


# ---------------------------------------------- what the page lists, beside the server

TREE = ast.parse(pathlib.Path(script.__file__).read_text(encoding="utf-8"))
YOU_SEND, SERVER_SENDS, WRONG = (
    "What you send", "What the server sends", "When something is wrong")


def values_of(key):
    """The strings that the server's code has under this key in its dicts."""
    return {value.value for node in ast.walk(TREE) if isinstance(node, ast.Dict)
            for name, value in zip(node.keys, node.values)
            if isinstance(name, ast.Constant) and name.value == key
            and isinstance(value, ast.Constant)}


def arguments_of(function):
    """The strings with which the server's code calls this function or method."""
    return {word.value for node in ast.walk(TREE) if isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) == function
            for word in node.args[:2] if isinstance(word, ast.Constant)}


def rows(heading):
    """{what the table of a section names first: what stands beside it}"""
    found = re.findall(r"^\| `(\w+)` \| (.*?) \|", sections()[heading], re.MULTILINE)
    assert len(found) == len(dict(found))
    return dict(found)


def examples(side, without=()):
    """{type: [the fields of each example of it]}"""
    found = {}
    for heading in set(CONVERSATIONS) - set(without):
        for what, _, line in steps(sections()[heading]):
            if what == side:
                message = json.loads(line)
                found.setdefault(message.pop("type"), []).append(set(message))
    return found


def listed(sentence):
    """The names in back-ticks between the start of a sentence and its full stop."""
    return set(re.findall(r"`(\w+)`", PAGE.split(sentence)[1].split(".")[0]))


def test_every_type_that_can_be_sent_is_in_the_page_and_shown():
    methods = {name[3:] for name in dir(script.ChatServer) if name.startswith("on_")}
    assert set(rows(YOU_SEND)) == methods
    assert set(examples("client", without=[WRONG])) == methods


def test_every_type_that_can_come_is_in_the_page_and_shown():
    # A chunk is put together by hand (see Pieces.next_piece).
    types = values_of("type") | arguments_of("post_from") | {"chunk"}
    assert len(types) == 11
    assert set(rows(SERVER_SENDS)) == types == set(examples("server"))


def test_every_error_code_is_in_the_page_and_shown():
    codes = arguments_of("WireError") | values_of("code")
    # The sentences that stand behind the codes in those calls are no codes.
    codes = {code for code in codes if re.fullmatch("[a-z_]+", code)}
    shown = {json.loads(line).get("code") for heading in CONVERSATIONS
             for what, _, line in steps(sections()[heading]) if what == "server"}
    assert len(codes) == 16
    assert set(rows(WRONG)) == codes == shown - {None}


def test_every_reason_is_in_the_page():
    reasons = arguments_of("part") | values_of("reason") | set(script.LEFT_REASONS)
    reasons = {reason for reason in reasons if re.fullmatch("[a-z_]+", reason)}
    reasons |= {"bad_password"}     # refuse() parts with the code that the error had
    assert len(reasons) == 10
    assert listed("A `reason` of `goodbye` is") == reasons
    left = {*script.LEFT_REASONS.values(), *script.BREAKS} - set(script.UNSEEN)
    assert listed("A `reason` of `left` is") == left


@pytest.mark.parametrize("heading, side, without", [
    (YOU_SEND, "client", [WRONG]), (SERVER_SENDS, "server", [])])
def test_the_fields_of_each_type_are_those_of_its_examples(heading, side, without):
    """Those that are in all of them, and with a ? those that are in some."""
    shown = examples(side, without)
    for kind, text in rows(heading).items():
        fields = re.findall(r"`(\w+)`(\?)?", text)
        always = set.intersection(*shown[kind])
        maybe = set.union(*shown[kind]) - always
        assert {name for name, mark in fields if not mark} == always, kind
        assert {name for name, mark in fields if mark} == maybe, kind


def test_the_numbers_are_the_servers():
    options = script.read_options([])
    for phrase in (
            f"protocol, version {script.PROTOCOL}\n",
            f"`version` is {script.PROTOCOL}.",
            f"TCP port: {script.PORT},", f"127.0.0.1 {script.PORT}`",
            f"at most {script.LINE_LIMIT:,} bytes", f"keyboard: {script.LINE_LIMIT:,} ",
            f"| {script.LINE_LIMIT:,} bytes came", f"most {script.REF_LIMIT} char",
            f"1 to {script.NAME_LIMIT} characters: letters",
            f"1 to {script.TEXT_LIMIT:,} characters. Space",
            f"0 to {script.COLORS - 1},", f"most {script.PEOPLE_LISTED} people",
            f"have {script.HELLO_SECONDS} seconds for",
            f"For {script.NAME_SECONDS} seconds",
            f"the {script.NAME_SECONDS} seconds the name is free",
            f"for {script.SESSION_SECONDS // 3600} hours",
            f"the {script.COUNTED_ERRORS}th", f"newest {options.recent} public",
            f"send {options.rate} messages", f"and {script.BURST} at once",
            f"at most {script.WAITING_BYTES // 2**20} MiB",
            f"A chunk has at most {script.CHUNK:,} bytes",
            f"one of {options.max_file * 2**20 + 1} bytes",
            f"have {script.HALF_FILES} uploads that",
            f"for {script.HALF_SECONDS // 60} minutes, while",
            f"brings at most {script.WISH} chunks",
            # Far enough that the way there and back costs no pause.
            f"every {script.READY} chunks", f"to {2 * script.READY} chunks past",
            f"behind more than {2 * script.READY}."):
        assert PAGE.count(phrase) == 1, phrase


# ------------------------------------------------------------- how the page is written

def check_writing(section):
    """Raise Different where a change would be seen by nobody else."""
    for what, _, line in steps(section):
        if what in ("client", "server"):
            check_line(what, line, section)


def check_line(side, line, section):
    try:
        message = json.loads(line)
    except ValueError as problem:
        raise Different(f"not JSON ({problem}): {line}") from None
    # In one way of writing it, so that a space too much is found as well.
    writings = {"client": json.dumps(message, ensure_ascii=False),
                "server": script.encode(message).decode().rstrip()}
    if line != writings[side]:
        raise Different(f"written another way: {line}")
    if side == "client":
        check_words(message, section)


def check_words(message, section):
    """Raise Different if a word of a client's line stands nowhere else.

    A wrong name and another wrong name are answered alike, and so are two wrong types.
    So the text around them has to name them. (That of an error does not count: there
    stands “10 MiB”, which would do for a size that should be 13.)
    """
    section = re.sub(r'("type":"error",.*"text":)"(?:\\.|[^"\\])*"', r"\1", section)
    known = " ".join(rows(YOU_SEND).values())
    for name, value in message.items():
        if name == "type":
            good = value in rows(YOU_SEND) or f"“{value}”" in section
        else:
            word = rf"(?<![\w-]){re.escape(str(value))}(?![\w-]|\.\w)"
            good = f"`{name}`" in known and len(re.findall(word, section)) >= 2
        if not good:
            raise Different(f"nobody speaks of {name} {value}: {message}")


@pytest.mark.parametrize("heading", CONVERSATIONS)
def test_the_page_is_written_so_that_changes_are_seen(heading):
    check_writing(sections()[heading])


def test_no_block_is_left_out():
    """As one with a word too many or too few in its first line would be."""
    assert len(re.findall(r"^```(?!console$).", PAGE, re.MULTILINE)) == sum(
        bool(found[0]) for found in STEP.findall(PAGE))
    assert set(re.findall(r"^<!-- (\w+)", PAGE, re.MULTILINE)) == {
        "here", "operator", "breaks", "endless", "option", "password"}


# ----------------------------------------------------- the guard itself: one character

def changed(line, place, chance):
    new = chance.choice([letter for letter in "aeorst0379" if letter != line[place]])
    return line[:place] + new + line[place + 1:]


def is_seen(record):
    """Whether the comparison of these pairs fails."""
    comparison = Comparison()
    try:
        for example, real in record:
            comparison.compare(example, real)
    except Different:
        return True
    return False


@pytest.mark.parametrize("heading", CONVERSATIONS)
def test_one_changed_character_of_the_server_is_seen(heading):
    """In every place of every line, beside what has really come."""
    record = play_on_a_process(steps(sections()[heading])).record
    chance = random.Random(heading)
    assert not is_seen(record)
    for number, (example, real) in enumerate(record):
        free = {place for found in VOLATILE.finditer(example)
                for place in range(*found.span(2))}
        for place in set(range(len(example))) - free:
            pair = (changed(example, place, chance), real)
            assert is_seen(record[:number] + [pair] + record[number + 1:]), pair


@pytest.mark.parametrize("heading", CONVERSATIONS)
def test_one_changed_character_of_a_client_is_seen(heading):
    """In every place of every line; what can be said is really said to a server."""
    section, chance = sections()[heading], random.Random(heading)
    for line in [line for what, _, line in steps(section) if what == "client"]:
        for place in range(len(line)):
            worse = changed(line, place, chance)
            page = section.replace(line, worse, 1)
            with pytest.raises((AssertionError, OSError)):
                # This line alone first: mostly that is enough, and takes no time.
                check_line("client", worse, page)
                check_writing(page)
                play_in_a_thread(steps(page))
                print("not seen:", worse)
