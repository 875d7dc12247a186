"""Record a search, and replay it without the model: the same answer, tree and stop reason.

python examples/record_and_replay.py QUESTION FILE.jsonl
"""

import sys

from ponder import Agent

question, file = sys.argv[1:3]
with Agent(tools=["python"], record=file) as agent:
    first = agent.run(question)
with Agent(f"cassette:{file}", tools=["python"]) as agent:
    again = agent.run(question)
print(first.answer)
same = (first.answer, first.stop_reason, first.nodes) == (again.answer, again.stop_reason, again.nodes)
print(f"{'replayed' if same else 'differs'}: {first.elapsed_s:.1f} s, then {again.elapsed_s:.1f} s", file=sys.stderr)
