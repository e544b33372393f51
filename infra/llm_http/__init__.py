"""Adapter to language models: one exchange with an OpenAI-compatible endpoint for chat completions, over httpx.

`LlmHttp` implements `LanguageModel`. A reply counts only if the endpoint gave a reason for its end, and every frame of
it could be read; a stream that merely ends is a failed try. Every time and every size is bounded.

Import `LlmHttp` from `model`, the settings from `settings`: a worker reads the settings at its start, and importing
httpx for that would cost 0.15 s of processor time.
"""
