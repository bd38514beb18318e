"""A router of two steps in front of a prefill and a decode server, as small as it can be. It treats requests as llm-d's
routing sidecar does with vLLM's NixlConnector: the prefill server computes the prompt and one token, and the
`kv_transfer_params` of its answer go into the request to the decode server as they are.
"""

import http.server
import json
import threading
import urllib.error
import urllib.request
import uuid

SECONDS_TO_ANSWER = 600
ASKED = {"do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None,
         "remote_host": None, "remote_port": None}
LIMITS = {"/v1/completions": ["max_tokens", "max_completion_tokens"],
          "/v1/chat/completions": ["max_tokens", "max_completion_tokens"], "/v1/responses": ["max_output_tokens"]}


def post(url, body, request_id):
    """The status and the bytes of an answer."""
    headers = {"Content-Type": "application/json", "x-request-id": request_id}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers),
                                    timeout=SECONDS_TO_ANSWER) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except urllib.error.URLError as error:
        return 502, str(error).encode()


def prefill(url, path, body, request_id=None):
    """The first step: the status, the answer's bytes, and its params."""
    asked = {name: value for name, value in body.items() if name != "stream_options"}
    asked |= {"kv_transfer_params": ASKED, "stream": False} | dict.fromkeys(LIMITS[path], 1)
    status, answer = post(url + path, asked, request_id or str(uuid.uuid4()))
    return status, answer, json.loads(answer).get("kv_transfer_params") if status == 200 else None


class Sidecar:
    """The router, on a port of its own. `dies` makes it drop its clients between the steps."""

    def __init__(self, prefill_url, decode_url):
        self.prefill_url = prefill_url
        self.decode_url = decode_url
        self.dies = False
        sidecar = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = sidecar.route(self.path, body)
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(answer[0])
                self.send_header("Content-Length", str(len(answer[1])))
                self.end_headers()
                self.wfile.write(answer[1])

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def route(self, path, body):
        request_id = str(uuid.uuid4())
        status, answer, params = prefill(self.prefill_url, path, body, request_id)
        if self.dies:
            return None
        if 400 <= status < 500:
            return status, answer
        # Where the prefill server cannot answer, the decode server gets the request as the client wrote it.
        second = body if status != 200 else body | {"kv_transfer_params": params}
        return post(self.decode_url + path, second, request_id)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
