"""Deployment: `deploy.vm` on one machine; `deploy.toml` and the scripts for a cluster; `edge/` for AWS Lambda."""
