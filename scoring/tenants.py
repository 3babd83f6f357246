"""Map API keys to tenant ids."""

from __future__ import annotations

import hashlib


def tenant_of(key: str) -> str:
    """Return the tenant id of an API key.

    A tenant is a client with its own API key. Tenants share an endpoint but not their cached embeddings.

    Args:
        key: the API key; empty if the endpoint has no keys.

    Returns:
        The first 16 hexadecimal digits of the key's SHA-256 hash, which do not reveal the key. Empty for an empty key.

    Example:
        >>> tenant_of("secret")
        '2bb80d537b1da3e3'
    """
    return hashlib.sha256(key.encode()).hexdigest()[:16] if key else ""
