"""The action language: the text that a small core writes for each step, and how it is read.

A step is free words, then one act:

    ```python            run a program (for a task with tests: the answer itself)
    BROWSE goto URL      also: BROWSE read [more], BROWSE click REF, BROWSE type REF TEXT, BROWSE back
    CALL NAME {json}     a further tool
    ANSWER: TEXT         the final answer

`ponder.gbnf` writes the grammars that let a core write nothing else. For backends that cannot enforce one, and for
cores that were trained on other marks, `parse` is tolerant; it never raises on the core's words: what is no act is a
`Reason`.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence

from ponder.answers import is_text, normalise, number
from ponder.arguments import read_arguments
from ponder.records import Action, Answer, Browse, CallTool, Reason, Record, RunCode

_COLON = r"[:\uff1a\u2236\ufe55]"
_LEAD = r"^[ \t>*_#-]*"
_FENCE = re.compile(r"^[ \t>]*(?:```|~~~)[ \t]*([\w+.-]*)(?:[ \t]*\n|[ \t]+)", re.MULTILINE)
_FENCE_END = re.compile(r"\n[ \t]*(?:```|~~~)|(?:`{3,}|~{3,})+[ \t]*$", re.MULTILINE)
_LANGUAGES = ("", "python", "python3", "py", "python-3")
_BROWSE = re.compile(
    _LEAD + r"BROWSE[*_]*[ \t]*" + _COLON + r"?[ \t]*[*_`]*(goto|go to|open|read|click|type|back)\b[ \t]*(.*)$",
    re.MULTILINE | re.IGNORECASE,
)
_CALL = re.compile(_LEAD + r"CALL[*_]*[ \t]*" + _COLON + r"?[ \t]*`?([\w.-]+)[ \t]*\(?[ \t]*(\{.*)", re.M | re.DOTALL)
_ANSWER = re.compile(
    _LEAD + r"(?:the[ \t]+)?(?:final[ \t]+)?answer(?:[ \t]+is)?[*_]*[ \t]*" + _COLON + r"[ \t]*(.*)\Z",
    re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
_ANSWER_LINE = re.compile(_LEAD + r"(?:final[ \t]+)?answer[*_]*[ \t]*" + _COLON + r"[*_]*[ \t]*([^\n]+)$", re.M | re.I)
_SAID_AGAIN = re.compile(r"^[*_ \t]*(?:final[ \t]+)?answer[*_]*[ \t]*:", re.MULTILINE | re.IGNORECASE)
"""Small cores write "Yes" and then "ANSWER: Yes": the answer ends there."""
_IN_BRACES = r"[^{}]*"
for _ in range(3):  # a root in a fraction in a box
    _IN_BRACES = rf"(?:[^{{}}]|\{{{_IN_BRACES}\}})*"
_BOXED = re.compile(rf"\\boxed\{{({_IN_BRACES})\}}")
_SAID = re.compile(r"\bthe (?:final |correct )?answer is[ \t]*" + _COLON + r"?[ \t]*([^\n]+)", re.IGNORECASE)
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}")
_WORDS = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\{([^{}]*)\}")
_SIGNS = {r"\times": "\u00d7", r"\cdot": "\u00b7", r"\div": "\u00f7"}
_HASHES = re.compile(r"^####[ \t]*([^\n]+)$", re.MULTILINE)
_JSON = re.compile(r"(?:```|~~~)[ \t]*json[ \t]*\n(.*?)\n?[ \t]*(?:```|~~~)", re.DOTALL | re.IGNORECASE)
_REF = re.compile(r"\[?(?:ref=)?((?:f\d+)?e\d+)\b\]?")
_DUNDER = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_TAG = re.compile(
    r"/?(?:a|abbr|article|aside|audio|b|body|br|button|canvas|code|dd|div|dl|dt|em|footer|form|h[1-6]|head|header|hr|html|i|"
    r"iframe|img|input|label|li|link|main|meta|nav|ol|option|p|pre|script|section|select|small|span|strong|style|sub|sup|"
    r"svg|table|tbody|td|textarea|th|thead|title|tr|u|ul|video)(?:\s[^<>]*)?/?",
    re.IGNORECASE,
)
_PAIRS = (("**", "**"), ("__", "__"), ("`", "`"), ('"', '"'), ("'", "'"), ("\u201c", "\u201d"), ("<", ">"))


class Acts(Record):
    """What one step may do. A grammar is made of it, and what the core wrote is checked against it."""

    answer: bool = True
    program: bool = False
    modules: tuple[str, ...] = ()
    """What a program may import; empty: anything."""
    only_definitions: bool = False
    """The program is the answer: it defines names and runs nothing."""
    click: tuple[str, ...] = ()
    """Elements of the page that can be clicked."""
    type: tuple[str, ...] = ()
    """Elements of the page that take text."""
    goto: tuple[str, ...] = ()
    """Addresses that can be opened."""
    more: bool = False
    """The page has a further part to read."""
    back: bool = False
    calls: tuple[str, ...] = ()
    """Names of further tools."""
    one_line: bool = True
    """The answer is one line."""


def parse(text: str, *, code_is_answer: bool = False) -> Action:
    """Read one step of the core.

    Args:
        text: everything the core wrote in this step, the prefill included.
        code_is_answer: a program is the answer itself (the task has tests).

    Returns:
        The first act in the text that can be read, with the words before it as `thought`; where there is none, what
        the words call their answer ("The answer is 4", a box); else a `Reason`.
    """
    text = text.encode(errors="replace").decode().replace("\r\n", "\n").replace("\r", "\n")
    for mark, read in sorted(_marks(text, code_is_answer), key=lambda found: found[0].start()):
        action = read(mark, text[: mark.start()].strip())
        if action is not None:
            return action
    passing = None if code_is_answer else _said_in_passing(text)  # a number in a box is no program
    return passing or Reason(text=text.strip())


def conclusion(text: str, *, program: bool) -> Action:
    """Read a chain of thought: what it calls its answer at the end counts, and not what looks like one on the way.

    Args:
        program: a program in it is run, whatever the core says that it prints.
    """
    if program and isinstance(action := parse(text), RunCode):
        return action
    marks = list(_ANSWER_LINE.finditer(text))
    if marks and (said := bare(marks[-1].group(1))):
        return Answer(text=_without_latex(said), thought=text[: marks[-1].start()].strip())
    return _said_in_passing(text) or parse(text)


_Reader = Callable[[re.Match[str], str], Action | None]


def _marks(text: str, code_is_answer: bool) -> Iterator[tuple[re.Match[str], _Reader]]:
    def program(mark: re.Match[str], thought: str) -> Action | None:
        if mark.group(1).lower() not in _LANGUAGES:
            return None
        return _program(text[mark.end() :], thought, code_is_answer)

    def answer(mark: re.Match[str], thought: str) -> Action | None:
        body = mark.group(1)
        if code_is_answer:
            inside = _FENCE.search(body)
            return _program(body[inside.end() :] if inside else body, thought, code_is_answer)
        said = bare(_said_once(body)) or bare(body)
        return Answer(text=said, thought=thought) if said else None

    fences = list(_FENCE.finditer(text))[:1] + [m for m in _FENCE.finditer(text) if m.group(1)][:4]
    yield from ((mark, program) for mark in fences)
    yield from ((mark, _browse) for mark in _BROWSE.finditer(text))
    yield from ((mark, _call) for mark in list(_CALL.finditer(text))[:4])
    yield from ((mark, answer) for mark in list(_ANSWER.finditer(text))[:1])


def _said_once(body: str) -> str:
    """Return an answer without its repetition; riddles with lines "Answer: a piano" are all of them the answer."""
    first, *again = _SAID_AGAIN.split(body)
    is_line = "\n" not in first.strip() and not is_text(first)
    once_more = len(again) == 1 and (is_line or "\n" not in again[0].strip()) and not first.rstrip().endswith("?")
    return first if once_more or all(normalise(one) == normalise(first) for one in again) else body


def _program(rest: str, thought: str, code_is_answer: bool) -> Action | None:
    """Return the program at the beginning of `rest`: up to its fence, or all of it where none closes it."""
    end = _FENCE_END.search("\n" + rest)
    code = rest if end is None else ("\n" + rest)[: end.start()][1:]
    code = textwrap.dedent(code).strip("\n")
    if not code.strip():
        return None
    return Answer(text=code, thought=thought) if code_is_answer else RunCode(code=code, thought=thought)


def _browse(mark: re.Match[str], thought: str) -> Action | None:
    op, rest = mark.group(1).lower(), bare(mark.group(2).strip())
    ref = _REF.match(rest)
    match op:
        case "goto" | "go to" | "open":
            url = rest.split()[0] if rest else ""
            return Browse(op="goto", url=url, thought=thought) if re.search(r"\w[.:/]\S*\w", url) else None
        case "click":
            return Browse(op="click", ref=ref.group(1), thought=thought) if ref else None
        case "type":
            if ref is None:
                return None
            typed = bare(re.sub(r"^[^\]\n]*\]", "", rest[ref.end() :]) if _named(rest) else rest[ref.end() :])
            return Browse(op="type", ref=ref.group(1), text=typed, thought=thought)
        case "back":
            return Browse(op="back", thought=thought)
    return Browse(op="read", text="more" if "more" in rest.lower() else rest or None, thought=thought)


def _named(rest: str) -> bool:
    """Say whether an element is named as the page shows it, with role and text: `[e3 textbox: Name] ...`."""
    return re.match(r"\[(?:f\d+)?e\d+ [^\]\n]*\]", rest) is not None


def _call(mark: re.Match[str], thought: str) -> Action | None:
    arguments = read_arguments(mark.group(2))
    return None if arguments is None else CallTool(tool=mark.group(1), arguments=arguments, thought=thought)


def _said_in_passing(text: str) -> Action | None:
    """Return an answer in the way of other trainings: the last box, `#### 4`, "the answer is 4", a JSON block alone."""
    for pattern in (_BOXED, _HASHES, _SAID):
        found = list(pattern.finditer(text))
        if found and (said := bare(found[-1].group(1).strip().removesuffix("."))):
            return Answer(text=_without_latex(said), thought=text[: found[-1].start()].strip())
    block = _JSON.fullmatch(text.strip())
    return Answer(text=block[1].strip()) if block and _is_json(block[1]) else None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _without_latex(said: str) -> str:
    """Return a formula's value as it is written in a line; a unit behind a number is no part of it."""
    if "\\" not in said:
        return said
    said = _FRACTION.sub(r"\1/\2", said)
    for written, sign in _SIGNS.items():
        said = said.replace(written, sign)
    said = re.sub(r"\\([$%#&_])", r"\1", re.sub(r"\\[,;:! ]", " ", said))
    value = _WORDS.sub("", said).strip(" .$()[]\\")
    return value if number(value) is not None else _WORDS.sub(r"\1", said).strip()


def bare(text: str) -> str:
    """Return a text without white space around it, and without the quotes or the emphasis that it stands in."""
    before = None
    while text != before:
        before, text = text, re.sub(r"\*\*\.$", "**", text.strip())
        if text.startswith("** ") or (text.endswith("**") and "**" not in text[:-2]):
            text = text.removeprefix("** ").removesuffix("**").strip()  # the other half stood around the mark
        for first, last in _PAIRS:
            inner = text[len(first) : len(text) - len(last)]
            whole = len(text) >= len(first) + len(last) and text.startswith(first) and text.endswith(last)
            if whole and first not in inner and last not in inner and not _is_a_name(first, inner):
                text = inner.strip()
    return text


def _is_a_name(mark: str, inner: str) -> bool:
    """Return whether what stands in such marks is a name with them: Python's `__init__`, HTML's `<br>`."""
    return bool((mark == "__" and _DUNDER.fullmatch(inner)) or (mark == "<" and _TAG.fullmatch(inner)))


def render(action: Action, *, code_is_answer: bool = False) -> str:
    """Return the text of an action, without the thought before it: `parse` reads it as this action."""
    match action:
        case RunCode(code=code):
            return f"```python\n{code}\n```"
        case Answer(text=text):
            return f"```python\n{text}\n```" if code_is_answer else f"ANSWER: {text}"
        case Browse(op=op, url=url, ref=ref, text=text):
            return " ".join(["BROWSE", op, *(part for part in (url, ref, text) if part)])
        case CallTool(tool=tool, arguments=arguments):
            return f"CALL {tool} {json.dumps(arguments)}"
    return action.text


def fault(action: Action, acts: Acts) -> str | None:
    """Return what is wrong with an action, in words for the core; None when it is one that the step may take."""
    match action:
        case Reason():
            return "There is nothing in it that can be done or taken as the answer."
        case RunCode(code=code):
            return _program_fault(code) if acts.program else "No program can be run here."
        case Answer(text=text):
            if acts.only_definitions:
                return _program_fault(text)
            return None if acts.answer else "This is not the time to answer."
        case CallTool(tool=tool):
            return None if tool in acts.calls else _no_such("tool", tool, acts.calls)
        case Browse(op="click", ref=ref):
            return None if ref in acts.click else _no_such("element to click", ref, acts.click)
        case Browse(op="type", ref=ref):
            return None if ref in acts.type else _no_such("element to type into", ref, acts.type)
        case Browse(op="goto", url=url):
            return None if url in acts.goto else _no_such("address to open", url, acts.goto)
        case Browse(op="back"):
            return None if acts.back else "There is no page to go back to."
        case Browse():
            return None if acts.more else "There is no more of the page to read."
    return None


def _no_such(what: str, name: str | None, known: Sequence[str]) -> str:
    listed = f"There is: {', '.join(known[:12])}." if known else "There is none at all."
    return f"There is no {what} {name}. {listed}"


def _program_fault(code: str) -> str | None:
    why = compile_error(code)
    return None if why is None else f"The program is no valid Python: {why}."


def compile_error(code: str) -> str | None:
    """Return why a text is no Python program, with the line; None when it is one. Nothing of it is run."""
    try:
        compile(code, "<program>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"{error.msg} (line {error.lineno})"
    except (ValueError, MemoryError, RecursionError, OverflowError) as error:
        return str(error) or type(error).__name__
    return None
