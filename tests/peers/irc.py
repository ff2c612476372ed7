#!/usr/bin/env python3
"""Start an IRC server of Debian's, to measure ours against.

    python3 tests/peers/irc.py inspircd             (C++)
    python3 tests/peers/irc.py ngircd --nodelay     (C)

On a free port, on this computer alone, with a configuration of its own: no look-ups
of names, and every limit lifted that would slow a crowd down. It ends with Ctrl+C or
SIGTERM and leaves nothing behind.

Both leave Nagle's algorithm on, so a small piece waits until an earlier one is
acknowledged. `--nodelay` switches it off (TCP_NODELAY), as ours and asyncio do; that
takes a C compiler. To be fair, measure both.
"""
import argparse
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

# What slows a flood in inspircd: the penalty of each command (threshold, commandrate,
# fakelag) and what may wait to be read or sent (recvq, softsendq). echomessage: who
# says something gets it too, and knows by it that it has arrived.
INSPIRCD = """
<server name="irc.example.org" description="A peer to measure" network="Peers">
<admin name="Nobody" nick="nobody" email="nobody@example.org">
<bind address="127.0.0.1" port="{port}" type="clients">
<module name="cap">
<module name="ircv3">
<module name="ircv3_echomessage">
<connect name="crowd" allow="*" timeout="60" pingfreq="1h" limit="6000"
         localmax="6000" globalmax="6000" maxconnwarn="no" maxchans="20"
         resolvehostnames="no" useident="no" fakelag="no" threshold="1000000"
         commandrate="1000000000" recvq="1M" softsendq="64M" hardsendq="64M">
<performance netbuffersize="65534" somaxconn="1024" softlimit="6000"
             clonesonconnect="no">
<options defaultmodes="n" splitwhois="no">
<dns server="127.0.0.1" timeout="1">
"""
# ngircd: a penalty is the time in which it does not read somebody.
NGIRCD = """
[Global]
Name = irc.example.org
Info = A peer to measure
MotdPhrase = Hello
Listen = 127.0.0.1
Ports = {port}
[Limits]
MaxConnections = 0
MaxConnectionsIP = 0
MaxJoins = 0
MaxNickLength = 20
MaxPenaltyTime = 0
PingTimeout = 3600
[Options]
DNS = no
Ident = no
PAM = no
"""
SERVERS = {"inspircd": (INSPIRCD, ["--nofork", "--nolog", "--nopid"]),
           "ngircd": (NGIRCD, ["--nodaemon"])}


def find(program):
    """The program's path; a server's folder is not in everybody's PATH."""
    path = os.environ.get("PATH")
    return shutil.which(program, path=path and f"{path}:/usr/sbin:/usr/local/sbin")


def free_port():
    """A port that was free a moment ago; these servers cannot look for one."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def nodelay_library(folder):
    """Compile nodelay.c, and return the environment in which a program gets it."""
    compiler = find("cc")
    if not compiler:
        sys.exit(fail("--nodelay needs a C compiler: apt install gcc libc6-dev"))
    source = pathlib.Path(__file__).with_name("nodelay.c")
    library = folder / "nodelay.so"
    done = subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"],
        stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(fail(f"The C compiler cannot make nodelay.so: {done.stderr.strip()}"))
    return dict(os.environ, LD_PRELOAD=str(library))


def fail(sentence):
    print(sentence, file=sys.stderr)
    return 2


def allow_many_files():
    """One connection is one descriptor, and 1,024 is what many systems begin with."""
    import resource
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def start(name, program, folder, port, env):
    """The server's process, in the foreground and with its words in a file."""
    template, options = SERVERS[name]
    config = folder / f"{name}.conf"
    config.write_text(template.format(port=port))
    # A copy, since AppArmor, where it is on, lets the one in /usr/sbin read nothing
    # but its own folders, and preload nothing.
    command = [shutil.copy(program, folder), *options, "--config", str(config)]
    if name == "inspircd" and os.geteuid() == 0:
        command.append("--runasroot")       # it refuses otherwise, and rightly
    with open(folder / "log", "wb") as log:
        return subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def wait_until_it_listens(process, port):
    """True as soon as one can connect; False when it has ended, or after 10 s."""
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return True
        except ConnectionRefusedError:
            pass
        try:
            process.wait(0.05)
            return False
        except subprocess.TimeoutExpired:
            pass
    return False


def run(name, program, folder, nodelay):
    """Run it until it ends or we are told to end; our exit status."""
    port = free_port()
    env = nodelay_library(folder) if nodelay else None
    process = start(name, program, folder, port, env)
    try:
        if not wait_until_it_listens(process, port):
            words = (folder / "log").read_text(errors="replace").strip()
            return fail(f"{name} does not start. Its last words: {words[-500:]}")
        print(f"IRC {name} is listening on 127.0.0.1:{port}", flush=True)
        return process.wait()
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description="Start an IRC server to measure.")
    parser.add_argument("name", choices=SERVERS)
    parser.add_argument("--nodelay", action="store_true",
                        help="with TCP_NODELAY, which it does not set by itself")
    options = parser.parse_args()
    program = find(options.name)
    if not program:
        return fail(f"{options.name} is not installed here: apt install {options.name}")
    # SystemExit goes through every `finally` and `with`, so all is cleaned up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    allow_many_files()
    try:
        with tempfile.TemporaryDirectory(prefix="irc-") as folder:
            return run(options.name, program, pathlib.Path(folder), options.nodelay)
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
