"""Deployment of workers and API, and the way back: drives kubectl, helm and osls (docs/deploy.md)."""
