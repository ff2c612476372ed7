"""Lesson 03, an awkward client: one message in two pieces, then two in one.

    python3 pieces.py           knocks at port 9999
    python3 pieces.py 5000      …or at the port that you name

A real network does this when it likes. This program does it every time.
"""
import socket
import sys
import time

HOST = "127.0.0.1"
PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 9999


def main():
    with socket.create_connection((HOST, PORT), timeout=5) as connection:
        connection.sendall(b"hel")
        time.sleep(2)               # the network is slow today
        connection.sendall(b"lo\n")
        time.sleep(0.5)
        # Two messages one right behind the other, while the server is busy.
        connection.sendall(b"one\n")
        connection.sendall(b"two\n")
        connection.shutdown(socket.SHUT_WR)
        while True:
            data = connection.recv(4096)
            if not data:
                break
            print(data.decode(), end="")


if __name__ == "__main__":
    main()
