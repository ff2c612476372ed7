"""Lesson 01, the server: it says hello to everybody who connects, and hangs up.

    python3 server.py           listens on port 9999
    python3 server.py 5000      …or on the port that you name
"""
import socket
import sys

# 127.0.0.1 is this computer, seen from itself: nobody else can connect.
HOST = "127.0.0.1"
PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 9999


def main():
    # create_server() asks the kernel for a socket, ties it to an address (bind), and
    # lets it take connections (listen). `with` gives it back at the end.
    with socket.create_server((HOST, PORT)) as listener:
        print(f"listening on {HOST}:{PORT}")
        while True:
            # accept() waits for somebody, and returns a *second* socket: this end of
            # the connection with that one client. The listener stays as it was.
            connection, address = listener.accept()
            with connection:
                try:
                    serve(connection, address)
                except OSError as problem:
                    # Their computer may vanish at any moment. That must not end us:
                    # the next one is waiting already.
                    print("lost", address, problem)


def serve(connection, address):
    """Talk to one client, who came from `address`: (ip, port)."""
    print("from", address, "to", connection.getsockname())
    # A socket carries bytes; b"…" is how Python writes them.
    connection.sendall(b"Hello from the cat.\n")


if __name__ == "__main__":
    main()
