"""Gateway: the Upstash Redis REST protocol over any Redis or Valkey."""
