"""What tests/crowd.py measures with: servers as processes, their use, several in turn.

A figure of a chat server says little by itself: it is that of this computer at this
moment, and what else runs here has its part in it. What can be relied on is a ratio:
two servers, one after the other, again and again, and the median of the pairs.
"""
import bisect
import collections
import contextlib
import itertools
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dialects import ChattyCat, Irc, NoStart, shorten

LISTENING = re.compile(r"^(.*)listening on (\S+):(\d+)\s*$", re.MULTILINE)
STEP = 10_000               # nanoseconds: times are counted in steps of 10 µs
clock = time.perf_counter_ns


# ------------------------------------------------------------- processes, and their use

def processes():
    """Return {pid: (parent's pid, memory in bytes, CPU seconds)} of all processes."""
    if os.path.isdir("/proc/self"):
        return dict(filter(None, map(linux_process, os.listdir("/proc"))))
    return processes_by_ps()


def linux_process(pid):
    try:
        text = Path(f"/proc/{int(pid)}/stat").read_text("latin-1")
    except (ValueError, OSError):
        return None                         # no process, or it has just ended
    # What stands behind the name, which may have spaces and brackets in it.
    words = text.rpartition(") ")[2].split()
    ticks = sum(map(int, words[11:15]))     # its own, and its dead children's
    return int(pid), (int(words[1]), int(words[21]) * os.sysconf("SC_PAGE_SIZE"),
                      ticks / os.sysconf("SC_CLK_TCK"))


def processes_by_ps():
    """The same where there is no /proc, as on a Mac."""
    done = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,rss=,time="],
                          capture_output=True, text=True, check=True)
    lines = (line.split() for line in done.stdout.splitlines())
    return {int(pid): (int(parent), int(rss) * 1024, seconds_of(spent))
            for pid, parent, rss, spent in lines}


def seconds_of(spent):
    """What ps writes: 12:34.56 on a Mac, 1-02:03:04 elsewhere."""
    days, _, rest = spent.rpartition("-")
    seconds = 0
    for part in rest.split(":"):
        seconds = seconds * 60 + float(part)
    return int(days or 0) * 86_400 + seconds


def usage(pid):
    """Return (memory, CPU seconds) of a process and its children; None: not known."""
    if not pid or os.name == "nt":
        return None
    known = processes()
    family, newer = set(), {pid} & set(known)
    while newer:
        family |= newer
        newer = {child for child in known if known[child][0] in family} - family
    if not family:
        return None
    return (sum(exact_memory(member, known[member][1]) for member in family),
            sum(known[member][2] for member in family))


def exact_memory(pid, memory):
    """On Linux `stat` may be some pages a thread behind, and we have 1,000 threads."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        if found := re.search(r"^Rss: +(\d+) kB", text, re.MULTILINE):
            return int(found[1]) * 1024
    return memory


def allow_open_sockets(count):
    """A socket is a descriptor; many systems allow 1,024 of them, or even 256."""
    try:
        import resource                     # Windows has none
        soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < count:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, most))
    except ImportError:
        pass
    except (ValueError, OSError):
        raise NoStart(f"this system allows a program {most:,} open sockets; choose "
                      "fewer people, or raise that with “ulimit -n”") from None


# -------------------------------------------------------------------------- the servers

class Server:
    """A server that we start, and stop at the end; or one that runs somewhere."""

    def __init__(self, name, command, address=None, dialect=ChattyCat, pid=None):
        self.name, self.command, self.address = name, command, address
        self.dialect, self.pid, self.process = dialect, pid, None
        self.tls = "--tls" in command

    def __enter__(self):
        if self.address is None:
            self.folder = tempfile.TemporaryDirectory(prefix="crowd-")
            try:
                self.start()
                self.wait_until_it_listens()
            except BaseException:
                self.__exit__()
                raise
        return self

    def start(self):
        # A file, not a pipe: nobody has to empty it while we measure.
        self.output = Path(self.folder.name, "output")
        env = {**os.environ, "CHATTYCAT_HOME": self.folder.name}
        env.pop("CHATTYCAT_PASSWORD", None)     # the crowd does not say any
        try:
            with self.output.open("wb") as output:
                self.process = subprocess.Popen(
                    self.command, stdin=subprocess.DEVNULL, stdout=output,
                    stderr=subprocess.STDOUT, start_new_session=True,
                    env=env)
        except OSError as problem:
            raise NoStart(f"cannot run {self.command[0]} ({problem.strerror})"
                          ) from None
        self.pid = self.process.pid

    def wait_until_it_listens(self):
        limit = time.monotonic() + 30
        while not (line := LISTENING.search(self.printed())):
            if self.process.poll() is not None or time.monotonic() > limit:
                raise NoStart(f"“{self.name}” does not listen; it says "
                              f"{shorten(self.printed()[-150:])}")
            time.sleep(0.01)        # there is no event for “a file has grown”
        self.address = line[2], int(line[3])
        self.dialect = Irc if line[1].startswith("IRC") else ChattyCat

    def printed(self):
        return self.output.read_text("utf-8", "replace")

    def last_words(self):
        """Of a server that has ended while it was measured."""
        if self.process and self.process.poll() is not None:
            return f"; the server has ended and said {shorten(self.printed()[-150:])}"
        return ""

    def __exit__(self, *_):
        if self.process:
            self.stop()
            self.process = self.address = None      # it can be started again
        if self.address is None:
            self.folder.cleanup()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if os.name == "posix":      # what it has started itself and left over
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)


# -------------------------------------------------------------------------- the figures

class Delays:
    """Times, counted in steps of 10 µs: however many there are, it stays small."""

    def __init__(self):
        self.counts = collections.Counter()

    def add(self, now, times):
        self.counts.update([(now - sent) // STEP for sent in times])

    def figures(self):
        steps = sorted(self.counts)
        sums = list(itertools.accumulate(self.counts[step] for step in steps))
        ranks = {"p50": None, "p99": None, "max": None}
        for name, share in zip(ranks, (0.5, 0.99, 1) if steps else ()):
            place = bisect.bisect_left(sums, share * sums[-1])
            ranks[name] = round((steps[place] + 1) * STEP / 1e6, 2)
        return ranks


def figures(options, crowd, joining, seconds, busy, uses):
    """All figures of one run, as --json shows them."""
    deliveries = crowd.said * (options.people - (not crowd.dialect.echo))
    pace = ({"rate": options.rate, "late_ms": round(crowd.late / 1e6, 2)}
            if options.rate else {"window": options.window})
    return {
        "people": options.people, "senders": options.senders, "size": options.size,
        "tls": crowd.context is not None,
        **pace, "seconds": round(seconds, 3), "messages": crowd.said,
        "deliveries": deliveries,
        "messages_per_second": round(crowd.said / seconds),
        "deliveries_per_second": round(deliveries / seconds),
        "arrival_ms": crowd.arrivals.figures(),
        "last_ms": crowd.last_arrivals.figures(),
        "joining_at_once": crowd.dialect.at_once,
        "joins_per_second": round(options.people / joining[0]),
        "join_seconds": round(joining[0], 3), "all_seen_seconds": round(joining[1], 3),
        "server": all(uses) and use(options.people, *uses, seconds, deliveries) or None,
        "generator_cpu_share": round(busy, 3)}


def use(people, empty, full, after, seconds, deliveries):
    """What the server needed: its usage() when empty, when full, after the talk."""
    spent = max(after[1] - full[1], 0.01)       # it is counted in 1/100 s
    return {"memory": after[0], "memory_joined": full[0],
            "memory_per_person": round((full[0] - empty[0]) / people),
            "cpu_seconds": round(spent, 2), "cpu_share": round(spent / seconds, 3),
            "deliveries_per_cpu_second": round(deliveries / spent)}


def report(run):
    """The figures of one run, for a person to read."""
    def times(name):
        return "   ".join(f"{rank} {value} ms" for rank, value in run[name].items())

    how = (f"{run['rate']:,} messages a second (sent at most {run['late_ms']} ms late)"
           if "rate" in run else f"{run['window']:,} in flight each")
    return "\n".join([
        f"{run['people']:,} people, {run['senders']:,} of them talk, {how}, "
        f"{'TLS, ' * run['tls']}{run['seconds']:.1f} s",
        f"joins         {run['joins_per_second']:,} a second: all are in after "
        f"{run['join_seconds']} s, all know of all after {run['all_seen_seconds']} s",
        f"messages      {run['messages_per_second']:,} a second",
        f"deliveries    {run['deliveries_per_second']:,} a second",
        f"arrival       {times('arrival_ms')}",
        f"last has it   {times('last_ms')}",
        *report_use(run["server"]),
        f"this program  {run['generator_cpu_share']:.0%} of one core",
        f"All {run['deliveries']:,} deliveries came: once, in order, as said."])


def report_use(server):
    if not server:
        return ["server        memory and CPU are not known here"]
    return [f"server memory {server['memory'] / 2**20:.1f} MiB; each who joined took "
            f"{server['memory_per_person'] / 1024:.1f} KiB",
            f"server CPU    {server['cpu_seconds']} s, {server['cpu_share']:.0%} of "
            f"one core; {server['deliveries_per_cpu_second']:,} deliveries a CPU "
            "second"]


# ---------------------------------------------------------------------------- in turn

COMPARED = {
    "deliveries a second": lambda run: run["deliveries_per_second"],
    "deliveries a server CPU second":
        lambda run: run["server"] and run["server"]["deliveries_per_cpu_second"],
    "last has it, p50, ms": lambda run: run["last_ms"]["p50"],
    "joining, s": lambda run: run["join_seconds"],
    "this program, % of one core": lambda run: round(100 * run["generator_cpu_share"])}


def versus(servers, pairs, measure, tell):
    """Measure all the servers in turn, so many times; return a list of runs for each.

    A B, B A, A B: a computer that gets slower or faster meanwhile favours nobody.
    """
    runs = [[] for _ in servers]
    for turn in range(pairs):
        for server, its_runs in list(zip(servers, runs))[::-1 if turn % 2 else 1]:
            tell.what = f"round {turn + 1} of {pairs}, {server.name}: "
            its_runs.append(measure(server))
    return runs


def compare(ours, theirs):
    """Return {what: (our figure, their figure, ratio)} of two runs."""
    pairs = {what: (figure(ours), figure(theirs)) for what, figure in COMPARED.items()}
    if ours["joining_at_once"] != theirs["joining_at_once"]:
        del pairs["joining, s"]
    return {what: (our, their, round(our / their, 3)) for what, (our, their)
            in pairs.items() if our and their}


def comparisons(servers, runs):
    """For each of the others: its command, the pairs, and the medians of these."""
    for server, its_runs in list(zip(servers, runs))[1:]:
        pairs = [compare(*pair) for pair in zip(runs[0], its_runs)]
        medians = {
            what: [round(statistics.median(column), 3)
                   for column in zip(*(pair[what] for pair in pairs))]
            for what in pairs[0] if all(what in pair for pair in pairs)}
        yield {"command": server.name, "runs": its_runs, "pairs": pairs,
               "median": medians}


def report_comparison(comparison):
    lines = [f"{'ours':>56} {'theirs':>12} {'ratio':>8}   {comparison['command']}"]
    rounds = [(f"round {number}", pair)
              for number, pair in enumerate(comparison["pairs"], 1)]
    for title, pair in rounds + [("median", comparison["median"])]:
        for what, (ours, theirs, ratio) in pair.items():
            ours, theirs = (f"{figure:,.0f}" if figure > 1000 else f"{figure:,}"
                            for figure in (ours, theirs))
            lines.append(f"{title:8} {what:32} {ours:>14} {theirs:>12} {ratio:>8.2f}")
            title = ""
    # Python makes and checks messages at its own pace, and a server of a few people
    # in C++ is faster than that: then it is this program that was measured.
    busy = statistics.median(run["generator_cpu_share"] for run in comparison["runs"])
    if busy > 0.8:
        lines.append(f"This program needed {busy:.0%} of one core to keep up with "
                     "theirs: they may be faster.")
    return "\n".join(lines)


class Progress:
    """How far it has come, on stderr: in a terminal one line, written over and over."""

    def __init__(self):
        self.terminal = sys.stderr.isatty()
        self.what, self.next = "", clock() + 300_000_000

    def __call__(self, text):
        if clock() > self.next:
            self.next = clock() + (300_000_000 if self.terminal else 3_000_000_000)
            text = (self.what + text)[:79]
            print(f"\r{text:79}" if self.terminal else text, file=sys.stderr,
                  end="" if self.terminal else "\n", flush=True)

    def clear(self):
        if self.terminal:
            print(f"\r{'':79}\r", file=sys.stderr, end="", flush=True)
