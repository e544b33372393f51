"""Backups of a Valkey of one's own in the object store: `python -m infra.valkey_backup`."""
