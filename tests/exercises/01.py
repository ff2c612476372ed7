"""Exercise 01 solved in another way: one class, no `with`, what the socket knows."""
import socket
import sys


class Server:
    def __init__(self, port):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("", port))
        self.socket.listen(5)

    def serve_forever(self):
        while True:
            guest, _ = self.socket.accept()
            try:
                guest.send(b"Hello from the cat.\r\n")
                guest.send(b"You are %s:%d\r\n" % (
                    guest.getpeername()[0].encode(), guest.getpeername()[1]))
            except OSError:
                pass
            guest.close()


Server(int(sys.argv[1])).serve_forever()
