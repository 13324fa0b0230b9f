from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import CheckpointError
from pipeline.processing.tokenizer import Tokenizer
from training.tokenizer import SPECIAL_TOKENS

TEXTS = [
    "Hello, world!",
    "你好，世界。今天天气怎么样？",
    "😀👨‍👩‍👧‍👦🇨🇳 emoji",
    "  two  spaces\n\ttabs\r\n",
    "日本語と한국어 и русский",
    "",
    "\u0000\u0007 control",
    "<|turn_end|><|image_start|><|unk|>",
]


def streamed(tokenizer: Tokenizer, ids: list[int]) -> str:
    stream = tokenizer.stream()
    return "".join(stream.push(i) for i in ids) + stream.flush()


class TestEncode:
    @pytest.mark.parametrize("text", TEXTS)
    def test_round_trip(self, tokenizer: Tokenizer, text: str) -> None:
        assert tokenizer.decode(tokenizer.encode(text, allow_special=False)) == text

    @pytest.mark.parametrize("token", SPECIAL_TOKENS.values())
    def test_a_users_special_token_is_ordinary_text(self, tokenizer: Tokenizer, token: str) -> None:
        special = tokenizer.encode(token, allow_special=True)
        assert len(special) == 1
        for text in (token, f"a{token}b", f"{token}\n{token}"):
            ids = tokenizer.encode(text, allow_special=False)
            assert not set(ids) & set(range(len(SPECIAL_TOKENS)))
            assert tokenizer.decode(ids) == text

    @given(st.text(st.sampled_from("ab<|>_ 你" + "unkturn_endimage"), max_size=40))
    def test_no_text_makes_a_special_token(self, tokenizer: Tokenizer, text: str) -> None:
        ids = tokenizer.encode(text, allow_special=False)
        assert not set(ids) & set(range(len(SPECIAL_TOKENS)))
        assert tokenizer.decode(ids) == text

    def test_roles(self, tokenizer: Tokenizer) -> None:
        for role in ("image_start", "image_end", "slice_start", "slice_end", "audio_start", "audio_end", "unk", "eos"):
            assert [tokenizer.special(role)] == tokenizer.encode(SPECIAL_TOKENS[role], allow_special=True)


class TestStream:
    @pytest.mark.parametrize("text", TEXTS)
    def test_equals_the_whole_decode(self, tokenizer: Tokenizer, text: str) -> None:
        assert streamed(tokenizer, tokenizer.encode(text, allow_special=False)) == text

    @given(st.text(max_size=40))
    def test_any_text(self, tokenizer: Tokenizer, text: str) -> None:
        ids = tokenizer.encode(text, allow_special=False)
        assert streamed(tokenizer, ids) == tokenizer.decode(ids) == text

    @given(st.lists(st.integers(0, 2047), max_size=40))
    def test_any_tokens(self, tokenizer: Tokenizer, ids: list[int]) -> None:
        # Broken characters included: what is shown in pieces is what is shown at once.
        assert streamed(tokenizer, ids) == tokenizer.decode(ids)

    @pytest.mark.parametrize("text", ["😀", "龘", "é"])
    def test_never_half_a_character(self, tokenizer: Tokenizer, text: str) -> None:
        ids = tokenizer.encode(text, allow_special=False)
        stream = tokenizer.stream()
        pieces = [stream.push(i) for i in ids]
        assert "".join(pieces) == text
        assert not any("\ufffd" in piece for piece in pieces)

    def test_a_character_cut_off_at_the_end_is_shown_as_broken(self, tokenizer: Tokenizer) -> None:
        ids = tokenizer.encode("a😀", allow_special=False)
        assert len(ids) > 2, "the emoji must be several tokens"
        stream = tokenizer.stream()
        assert "".join(stream.push(i) for i in ids[:-1]) == "a"
        assert set(stream.flush()) == {"\ufffd"}
        assert stream.flush() == ""

    def test_streams_are_independent(self, tokenizer: Tokenizer) -> None:
        one, two = tokenizer.stream(), tokenizer.stream()
        ids = tokenizer.encode("😀", allow_special=False)
        shown = ["", ""]
        for i in ids:
            shown[0] += one.push(i)
            shown[1] += two.push(i)
        assert shown == ["😀", "😀"]


class TestTokenText:
    @given(st.text(max_size=30))
    def test_bytes_joined_are_the_text(self, tokenizer: Tokenizer, text: str) -> None:
        ids = tokenizer.encode(text, allow_special=False)
        assert b"".join(tokenizer.token_text(i)[1] for i in ids) == text.encode()

    def test_every_token(self, tokenizer: Tokenizer) -> None:
        for i in range(tokenizer.vocab_size):
            text, raw = tokenizer.token_text(i)
            assert raw
            assert text == raw.decode(errors="replace")

    def test_a_special_token_is_its_string(self, tokenizer: Tokenizer) -> None:
        assert tokenizer.token_text(tokenizer.special("turn_end")) == ("<|turn_end|>", b"<|turn_end|>")

    def test_an_id_beyond_the_vocabulary_is_empty(self, tokenizer: Tokenizer) -> None:
        assert tokenizer.token_text(10**6) == ("", b"")


class TestLoading:
    def test_no_tokenizer(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
            Tokenizer(tmp_path)

    def test_a_broken_file(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_text("{")
        with pytest.raises(CheckpointError, match="can't be loaded"):
            Tokenizer(tmp_path)

    def test_a_missing_special_token_is_named(self, mini_path: Path, tmp_path: Path) -> None:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            text = (mini_path / file).read_text("utf-8").replace("<|slice_end|>", "<|other|>")
            (tmp_path / file).write_text(text, "utf-8")
        config = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
        del config["slice_end_token"]
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
        with pytest.raises(CheckpointError, match="slice_end"):
            Tokenizer(tmp_path)

    def test_the_checkpoints_own_names_win(self, mini_path: Path, tmp_path: Path) -> None:
        """The strings are attributes of the released tokenizer, whatever they are."""
        for file in ("tokenizer.json", "tokenizer_config.json"):
            text = (mini_path / file).read_text("utf-8").replace("<|image_start|>", "<picture>")
            (tmp_path / file).write_text(text, "utf-8")
        tokenizer = Tokenizer(tmp_path)
        assert tokenizer.token_text(tokenizer.special("image_start"))[0] == "<picture>"

    def test_without_a_template_the_released_layout_is_used(self, mini_path: Path, tmp_path: Path) -> None:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(mini_path / file, tmp_path / file)
        rendered = Tokenizer(tmp_path).render_chat([{"role": "user", "content": "hi"}])
        assert rendered.endswith("<|role_start|>user<|role_end|>hi<|turn_end|><|role_start|>assistant<|role_end|>")


def test_threads_share_a_tokenizer(tokenizer: Tokenizer) -> None:
    """Whether names are tokens is each call's own choice, also while another thread chooses otherwise."""
    text = "你好 <|turn_end|> hello <|image_start|>" * 20
    wanted = {special: tokenizer.encode(text, allow_special=special) for special in (True, False)}
    assert wanted[True] != wanted[False]

    def work(special: bool) -> int:
        return sum(tokenizer.encode(text, allow_special=special) != wanted[special] for _ in range(300))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, [True, False, True, False])) == [0, 0, 0, 0]
