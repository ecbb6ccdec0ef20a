"""A curl for each operation of the schema, which tests run as it stands."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

JSON_TYPE = "application/json"


def write_curl(method: str, path: str, operation: Mapping[str, Any]) -> str:
    """For a shell where SHOP is the site's address, KEY an API key, and ORDER, PAYMENT ... the id of one each."""
    noun = path.removeprefix("/api/v1/").partition("/")[0].removesuffix("s").replace("-", "_").upper()
    address = re.sub(r"\{(\w+)\}", lambda name: "$" + name[1].upper(), path.replace("{id}", f"${noun}"))
    needed = {
        parameter["name"]: parameter["schema"]["example"]
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "query" and parameter.get("required")
    }
    address += f"?{urlencode(needed)}" if needed else ""
    parts = [f'curl "$SHOP{address}"', '-H "Authorization: Bearer $KEY"']
    media = operation.get("requestBody", {}).get("content", {}).get(JSON_TYPE)
    if method not in ("GET", "POST") or (method == "POST" and media is None):
        parts.insert(1, f"-X {method}")
    if any(parameter["name"] == "Idempotency-Key" for parameter in operation.get("parameters", [])):
        parts.append(f"-H 'Idempotency-Key: {operation['operationId'].replace('_', '-')}-first-try'")
    if media is not None:
        [example] = list(media.get("examples", {"": {"value": {}}}).values())[:1]
        parts += [f"-H 'Content-Type: {JSON_TYPE}'", f"-d {quote_body(example['value'])}"]
    return " \\\n  ".join(parts)


def quote_body(value: Any) -> str:
    """The JSON in single quotes; a name of the shell in it, such as $ORDER, stays one."""
    quoted = shlex.quote(json.dumps(value))
    return re.sub(r"\$[A-Z]+", lambda name: f"'{name[0]}'", quoted)


def add_sample(operation: dict[str, Any], source: str) -> None:
    """Where Swagger UI shows it, and where other readers of schemas look."""
    operation["description"] = f"{operation.get('description', '')}\n\n```sh\n{source}\n```".strip()
    operation["x-codeSamples"] = [{"lang": "Shell", "label": "curl", "source": source}]
