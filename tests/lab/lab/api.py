"""A small JSON client for the API server."""

import http.client
import json
import ssl

from settings import API, run


class Failed(Exception):
    """A response with an error status."""

    def __init__(self, status, text):
        super().__init__(f"{status}: {text[:300]}")
        self.status = status


class Api:
    """One connection for one thread."""

    def __init__(self, user="admin"):
        self.context = ssl.create_default_context(cafile=run("pki", "ca.crt"))
        self.context.load_cert_chain(run("pki", user + ".crt"), run("pki", user + ".key"))
        self.connection = None

    def ask(self, method, path, body=None, form="application/json"):
        data = None if body is None else json.dumps(body)
        for attempt in (1, 2):
            if self.connection is None:
                host = API.removeprefix("https://")
                self.connection = http.client.HTTPSConnection(host, context=self.context, timeout=20)
            try:
                self.connection.request(method, path, data, {"Content-Type": form, "Accept": "application/json"})
                answer = self.connection.getresponse()
                text = answer.read().decode()
                break
            except (OSError, http.client.HTTPException):
                # The server closed an idle connection, or is not up yet.
                self.connection = None
                if attempt == 2:
                    raise
        if answer.status >= 300:
            raise Failed(answer.status, text)
        return json.loads(text) if text.startswith(("{", "[")) else text

    def get(self, path):
        return self.ask("GET", path)

    def post(self, path, body):
        return self.ask("POST", path, body)

    def delete(self, path, body=None):
        return self.ask("DELETE", path, body)

    def merge(self, path, body):
        return self.ask("PATCH", path, body, "application/merge-patch+json")

    def apply(self, path, body):
        """Server-side apply with force, because the lab owns its objects."""
        return self.ask("PATCH", path + "?fieldManager=lab&force=true", body, "application/apply-patch+yaml")
