"""`python3 -m tests` itself: the first thing that a newcomer runs.

Every test has a small project of its own, with a copy of tests/__main__.py in it, and
starts it as a person would.
"""
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.__main__ import BEGINS

# The first file of each part.
FIVE = ["test_a.py", *BEGINS]
PROJECT = Path(__file__).resolve().parent.parent
SAMPLE = """
def test_good():
    pass

def test_bad():
    assert False
"""
# Python with -S does not look into site-packages, so there is no pytest for it. With
# an `ensurepip` that cannot be imported it is what Debian and Ubuntu ship.
NO_PYTEST = "-S"
NO_ENSUREPIP = "raise ImportError('taken away by the test')\n"


class Project:
    def __init__(self, folder):
        self.folder = folder
        (folder / "tests").mkdir()
        for name in ("tests/__main__.py", "tests/__init__.py", ".pytest.ini",
                     "requirements-dev.txt"):
            shutil.copy(PROJECT / name, folder / name)
        self.write("tests/test_sample.py", SAMPLE)
        self.venv = folder / ".venv"
        self.venv_python = self.venv / (
            "Scripts/python.exe" if os.name == "nt" else "bin/python")

    def write(self, name, text):
        (self.folder / name).write_text(text, encoding="utf-8")

    def start(self, *words, cwd=None, **environment):
        """Start `python words`. The variables in `environment` are set, or not if None.

        There seems to be a screen, so that none has to be started: that takes longer
        than the rest.
        """
        variables = {**os.environ, "DISPLAY": ":no-screen", **environment}
        return subprocess.Popen(
            [sys.executable, *words], cwd=cwd or self.folder, text=True,
            env={name: value for name, value in variables.items() if value is not None},
            start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)

    def run(self, *words, limit=60, **how):
        """The exit status of `python words`, and what it printed."""
        with self.start(*words, **how) as process:
            try:
                printed, nothing = process.communicate(timeout=limit)
            finally:
                process.kill()
        return process.returncode, printed


STARTS_SCREENS = sys.platform.startswith("linux") and bool(shutil.which("Xvfb"))
on_linux_with_xvfb = pytest.mark.skipif(
    not STARTS_SCREENS,
    reason="there is no Xvfb here (on Windows and macOS there is always a screen)")


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def test_arguments_and_exit_status_are_passed_on(project):
    status, printed = project.run("-m", "tests", "-q")
    assert status == 1 and "1 failed, 1 passed" in printed
    status, printed = project.run("-m", "tests", "--no-such-option")
    assert status == 4 and "unrecognized arguments: --no-such-option" in printed


def test_all_of_them_run_as_parts_side_by_side(project):
    """Each waits for another, so one behind the other they would never end."""
    project.write("tests/test_sample.py", "")
    names = FIVE if STARTS_SCREENS else FIVE[:-1]
    for name, other in zip(names, names[1:] + names[:1]):
        project.write(f"tests/{name}", f"""
import os, pathlib, time

def test_one():
    pathlib.Path("{name}").write_text(os.environ.get("DISPLAY", "none"))
    end = time.monotonic() + 30
    while not pathlib.Path("{other}").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
""")
    status, printed = project.run("-m", "tests", "-q", DISPLAY=None)
    assert status == 0 and printed.count("1 passed") == len(names), printed
    # Each has its own screen, or their windows would take the keyboard from each other.
    displays = {(project.folder / name).read_text() for name in names}
    assert len(displays) == (5 if STARTS_SCREENS else 1)
    # Somebody who asks for certain tests gets one report.
    status, printed = project.run("-m", "tests", "-q", "-k", "test_one")
    assert printed.count(" passed") == 1


def test_on_a_screen_of_somebodys_all_windows_are_in_one_part(project):
    (project.folder / "tests" / "test_sample.py").unlink()
    for name in FIVE:
        project.write(f"tests/{name}", "")
    project.write("ask.py", "import os\nfrom tests.__main__ import parts\nfor part in "
                  "parts():\n    print(*map(os.path.basename, part[2:]))\n")
    status, printed = project.run("ask.py")
    assert printed.splitlines() == [*FIVE[:3], f"{FIVE[3]} {FIVE[4]}"]


def test_whichever_part_fails_all_of_them_fail(project):
    """Parts that are only a word and an exit status; also a signal is no success."""
    project.write("ask.py", """
import sys
from tests.__main__ import run
for end, places in [("pass", [0]), ("sys.exit(1)", range(5)), ("sys.exit(5)", [3]),
                    ("os.kill(os.getpid(), 9)", [4])]:
    for bad in places:
        commands = [[sys.executable, "-ISc", "import os, sys\\n"
                     f"print({part}, flush=True); {end if part == bad else 'pass'}"]
                    for part in range(5)]
        print("status", run(commands), flush=True)
""")
    status, printed = project.run("ask.py")
    assert status == 0
    reports = re.findall(r"((?:\d\n){5})status (-?\d+)", printed)
    assert [int(status) for _, status in reports] == [0, 1, 1, 1, 1, 1, 5, -9]
    # The first prints as it goes, the others in their order when all have ended.
    assert {words for words, _ in reports} == {"0\n1\n2\n3\n4\n"}


def test_it_also_runs_as_a_folder_and_from_elsewhere(project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    status, printed = project.run(project.folder / "tests", "-k", "good", cwd=elsewhere)
    assert status == 0 and "1 passed, 1 deselected" in printed
    assert os.listdir(elsewhere) == []


def test_what_debian_leaves_out_is_one_sentence(project):
    project.write("ensurepip.py", NO_ENSUREPIP)
    status, printed = project.run(NO_PYTEST, "-m", "tests",
                                  PYTHONPATH=str(project.folder))
    assert status == 1 and printed.count("\n") == 1
    assert "sudo apt install python3-venv" in printed
    assert not project.venv.exists()


def test_a_half_made_venv_is_mended_and_no_network_is_one_sentence(project):
    # What `python3 -m venv` leaves behind where ensurepip is missing.
    project.run("-m", "venv", "--without-pip", ".venv")
    assert project.venv_python.exists()
    status, printed = project.run(NO_PYTEST, "-m", "tests", PIP_NO_INDEX="1",
                                  PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="")
    making, sentence = printed.splitlines()
    assert making.startswith("Making .venv") and status == 1
    # (By the pip that it has now: without one, it would say that it made no .venv.)
    assert "Could not install pytest" in sentence and "internet" in sentence


@pytest.mark.long
def test_pytest_comes_from_the_internet_and_the_venv_is_kept(project):
    run_good = (NO_PYTEST, "-m", "tests", "-k", "good")
    status, printed = project.run(*run_good, limit=110)
    assert status == 0 and "1 passed, 1 deselected" in printed
    assert printed.startswith("Making .venv")
    # The second time nothing is made, and nothing is needed from outside.
    status, printed = project.run(*run_good, PIP_NO_INDEX="1")
    assert status == 0 and "1 passed, 1 deselected" in printed
    assert "Making .venv" not in printed


def other_python():
    """A Python on this computer that is not of the version that runs this test."""
    names = [f"python3.{minor}" for minor in range(9, 20)]
    paths = [shutil.which(name) for name in names]
    paths += Path.home().glob(".pyenv/versions/3.*/bin/python3")
    ask = ("import ensurepip, sys; "
           f"sys.exit(sys.version_info[:2] == {sys.version_info[:2]})")
    for path in filter(None, paths):
        # Some cannot even start: pyenv leaves scripts behind that lead nowhere.
        if not subprocess.run([path, "-c", ask], stderr=subprocess.DEVNULL).returncode:
            return path
    pytest.skip("there is only one version of Python here (runs only with --long)")


@pytest.mark.long
def test_a_venv_of_another_python_is_made_anew(project):
    subprocess.run([other_python(), "-m", "venv", project.venv], check=True)
    status, printed = project.run(NO_PYTEST, "-m", "tests", "-k", "good", limit=110)
    assert status == 0 and printed.startswith("Making .venv")
    assert "platform {} -- Python {}.{}.".format(
        sys.platform, *sys.version_info) in printed


WITH_A_SCREEN = """
import os, shutil, subprocess, sys

def ask_the_window_manager():
    if shutil.which("openbox") and shutil.which("xdotool"):
        subprocess.run(["xdotool", "get_desktop"], check=True)

def test_screen():
    print("\\nscreen", os.environ["DISPLAY"], flush=True)
    ask_the_window_manager()

def test_endless():
    print("\\nendless", os.environ["DISPLAY"], flush=True)
    try:
        sys.stdin.read()
    finally:  # after Ctrl+C there is still a screen, for whoever has to clean up
        ask_the_window_manager()
"""


def is_there(display):
    """Whether somebody listens where the programs that use this display connect."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex("/tmp/.X11-unix/X" + display.lstrip(":")) == 0


@on_linux_with_xvfb
def test_without_a_screen_one_is_started_and_taken_down_again(project):
    project.write("tests/test_sample.py", WITH_A_SCREEN)
    status, printed = project.run("-m", "tests", "-s", "-k", "screen", DISPLAY=None)
    assert status == 0, printed
    assert not is_there(re.search(r"screen (:\d+)", printed)[1])


@on_linux_with_xvfb
@pytest.mark.parametrize("end", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_screen_does_not_outlive_tests_that_are_ended(project, end):
    project.write("tests/test_sample.py", WITH_A_SCREEN)
    with project.start("-m", "tests", "-s", DISPLAY=None) as process:
        try:
            for line in process.stdout:
                if line.startswith("endless "):
                    break
            display = line.split()[1]
            assert is_there(display)
            if end == "SIGTERM":  # `kill` ends one process...
                process.send_signal(signal.SIGTERM)
            else:  # ...Ctrl+C, or closing the terminal, all that run in it
                os.killpg(process.pid, getattr(signal, end))
            printed, nothing = process.communicate(timeout=30)
        finally:
            process.terminate()
    assert process.returncode != 0
    assert not is_there(display)
    if end == "SIGINT":
        assert "1 passed" in printed and "! KeyboardInterrupt !" in printed
        assert "Traceback" not in printed
