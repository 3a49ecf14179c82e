"""Removes passwords and tokens in URLs from messages and files."""

import re

_HIDDEN = "***"
_SECRETS = (
    (re.compile(r"(\w://)[^/\s'\"]*@"), rf"\1{_HIDDEN}@"),  # user:password@
    (re.compile(r"(\w://[^\s?'\"]*)\?[^\s'\")\]},;]+"), rf"\1?{_HIDDEN}"),  # ?token=..., ?X-Amz-Signature=...
    (re.compile(r"(?i)\b(bearer|basic) [\w.~+/=-]{8,}"), rf"\1 {_HIDDEN}"),
    (re.compile(r"(?i)((?:token|signature|password|passwd|secret|credential)[\w-]*=)[^\s&'\"]+"), rf"\1{_HIDDEN}"),
)


def without_credentials(text: str) -> str:
    """A text with ``***`` for the user and the query of every URL, and for tokens."""
    for pattern, hidden in _SECRETS:
        text = pattern.sub(hidden, text)
    return text
