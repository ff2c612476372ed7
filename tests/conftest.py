"""What all tests share: `--long`, a server, people who come and go, and TLS."""
import compileall
import os

import pytest

from ChattyCat_Server import CertificateError, make_certificate
from people import SERVER, Person, ServerProcess    # .pytest.ini sets the path for it

# Set where everything that a test needs is said to be there (CI): then a test
# that is skipped has tested nothing, and that must be seen.
NO_SKIP = os.environ.get("CHATTYCAT_NO_SKIP") == "1"


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also run what takes minutes")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes long; runs only with --long")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--long"):
        return
    long_ones = [item for item in items if item.get_closest_marker("long")]
    if NO_SKIP:         # not asked for is not the same as not possible here
        config.hook.pytest_deselected(items=long_ones)
        items[:] = [item for item in items if item not in long_ones]
    for item in long_ones:
        item.add_marker(pytest.mark.skip(reason="takes long: run with --long"))


def pytest_sessionfinish(session):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if NO_SKIP and reporter and reporter.stats.get("skipped"):
        reporter.write_line("\nCHATTYCAT_NO_SKIP=1: a skipped test is a failure.")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", autouse=True)
def chattycat_home(tmp_path_factory):
    """No test may ever touch the files of the person who runs it."""
    home = tmp_path_factory.mktemp("chattycat-home")
    os.environ["CHATTYCAT_HOME"] = str(home)
    return home


# The tests that run twice: over TCP as it is, and over TLS. All of a file's tests that
# use a server, or those that are named: the others are not about the connection.
OVER_TLS = {
    "test_protocol": (), "test_bad_input": (), "test_coming_back": (),
    "test_files": (
        "test_a_file_for_everybody", "test_a_file_for_one", "test_sizes",
        "test_bad_chunks_leave_the_upload_where_it_was",
        "test_an_upload_goes_on_where_it_broke_off", "test_two_downloads_at_once"),
    "test_history": (
        "test_all_of_it_survives_a_kill",
        "test_a_ref_from_before_the_kill_is_answered_with_the_first_receipt",
        "test_what_anybody_has_seen_is_never_lost_nor_its_id_given_again",
        "test_names_wait_for_their_sessions",
        "test_private_lines_stay_private_after_a_kill",
        "test_who_comes_back_for_everything_gets_it_piece_by_piece")}
# These only with --long: each takes over a second.
LONG_OVER_TLS = (
    "test_a_long_history_throws_nobody_out",
    "test_after_goodbye_the_server_does_not_wait_for_us_for_ever",
    "test_two_hundred_come_back_at_once",
    "test_what_anybody_has_seen_is_never_lost_nor_its_id_given_again",
    "test_whatever_breaks_every_line_is_shown_once")


def pytest_generate_tests(metafunc):
    """Let a test run twice; pytest asks this for each one that it has found."""
    name, file = metafunc.function.__name__, metafunc.module.__name__.split(".")[-1]
    if "tls" in metafunc.fixturenames and file in OVER_TLS and (
            not OVER_TLS[file] or name in OVER_TLS[file]):
        marks = [pytest.mark.long] if name in LONG_OVER_TLS else []
        metafunc.parametrize("tls", ["tcp", pytest.param("tls", marks=marks)],
                             indirect=True)


@pytest.fixture(scope="session")
def certificate(chattycat_home):
    """The file with a certificate and its key, made as any server makes it: once."""
    try:
        return make_certificate()
    except CertificateError as problem:
        pytest.skip(str(problem))


@pytest.fixture(scope="session", autouse=True)
def compiled():
    """Keep the scripts' bytecode, for all the times that the tests start them.

    Python would do so by itself, but not where PYTHONDONTWRITEBYTECODE is set.
    """
    for script in SERVER.parent.glob("ChattyCat_*.py"):
        compileall.compile_file(script, quiet=1)


@pytest.fixture(scope="module")
def tls(request):
    """The options of a server that speaks TLS, if this test is to run over it."""
    if getattr(request, "param", "tcp") == "tcp":
        return []
    return ["--tls", "--cert", request.getfixturevalue("certificate")]


@pytest.fixture(scope="module")
def server(tls):
    """One server for a whole file of tests, started once since that takes time.

    `--recent 0`: a newcomer must not be greeted with what the test before said.
    """
    with ServerProcess("--rate", "0", "--recent", "0", *tls) as process:
        yield process


@pytest.fixture
def start_server(tls):
    """A function that starts a server with the options that one test needs."""
    running = []

    def start(*options, **how):
        running.append(ServerProcess(*options, *tls, **how).__enter__())
        return running[-1]

    yield start
    # All of them get closed, also where one of them leaves in disorder.
    troubles = []
    for process in reversed(running):
        try:
            process.close()
        except AssertionError as trouble:
            troubles.append(str(trouble))
    assert not troubles, "\n".join(troubles)


@pytest.fixture
def join(request, start_server):
    """A function that lets somebody come in; after the test all of them leave.

    `join("Minou")` goes to the file's server, `join("Minou", other)` to another.
    `join()` connects and says nothing.
    """
    came = []

    def come(name=None, to=None, **how):
        server = to or request.getfixturevalue("server")
        came.append(Person(server, name, **how))
        return came[-1]

    yield come
    for person in came:
        person.leave()
