"""Map API keys to tenant ids."""

from __future__ import annotations

import hashlib


def tenant_of(key: str) -> str:
    """Return the tenant id of an API key: a hash that does not reveal the key, or an empty string without a key."""
    return hashlib.sha256(key.encode()).hexdigest()[:16] if key else ""
