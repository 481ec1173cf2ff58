"""A running projector's HTTP endpoint, as a test asks it."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass

from workspace import Process

TOKEN = "a token for the tests"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self):
        return json.loads(self.text)


class Endpoint:
    def __init__(self, process: Process):
        self.address = process.wait_log(r'HTTP address=(\S+)')[1]
        self.host, port = self.address.rsplit(":", 1)
        self.port = int(port)
        self.url = f"http://{self.address}"

    def request(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data, names, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read().decode())
        except urllib.error.HTTPError as error:
            return Answer(error.code, dict(error.headers), error.read().decode())

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, **headers)

    def act(self, verb: str, target: object, token: str | None = TOKEN, **headers: str) -> Answer:
        given = {"Content_Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        return self.request("POST", f"/{verb}", target, **{**given, **headers})

    def metrics(self) -> dict[str, float]:
        """By name and labels, as written in the text."""
        lines = self.get("/metrics").text.splitlines()
        pairs = (re.fullmatch(r"(\S+(?:{.*})?) (\S+)", line) for line in lines if not line.startswith("#"))
        return {pair[1]: float(pair[2]) for pair in pairs}
