"""Runs the tests: `python3 -m tests` (Windows: `py -m tests`).

What you write behind it goes to pytest: `python3 -m tests -k wire`, `python3 -m tests
--long` (the slow tests too). If this Python has no pytest, one is installed into the
folder `.venv`: the first time that takes a few seconds and needs the internet.
"""
import bisect
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
VENV = PROJECT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
# Where the second and further parts begin, so that all take about the same time. In the
# last two are all windows. On one screen they would take the keyboard from each other:
# so it is only one part where not each has a screen of its own.
BEGINS = ("test_files.py", "test_pages.py", "test_start_of_tests.py",
          "test_window_figures.py")
VERSION = "{}.{}".format(*sys.version_info)  # "3.9"


def main():
    pytest = [python_with_pytest(), "-m", "pytest", *sys.argv[1:]]
    screens, commands = [], []
    try:
        for part in parts():
            display, processes = start_screen()
            screens += processes
            commands.append([*display, *pytest, *part])
        return run(commands)
    finally:
        for process in reversed(screens):  # each window manager before its screen
            process.terminate()
            process.wait()


def python_with_pytest():
    """The path of a Python that has pytest: this one, or the one in .venv."""
    if has_pytest():
        return sys.executable
    # Not "is the folder there?": Debian without python3-venv leaves a .venv without
    # pip behind, and a .venv of another Python would test with the wrong one.
    if not venv_has_pip():
        make_venv()
    # Every time, not only the first: this mends an install that was interrupted.
    # Where nothing is missing it takes half a second and needs no network.
    pip = ask([VENV_PYTHON, "-m", "pip", "install", "-r", "requirements-dev.txt"])
    if pip.returncode:
        sys.exit("Could not install pytest into .venv; is there an internet "
                 f"connection? ({last_line(pip.stdout)})")
    return str(VENV_PYTHON)


def has_pytest():
    try:
        import pytest
        import pytest_timeout  # noqa: F401  (.pytest.ini sets its option `timeout`)
    except ImportError:
        return False
    # Ubuntu 22.04 ships 6.2. Before 7.2 the `pythonpath` of .pytest.ini comes too late:
    # tests/conftest.py does not find what it imports.
    return tuple(map(int, pytest.__version__.split(".")[:2])) >= (7, 2)


def venv_has_pip():
    try:
        pip = ask([VENV_PYTHON, "-m", "pip", "--version"])
    except OSError:  # there is no .venv
        return False
    # It says "pip 23.2 from /.../pip (python 3.9)".
    return last_line(pip.stdout).endswith(f"(python {VERSION})")


def make_venv():
    try:
        import ensurepip  # noqa: F401  (Debian and Ubuntu leave it out)
    except ImportError:
        sys.exit("This Python cannot make a .venv for the tests; on Debian and Ubuntu: "
                 "sudo apt install python3-venv")
    print(f"Making .venv for the tests, with Python {VERSION} ...", flush=True)
    venv = ask([sys.executable, "-m", "venv", "--clear", VENV])
    if venv.returncode or not venv_has_pip():
        sys.exit(f"Could not make {VENV}: {last_line(venv.stdout)}")


def ask(command):
    """Run a command to its end, and keep all that it prints."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return subprocess.run(command, cwd=PROJECT, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def last_line(text):
    return text.strip().rpartition("\n")[2]


def can_start_screens():
    """Whether this is Linux without a screen, as in CI, where we can start our own."""
    # Without Xvfb the window's tests are skipped, and pytest's summary says why.
    return (sys.platform.startswith("linux") and not os.environ.get("DISPLAY")
            and shutil.which("Xvfb"))


def start_screen():
    """Start a screen that nobody sees: (what sets DISPLAY for a command, processes)."""
    if not can_start_screens():
        return [], []
    # -displayfd 1: Xvfb picks a free number and prints it as soon as it can be used.
    # -noreset: otherwise it starts anew whenever the last window closes, and the next
    # test's window may come in between. A session of its own: Ctrl+C is for pytest,
    # whose windows still need their screen while the tests clean up.
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL,
               "start_new_session": True}
    xvfb = subprocess.Popen(["Xvfb", "-displayfd", "1", "-noreset", "-nolisten", "tcp",
                             "-dpi", "96", "-screen", "0", "1280x1024x24"], **options)
    display = ["env", "DISPLAY=:" + xvfb.stdout.readline().decode().strip()]
    if not shutil.which("openbox"):
        return display, [xvfb]
    # Without a window manager no window gets the keyboard.
    openbox = subprocess.Popen([*display, "openbox", "--startup", "echo ready"],
                               **options)
    while openbox.stdout.readline() not in (b"ready\n", b""):
        pass  # before that it may complain about its menus
    return display, [xvfb, openbox]


def parts():
    """What to test: all that is asked for, or some parts that run side by side.

    The tests mostly wait: for a process to start, for a connection to be lost. When
    there were fewer, five at a time took 144 s on two cores, and three 187 s. Only
    where all is asked for: five reports of `-k wire` would be four too many.
    """
    files = sorted(str(path) for path in (PROJECT / "tests").glob("test_*.py"))
    if len(files) <= len(BEGINS) or not {"-q", "-v", "--long"}.issuperset(sys.argv[1:]):
        return [[]]
    begins = BEGINS if can_start_screens() else BEGINS[:-1]
    names = [os.path.basename(path) for path in files]
    cuts = [0, *(bisect.bisect_left(names, name) for name in begins), len(files)]
    # (Each keeps the names of its failed tests for itself: they would overwrite them.)
    return [["-o", f"cache_dir=.pytest_cache/{part}", *files[begin:end]]
            for part, (begin, end) in enumerate(zip(cuts, cuts[1:]))]


def run(commands):
    """Run pytest to its end, or several side by side; return the exit status.

    It is 0 only if all of them ended so.
    """
    # A shell starts a job behind "&" with Ctrl+C ignored, and that would be inherited
    # by all programs that the tests start and stop. A handler is not inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # What the others print is kept until all have ended.
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(tempfile.TemporaryFile()) for _ in commands[1:]]
        running = [subprocess.Popen(command, cwd=PROJECT, stdout=stdout, stderr=stdout)
                   for command, stdout in zip(commands, [None, *kept])]
        end_together(running)
        statuses = [pytest.wait() for pytest in running]
        for output in kept:
            output.seek(0)
            shutil.copyfileobj(output, sys.stdout.buffer)
            sys.stdout.flush()
    return next(filter(None, statuses), 0)


def end_together(running):
    """Pass on to all pytests how this one is ended."""
    def terminate(*ignored):
        for pytest in running:
            pytest.terminate()

    # Ctrl+C reaches pytest too, which then prints how far it came: wait for that. (Not
    # SIG_IGN: set any earlier, pytest would inherit it and could not be stopped.)
    signal.signal(signal.SIGINT, lambda *ignored: None)
    # Ended from outside, or by a closed terminal: without this the screen would stay.
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), terminate)


if __name__ == "__main__":
    sys.exit(main())
