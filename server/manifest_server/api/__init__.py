"""The REST API: JSON over HTTP, the same functions of the store as the pages."""
