"""Entry point on AWS Lambda whose answers are streamed."""
