"""HTTP for the tool `http_fetch`."""
