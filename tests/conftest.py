"""What all tests share: `--long`, a server, and people who come and go."""
import os

import pytest

from people import Person, ServerProcess    # .pytest.ini sets the path for it

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


@pytest.fixture(scope="module")
def server():
    """One server for a whole file of tests, started once since that takes time.

    `--recent 0`: a newcomer must not be greeted with what the test before said.
    """
    with ServerProcess("--rate", "0", "--recent", "0") as process:
        yield process


@pytest.fixture
def start_server():
    """A function that starts a server with the options that one test needs."""
    running = []

    def start(*options, **how):
        running.append(ServerProcess(*options, **how).__enter__())
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
