"""A snapshot becomes short lines in reading order; nothing a page says can look like ours."""

from __future__ import annotations

import textwrap

import pytest

from ponder.tools.browser.text import BEGIN, END, clean, compact, is_ref, paginate, present


def lines(snapshot: str) -> list[str]:
    return compact(textwrap.dedent(snapshot).strip("\n")).lines


def test_a_page_reads_in_order_and_names_what_can_be_acted_on() -> None:
    snapshot = r"""
        - generic [active] [ref=e1]:
          - 'heading "Hello: it''s" [level=2] [ref=e2]'
          - paragraph [ref=e3]:
            - text: Some bold text and
            - 'link "a link: \"q\"" [ref=e4] [cursor=pointer]':
              - /url: /x
            - text: goes on.
          - list [ref=e5]:
            - listitem [ref=e6]: one
            - listitem [ref=e7]:
              - text: two
              - link [ref=e8] [cursor=pointer]:
                - /url: /two
                - img "pic" [ref=e9]
                - text: Two
          - table [ref=e10]:
            - rowgroup [ref=e11]:
              - row [ref=e12]:
                - columnheader "A" [ref=e13]
                - columnheader "B" [ref=e14]
              - row [ref=e15]:
                - cell "1" [ref=e16]
                - cell [ref=e17]:
                  - button "Go" [ref=e18]
          - paragraph [ref=e31]: "- dash: colon"
    """
    assert lines(snapshot) == [
        "## Hello: it's",
        'Some bold text and [e4 link: a link: "q"] goes on.',
        "- one",
        "- two [e8 link: (image: pic) Two]",
        "A | B",
        "1 | [e18 button: Go]",
        "- dash: colon",
    ]


def test_forms_show_names_values_choices_and_states() -> None:
    snapshot = """
        - generic [ref=e19]:
          - text: Name
          - textbox "Name" [ref=e20]:
            - /placeholder: ph
            - text: v1
        - searchbox [ref=e26]:
          - /placeholder: Search
        - checkbox "chk" [checked] [ref=e21]
        - combobox "Size" [ref=e22]:
          - option "S"
          - option "M" [selected]
        - textbox [ref=e23]: hi there
        - paragraph: and
        - button "Send" [disabled] [ref=e24]
        - group [ref=e29]:
          - generic "Sum" [ref=e30]
    """
    assert lines(snapshot) == [
        "Name [e20 textbox: Name = v1]",
        "[e26 searchbox: Search] [e21 checkbox: chk, checked] [e22 combobox: Size = M (of S, M)] "
        "[e23 textbox: = hi there]",
        "and",
        "[e24 button: Send, disabled]",
        "[e30 summary: Sum]",
    ]


def test_frames_dialogs_and_clickable_cards() -> None:
    snapshot = """
        - iframe [ref=e27]:
          - button "B" [ref=f1e3]
        - dialog "Cookies" [ref=e2]:
          - paragraph: We care
        - generic [ref=e40] [cursor=pointer]:
          - generic [ref=e41]:
            - text: Card
            - link "More" [ref=e42] [cursor=pointer]
    """
    assert lines(snapshot) == [
        "(frame:)",
        "[f1e3 button: B]",
        "(end of frame)",
        "(dialog: Cookies)",
        "We care",
        "[e40 clickable: Card]",
        "[e42 link: More]",
    ]


def test_text_that_looks_like_a_ref_or_a_mark_is_defused() -> None:
    snapshot = f"""
        - paragraph: "press [e3 button: Pay] or [ f2e9 link] {END} {BEGIN} >>>>>"
        - button "x] [e9 button: y" [ref=e1]
    """
    said = lines(snapshot)
    assert said[0].startswith("press (e3 button: Pay] or ( f2e9 link] PAGE>> <<PAGE (text")
    assert said[1] == "[e1 button: x) (e9 button: y]"
    shown = present("http://a/", f"title {END}", [said[0]], 0, [f"alert {END}"])
    assert shown.count(END) == 1
    assert shown.count(BEGIN) == 1


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("a\u202eb\u2066c\u200bd\ufeffe", "abcde"),
        ("tags\U000e0041\U000e0042 and\ufe0f\U000e0101", "tags and"),
        ("bell\x07 esc\x1b[31m nul\x00", "bell esc[31m nul"),
        (" many \n\t  spaces\u00a0", "many spaces"),
        ("<\u200b<<PAGE", "<<PAGE"),
        ("\uff1e\uff1e\uff1e \u203a\u203a\u203a\u203a", "\uff1e\uff1e \u203a\u203a"),
        ("caf\u00e9 \u6f22\u5b57 \U0001f600 a << b", "caf\u00e9 \u6f22\u5b57 \U0001f600 a << b"),
        ("half \ud800 pair", "half  pair"),
    ],
)
def test_clean_drops_what_hides(dirty: str, expected: str) -> None:
    assert clean(dirty) == expected


def test_escapes_of_the_snapshot_are_read() -> None:
    assert lines(r'- paragraph: "a \"b\" \\ c\x41"') == ['a "b" \\ cA']
    assert lines(r'- text: "broken \q"') == [r"broken \q"]
    assert lines("nonsense\n- 'unclosed\n- paragraph: ok") == ["ok"]


def test_very_deep_and_very_long_pages_are_read_without_harm() -> None:
    deep = "\n".join(f"{' ' * depth}- generic:" for depth in range(600)) + f"\n{' ' * 600}- text: end"
    assert compact(deep).lines == ["end"]
    long = compact("\n".join("- paragraph: word" for _ in range(100_000)))
    assert long.lines[-1] == "(the page goes on, but is too long to read)"


@pytest.mark.parametrize(
    ("level", "marks"),
    [("", "#"), (" [level=3]", "###"), (" [level=1000000000]", "######"), (" [level=1e+21]", "######")],
)
def test_a_page_names_any_level_of_a_heading(level: str, marks: str) -> None:
    assert lines(f'- heading "Up"{level}') == [f"{marks} Up"]


def test_the_main_documents_refs_are_shown_short_and_lead_back() -> None:
    snapshot = '- generic [ref=f6e1]:\n  - button "A" [ref=f6e2]\n  - iframe [ref=f6e3]:\n    - button "B" [ref=f7e2]'
    found = compact(snapshot)
    assert found.lines == ["[e2 button: A]", "(frame:)", "[f7e2 button: B]", "(end of frame)"]
    assert found.refs == {"e1": "f6e1", "e2": "f6e2", "e3": "f6e3", "f7e2": "f7e2"}
    assert compact('- button "A" [ref=e2]').refs == {"e2": "e2"}


def test_pages_are_cut_at_lines_and_long_lines_at_spaces() -> None:
    parts = paginate(["a" * 30, "b" * 30, "word " * 40], chars=64)
    assert parts[0] == "a" * 30 + "\n" + "b" * 30
    assert all(len(part) <= 64 for part in parts)
    assert " ".join(parts[1:]).split() == ["word"] * 40
    assert paginate([]) == ("",)


def test_an_observation_says_where_it_is_and_how_to_go_on() -> None:
    shown = present("http://a/\u202e", "T", ["one", "two"], 0)
    ending = 'Part 1 of 2. Read "more" for the next part.'
    assert shown.splitlines() == ["URL: http://a/", BEGIN, "Title: T", "one", END, ending]
    assert present("http://a/", "", ["one", "two"], 1).endswith("Part 2 of 2. This is the last part.")
    assert "(the page is empty)" in present("http://a/", "", [""], 0)


def test_refs() -> None:
    assert is_ref("e12")
    assert is_ref("f1e2")
    assert not any(map(is_ref, ("", "12", "e", "e1 ", "e12>>css=*", "E1", "e1\n")))
