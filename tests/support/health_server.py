#!/usr/bin/env python3
"""What probes ask: a web server with HTTP, TLS and a Prometheus query API.

usage: health_server.py READY CERTIFICATE KEY

Listens on two free ports of 127.0.0.1 and writes "HTTP-PORT TLS-PORT" to the file READY. Ends by a
signal. /code/N answers with that status, /slow after ten seconds, /close not at all, /told with
the method and the header X-Told; /api/v1/query by the query: a number is itself, `nan`, `none`.
"""

import http.server
import json
import os
import ssl
import sys
import threading
import time
import urllib.parse


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        url = urllib.parse.urlparse(self.path)
        status, body = 200, "hello world\n"
        if url.path.startswith("/code/"):
            status = int(url.path.rpartition("/")[2])
        elif url.path == "/slow":
            time.sleep(10)
        elif url.path == "/close":
            self.close_connection = True
            return
        elif url.path == "/told":
            body = f"{self.command} {self.headers.get('X-Told')}"
        elif url.path == "/api/v1/query":
            body = self.answer(urllib.parse.parse_qs(url.query)["query"][0])
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_GET

    @staticmethod
    def answer(query):
        values = [] if query == "none" else ["NaN" if query == "nan" else query]
        result = [{"metric": {}, "value": [1, value]} for value in values]
        data = {"resultType": "vector", "result": result}
        return json.dumps({"status": "success", "data": data})


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a probe gave up


def main():
    ready, certificate, key = sys.argv[1:4]
    plain = Server(("127.0.0.1", 0), Handler)
    secure = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    with open(ready + ".new", "w", encoding="utf-8") as file:
        file.write(f"{plain.server_port} {secure.server_port}\n")
    os.rename(ready + ".new", ready)
    threading.Thread(target=plain.serve_forever, daemon=True).start()
    secure.serve_forever()


main()
