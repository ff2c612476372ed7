#!/usr/bin/env python3
"""Somebody who sits between a client and a server, and reads: a program for TLS.

    python3 ChattyCat_Server.py
    python3 tests/eavesdropper.py 127.0.0.1:9999 --listen 9998
    python3 ChattyCat_Client.py --port 9998

It prints all that it can read. With `--tls` on both sides that is nothing any more.
Then it can try more: to change what travels (`--change`), or to play the server towards
the client and the client towards the server, with a certificate of its own
(`--certificate`; the “man in the middle”). Tests use it from Python:

    with Eavesdropper((server.host, server.port)) as middle:
        Person(middle, "Minou")
    assert b"Minou" in middle.heard["client"]

One thread carries one connection, both directions. While it sends to a side it reads
nothing: that is enough for a chat. tests/bad_network.py can carry any load.
"""
import argparse
import contextlib
import selectors
import socket
import ssl
import sys
import threading

SIDES = ("client", "server")
OTHER = {"client": "server", "server": "client"}


class Eavesdropper:
    """Listens on a port of this computer, and carries what comes there to `target`.

    `certificate`: a file with a certificate and its key. With it TLS ends here, on both
    sides, and `heard` is what stands inside; without it, `heard` is what travels. Set
    it later, and it counts from the next connection on.
    """

    def __init__(self, target, listen=0, certificate=None, show=None):
        self.target, self.certificate, self.show = target, certificate, show
        self.listener = socket.create_server(("127.0.0.1", listen))
        self.host, self.port = self.listener.getsockname()
        self.heard = {side: bytearray() for side in SIDES}      # by who said it
        self.changes = set()        # whose next piece gets a wrong byte
        self.lines = []             # the open connections, each a dict: side -> socket
        self.closed = False

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closed = True
        self.cut()

    def accept(self):
        with self.listener:
            self.listener.settimeout(0.1)   # close() would not wake accept()
            while not self.closed:
                with contextlib.suppress(socket.timeout):
                    client, _ = self.listener.accept()
                    threading.Thread(
                        target=self.carry, args=(client,), daemon=True).start()

    def carry(self, client):
        """Carry one connection to its end; then both sides see an end."""
        line = {"client": client}
        self.lines.append(line)
        if self.show:
            print("--- somebody comes", flush=True)
        # A side may have gone, or want nothing to do with our certificate.
        with contextlib.suppress(OSError):
            client.settimeout(10)
            if self.certificate:
                line["client"] = self.play_server(client)
            line["server"] = socket.create_connection(self.target, timeout=10)
            if self.certificate:
                line["server"] = anybody().wrap_socket(line["server"])
            while all(self.pass_on(side, line) for side in wait(line)):
                pass
        for sock in line.values():
            sock.close()
        self.lines.remove(line)
        if self.show:                   # perhaps without a word: then we were found out
            print("--- the connection has ended", flush=True)

    def play_server(self, client):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        return context.wrap_socket(client, server_side=True)

    def pass_on(self, side, line):
        """Carry what `side` has said; return False if that was all."""
        source, sink = line[side], line[OTHER[side]]
        try:
            source.settimeout(0)
            data = source.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True                 # half a record, or words of TLS itself
        self.heard[side] += data
        if self.show and data:
            self.show(side, data)
        if data and side in self.changes:
            self.changes.remove(side)
            # In the middle: that is encrypted, as the head of a record is not.
            place = len(data) // 2
            data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1:]
        sink.settimeout(10)
        sink.sendall(data)
        return bool(data)

    def change(self, side):
        """Change one byte of what `side` says next."""
        self.changes.add(side)

    def cut(self):
        """End all connections as a cable does that is cut: TLS says no goodbye."""
        for line in list(self.lines):
            for sock in list(line.values()):
                # The thread that carries them wakes, and closes. (SSLSocket has a
                # shutdown() too, which would first take its TLS away from it.)
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RD)


def anybody():
    """A context for TLS that trusts everybody, as an eavesdropper can."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def wait(line):
    """Wait until a side has said something; return which ones have."""
    # What OpenSSL has decrypted already, no selector sees.
    ready = [side for side in SIDES
             if isinstance(line[side], ssl.SSLSocket) and line[side].pending()]
    if ready:
        return ready
    with selectors.DefaultSelector() as selector:
        for side in SIDES:
            selector.register(line[side], selectors.EVENT_READ, side)
        return [key.data for key, _ in selector.select()]


def show(side, data):
    """Print what can be read; a point stands for a byte that is no character."""
    text = "".join(letter if letter.isprintable() or letter == "\n" else "."
                   for letter in data.decode("ascii", "replace").replace("\ufffd", "."))
    print(f"--- the {side} says ({len(data)} bytes):\n{text.rstrip()}", flush=True)


def address(text):
    """"127.0.0.1:9999" as a pair."""
    host, _, port = text.rpartition(":")
    return host, int(port)


def main():
    options = argparse.ArgumentParser(
        prog="eavesdropper.py", allow_abbrev=False,
        description="Sits between a client and a server, and shows what it can read.")
    options.add_argument("target", type=address, metavar="HOST:PORT",
                         help="where the server is")
    options.add_argument("--listen", type=int, default=9998, metavar="PORT",
                         help="where clients connect (default: 9998)")
    options.add_argument("--certificate", metavar="FILE", help="play the server "
                         "towards the client, with this certificate and its key "
                         "(server_certificate.pem of another server, made by "
                         "CHATTYCAT_HOME=other python3 ChattyCat_Server.py --tls)")
    options.add_argument("--change", choices=SIDES, help="change one byte of what this "
                         "side says next, each time that you press Enter")
    chosen = options.parse_args()
    with Eavesdropper(chosen.target, chosen.listen, chosen.certificate, show) as middle:
        print(f"Listening on {middle.host}:{middle.port}; Ctrl+C ends it.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            for _ in sys.stdin:
                if chosen.change:
                    middle.change(chosen.change)
                    print(f"--- the next words of the {chosen.change} will be wrong")
            threading.Event().wait()    # nobody can press Enter: then until Ctrl+C


if __name__ == "__main__":
    main()
