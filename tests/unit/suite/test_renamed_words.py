import pytest

from check_words import find_words, read_words

ENTRIES = read_words("# a comment\n\ndirty queue -> work queue\ncensus -> open targets\n")


@pytest.mark.parametrize(
    "line",
    ["class DirtyQueue:", "dirty_queue = 1", "# the dirty queue", "DIRTY_QUEUE", "takes a census", "open_census()"],
)
def test_renamed_word_is_found_in_any_spelling(line: str) -> None:
    assert [number for number, _ in find_words(f"\n{line}\n", ENTRIES)] == [2]


@pytest.mark.parametrize("line", ["the queue is dirty", "dirty work queue", "censuses", "WorkQueue"])
def test_other_words_pass(line: str) -> None:
    assert list(find_words(line, ENTRIES)) == []


@pytest.mark.parametrize("line", ["census", "census ->", "-> open targets"])
def test_malformed_word_list_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not 'old words -> new words'"):
        read_words(line)
