"""What the tests of booksctl share: a control socket that says what they
want."""
import json
import os
import socket
import threading


class Control:
    """Answers each request on folder/control with answers(target), a status
    and an object or a text."""

    def __init__(self, folder, answers):
        self.path = os.path.join(folder, "control")
        self.answers = answers
        self.seen = []
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(self.path)
        self.socket.listen(8)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                client = self.socket.accept()[0]
            except OSError:
                return
            with client:
                head = client.recv(65536).decode()
                target = head.split(" ")[1]
                self.seen.append(" ".join(head.split(" ")[:2]))
                status, body = self.answers(target)
                body = body if isinstance(body, str) else json.dumps(body)
                client.sendall(
                    f"HTTP/1.1 {status} -\r\nContent-Length: "
                    f"{len(body.encode())}\r\nConnection: close\r\n\r\n{body}"
                    .encode())

    def close(self):
        if self.socket.fileno() != -1:
            self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()
            os.unlink(self.path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
