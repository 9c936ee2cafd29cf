"""Database schemas, version by version."""
