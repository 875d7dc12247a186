"""Let a model behind any OpenAI-compatible server do the reasoning; tools and search stay here.

OPENAI_API_KEY=... python examples/use_a_server.py http://127.0.0.1:8000/v1 MODEL QUESTION
"""

import sys

from ponder import Agent

url, model, question = sys.argv[1:4]
with Agent(f"openai:{model}@{url}", tools=["python"]) as agent:
    result = agent.run(question)
core = result.ledger.by_tool["core"]
print(result.answer)
print(f"{result.stop_reason}; {core.tokens_in} tokens in, {core.tokens_out} out", file=sys.stderr)
