"""The action language: the text that a small core writes for each step, and how it is read.

A step is free words, then one act:

    ```python            run a program (for a task with tests: the answer itself)
    BROWSE goto URL      also: BROWSE read [more], BROWSE click REF, BROWSE type REF TEXT, BROWSE back
    CALL NAME {json}     a further tool
    ANSWER: TEXT         the final answer

`parse` never raises on the core's words: what is no act is a `Reason`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from ponder.records import Action, Answer, Browse, CallTool, Reason, RunCode

_FENCE = re.compile(r"```[ \t]*(?:python3?|py)?[ \t]*\n(.*?)(?:\n```|```|\Z)", re.DOTALL | re.IGNORECASE)
_BROWSE = re.compile(r"^\s*BROWSE[ \t]+(goto|read|click|type|back)\b[ \t]*(.*)$", re.MULTILINE)
_CALL = re.compile(r"^\s*CALL[ \t]+([\w.-]+)[ \t]*(\{.*)$", re.MULTILINE | re.DOTALL)
_ANSWER = re.compile(r"^[ \t>*#]*ANSWER\s*:[ \t*]*(.*)\Z", re.MULTILINE | re.DOTALL | re.IGNORECASE)


def parse(text: str, *, code_is_answer: bool = False) -> Action:
    """Read one step of the core.

    Args:
        text: everything the core wrote in this step, the prefill included.
        code_is_answer: a program is the answer itself (the task has tests).

    Returns:
        The first act in the text, with the words before it as `thought`; a `Reason` when there is none.
    """
    found = [m for m in (_FENCE.search(text), _BROWSE.search(text), _CALL.search(text), _ANSWER.search(text)) if m]
    if not found:
        return Reason(text=text.strip())
    first = min(found, key=lambda m: m.start())
    thought = text[: first.start()].strip()
    if first.re is _FENCE:
        return _code(first.group(1), thought, code_is_answer)
    if first.re is _BROWSE:
        return _browse(first.group(1), first.group(2).strip(), thought)
    if first.re is _CALL:
        return _call(first.group(1), first.group(2), thought)
    answer = first.group(1).strip().strip("`").strip()
    return Answer(text=answer, thought=thought) if answer else Reason(text=text.strip())


def _code(code: str, thought: str, code_is_answer: bool) -> Action:
    code = code.strip("\n")
    if not code.strip():
        return Reason(text=thought or "(an empty program)")
    return Answer(text=code, thought=thought) if code_is_answer else RunCode(code=code, thought=thought)


def _browse(op: str, rest: str, thought: str) -> Action:
    match op:
        case "goto":
            return Browse(op="goto", url=rest, thought=thought)
        case "click":
            return Browse(op="click", ref=_ref(rest), thought=thought)
        case "type":
            ref, _, typed = rest.partition(" ")
            return Browse(op="type", ref=_ref(ref), text=typed, thought=thought)
        case "back":
            return Browse(op="back", thought=thought)
    return Browse(op="read", text=rest or None, thought=thought)


def _ref(text: str) -> str:
    return text.strip().removeprefix("[").removesuffix("]").removeprefix("ref=")


def _call(name: str, arguments: str, thought: str) -> Action:
    try:
        parsed, _ = json.JSONDecoder().raw_decode(arguments)
    except ValueError:
        return Reason(text=f"{thought}\n(unreadable call of {name}: the arguments are not JSON)".strip())
    return CallTool(tool=name, arguments=parsed, thought=thought)


def one_of(options: Sequence[str]) -> str:
    """Return a GBNF grammar that allows exactly one of the options."""
    return "root ::= " + " | ".join(json.dumps(option) for option in options)


def program_grammar(modules: Sequence[str]) -> str:
    """Return a GBNF grammar for the rest of a fenced program: it ends with its fence and imports only `modules`.

    Small cores import what they know from training (sympy, numpy) whatever the prompt says, and repeat it when told
    of the error; a grammar makes that impossible and costs no token.
    """
    names = " | ".join(json.dumps(name) for name in modules)
    return "\n".join(
        [
            'root ::= (line "\\n")+ "```" "\\n"?',
            "line ::= [ \\t]* (import | other)?",
            f'import ::= ("import " | "from ") ({names}) ([^a-zA-Z0-9_\\n] [^\\n]*)?',
            f"other ::= {_not_beginning(('import ', 'from ', '`'))}",
        ]
    )


def _not_beginning(prefixes: Sequence[str]) -> str:
    """Return GBNF for a non-empty run of characters without line break that begins with none of the prefixes."""
    seen = {prefix[:end] for prefix in prefixes for end in range(len(prefix))}
    ways = []
    for stem in sorted(seen):
        follow = "".join(sorted({prefix[len(stem)] for prefix in prefixes if prefix.startswith(stem)}))
        if stem:
            ways += [f'{json.dumps(stem)} [^{follow}\\n] [^\\n]*', json.dumps(stem)]
        else:
            ways.append(rf"[^{follow} \t\n] [^\n]*")
    return " | ".join(ways)


def page_grammar(refs: Sequence[str], *, more: bool) -> str:
    """Return a GBNF grammar for the step after a page was read: answer, or go where the page really leads.

    Args:
        refs: the element references that exist on the page; no other can be clicked.
        more: whether the page has a further part to read.
    """
    acts = ['"ANSWER: " line']
    if refs:
        acts.append('"BROWSE click " ref')
    if more:
        acts.append('"BROWSE read more"')
    rules = ["root ::= " + " | ".join(acts), r"line ::= [^\n]+"]
    if refs:
        rules.append("ref ::= " + " | ".join(json.dumps(ref) for ref in refs))
    return "\n".join(rules)
