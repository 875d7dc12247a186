"""Answer a question from a page, and print what the browser cost.

python examples/ask_a_page.py URL QUESTION
"""

import sys

from ponder import Agent, Task
from ponder.policies.hosts import HostRules

url, question = sys.argv[1:3]
with Agent(hosts=HostRules(allow_private=True)) as agent:
    result = agent.run(Task(prompt=question, urls=(url,)))
print(result.answer)
browser = result.ledger.by_tool["browser"]
print(f"{result.stop_reason}; browser: {browser.cpu_s:.2f} CPU-s, {browser.bytes} bytes", file=sys.stderr)
