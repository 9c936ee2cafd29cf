"""The command line, and delivery to a service."""
