"A file server for tests: silent, also where a client hangs up before the end"

import sys
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class QuietFiles(SimpleHTTPRequestHandler):
    "Python's own file server without a line for every request; it knows no ranges"

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    "A server on a free port of this machine"

    def handle_error(self, request, client_address):
        "Report every error, but not that a client has hung up: its thread would print into a test"
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(folder, handler=QuietFiles):
    "Serve a folder from a thread; gives its address"
    server = Server(('127.0.0.1', 0), partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f'http://127.0.0.1:{server.server_port}'
    finally:
        server.shutdown()
        server.server_close()
