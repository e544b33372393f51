"""Endpoints: one module for each noun, with one row for each endpoint."""
