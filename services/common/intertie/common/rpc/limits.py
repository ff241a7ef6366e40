"""How large messages between services and their callers may be."""

MAX_MESSAGE_BYTES = 1024 * 1024
MAX_METADATA_BYTES = 64 * 1024
