"""What tests with an ECS task share: its metadata endpoint."""
import contextlib
import http.server
import json
import threading

TASK = {"Cluster": "default", "Family": "books", "Revision": "7",
        "TaskARN": "arn:aws:ecs:eu-west-1:111122223333:task/default/0af3",
        "Limits": {"CPU": 0.5, "Memory": 512}}


@contextlib.contextmanager
def endpoint(status=200, body=json.dumps(TASK), fail_first=0, pause=0,
             location=None):
    """The environment of a task whose endpoint answers so, and the requests
    that it got."""
    asked = []
    release = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if pause:
                release.wait(pause)
            with contextlib.suppress(OSError):
                is_early = len(asked) <= fail_first
                self.send_response(500 if is_early else status)
                if location:
                    self.send_header("Location", location)
                data = body.encode()
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,),
                     daemon=True).start()
    uri = f"http://127.0.0.1:{server.server_address[1]}/v4/0af3-1"
    try:
        yield {"ECS_CONTAINER_METADATA_URI_V4": uri}, asked
    finally:
        release.set()
        server.shutdown()
        server.server_close()
