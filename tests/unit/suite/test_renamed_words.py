import pytest

from check_words import find_names, find_words, read_words

ENTRIES = read_words("# a comment\n\ndirty queue -> work queue\ncensus -> open targets\n`hear` -> handle_event\n")


@pytest.mark.parametrize(
    "line",
    ["class DirtyQueue:", "dirty_queue = 1", "# the dirty queue", "DIRTY_QUEUE", "takes a census", "open_census()"],
)
def test_renamed_word_is_found_in_any_spelling(line: str) -> None:
    assert [place[0] for place in find_words(f"\n{line}\n", ENTRIES.words)] == [2]


@pytest.mark.parametrize("line", ["the queue is dirty", "dirty work queue", "censuses", "WorkQueue"])
def test_other_words_pass(line: str) -> None:
    assert list(find_words(line, ENTRIES.words)) == []


@pytest.mark.parametrize("code", ["def hear(): ...", "one.hear()", "f(hear=1)"])
def test_renamed_name_is_found_in_code(code: str) -> None:
    assert list(find_names(f"\n{code}\n", ENTRIES.names)) == [(2, "hear", "handle_event")]


@pytest.mark.parametrize("code", ["# what they hear", "'hear'", "heard = 1", "def hear_all(): ..."])
def test_name_passes_in_sentences_and_longer_names(code: str) -> None:
    assert list(find_names(code, ENTRIES.names)) == []


@pytest.mark.parametrize("line", ["census", "census ->", "-> open targets"])
def test_malformed_word_list_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not 'old words -> new words'"):
        read_words(line)
