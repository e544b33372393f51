"""Adapter to language models: one exchange with an OpenAI-compatible endpoint for chat completions, over httpx.

`LlmHttp` implements `LanguageModel`. A reply counts only if the endpoint gave a reason for its end, and every frame of
it could be read; a stream that merely ends is a failed try. Every time and every size is bounded.
"""

from infra.llm_http.model import LlmHttp as LlmHttp
from infra.llm_http.settings import LlmSettings as LlmSettings
