"""Prompts with pictures and answers in words, by random models shaped like the mini and the recorded one."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from diffusers.hooks import apply_group_offloading
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from og2.conditioning.processor import make_image_processor
from og2.conditioning.templates import SYSTEM, Turn, render_chat, render_prompt
from og2.conditioning.vlm import (
    Answer,
    Processor,
    Sampling,
    answer,
    encode_chat,
    encode_prompt,
    load_processor,
    tokenize,
)
from og2.errors import Cancelled, CheckpointError, ImageError, RequestError

RECORDED = Path(__file__).parents[1] / "golden" / "pipeline" / "model" / "processor"
RNG = np.random.default_rng(5)
PICTURES = [Image.fromarray(RNG.integers(0, 256, (64, w, 3), dtype=np.uint8)) for w in (64, 96)]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


class Script(torch.nn.Module):
    """In place of the output head: says the given tokens, one a step."""

    def __init__(self, tokens: list[int], vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.vocabulary = list(tokens), vocabulary

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*hidden.shape[:-1], self.vocabulary)
        logits[..., self.tokens.pop(0)] = 50.0
        return logits


def told(mllm, processor: Processor, words: str, **options) -> Answer:
    """The answer of a model that says `words` and then, if nothing stops it, the letter a."""
    said = tokenize(processor, words)
    mllm.lm_head = Script([*said, *tokenize(processor, "a" * 60)], 512)
    return answer(mllm, processor, "hello", **{"max_new_tokens": 40} | options)


@given(TEXTS)
def test_the_prompt_is_rendered_as_the_checkpoints_chat_template_renders_it(processor, prompt):
    turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]
    template = processor.tokenizer.apply_chat_template
    assert render_prompt(prompt) == template(turns, tokenize=False, add_generation_prompt=False)
    assert render_chat(prompt, 0) == template(turns, tokenize=False, add_generation_prompt=True)


def test_pictures_come_before_the_words_numbered_from_one():
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    rendered = render_chat("what is it?", 2)
    assert f"<|im_start|>user\n<img1>: {picture}<img2>: {picture}what is it?<|im_end|>\n" in rendered
    assert rendered.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert render_chat("x", 2, assistant=False) + "<|im_start|>assistant\n" == render_chat("x", 2)


def test_pictures_are_numbered_through_the_whole_conversation():
    rendered = render_chat(
        "and this?", 1, history=[Turn("what is it?", "a cat", num_images=1), Turn("sure?", "yes")]
    )
    assert (
        rendered.index("<img1>")
        < rendered.index("a cat")
        < rendered.index("sure?")
        < rendered.index("<img2>")
    )
    assert rendered.count("<|im_start|>assistant\n") == 3


def test_chat_features_are_the_hidden_states_without_the_picture_patches(mini_mllm, mini_processor):
    features = encode_chat(mini_mllm, mini_processor, "describe it", PICTURES)
    without_pads = tokenize(mini_processor, render_chat("describe it", 2))
    assert features.shape == (len(without_pads) - 2, 32)
    other = encode_chat(mini_mllm, mini_processor, "describe it", PICTURES[:1] * 2)
    first = without_pads.index(mini_processor.token_id("<|vision_end|>"))
    torch.testing.assert_close(features[: first - 1], other[: first - 1], rtol=0, atol=1e-6)
    assert (features[-3:] - other[-3:]).abs().max() > 1e-3


def test_chat_without_pictures_is_the_plain_text_with_an_open_answer(mini_mllm, mini_processor):
    ids = torch.tensor([tokenize(mini_processor, render_chat("hi", 0))])
    with torch.no_grad():
        expected = mini_mllm.model(ids).last_hidden_state[0]
    torch.testing.assert_close(encode_chat(mini_mllm, mini_processor, "hi"), expected, rtol=0, atol=1e-6)


def test_pictures_work_with_a_processor_folder_without_picture_settings(mllm, processor):
    assert encode_chat(mllm, processor, "what is it", PICTURES).shape[1] == 64
    assert answer(mllm, processor, "what is it", PICTURES, max_new_tokens=3).num_tokens <= 3


def test_a_conversation_leaves_no_trace_on_later_features(mini_mllm, mini_processor):
    before = encode_prompt(mini_mllm, mini_processor, "a red ball")
    chat = encode_chat(mini_mllm, mini_processor, "a red ball", PICTURES)
    settings = copy.deepcopy(mini_mllm.generation_config.to_dict())
    answer(mini_mllm, mini_processor, "what is it", PICTURES, max_new_tokens=5, sampling=Sampling(1.0))
    assert torch.equal(encode_prompt(mini_mllm, mini_processor, "a red ball"), before)
    assert torch.equal(encode_chat(mini_mllm, mini_processor, "a red ball", PICTURES), chat)
    assert mini_mllm.generation_config.to_dict() == settings


def test_greedy_answers_are_the_likeliest_tokens_of_the_whole_text_each_step(mini_mllm, mini_processor):
    said = answer(mini_mllm, mini_processor, "what is it", PICTURES, max_new_tokens=6)
    ids = tokenize(mini_processor, render_chat("what is it", 2))
    seen = mini_processor.image_processor(images=PICTURES, return_tensors="pt")
    pad, counts = mini_processor.token_id("<|image_pad|>"), iter((64 * 64 // 256, 64 * 96 // 256))
    ids = [i for token in ids for i in ([pad] * next(counts) if token == pad else [token])]
    start = len(ids)
    for _ in range(said.num_tokens):
        tokens = torch.tensor([ids])
        with torch.no_grad():
            logits = mini_mllm(
                tokens, **seen, mm_token_type_ids=(tokens == pad).int(), use_cache=False
            ).logits
        ids.append(int(logits[0, -1].argmax()))
    assert said.text == mini_processor.tokenizer.decode(ids[start:]).strip()


def test_words_before_the_picture_token_are_kept_and_the_picture_is_still_wanted(mini_mllm, mini_processor):
    said = told(mini_mllm, mini_processor, "Here it is: <|img|>")
    assert (said.text, said.wants_image, said.is_complete) == ("Here it is:", True, True)


def test_an_answer_that_starts_with_the_picture_token_has_no_words(mini_mllm, mini_processor):
    said = told(mini_mllm, mini_processor, "<|img|>")
    assert (said.text, said.wants_image) == ("", True)


@pytest.mark.parametrize("stop", ["<|im_end|>", "<|endoftext|>"])
def test_an_answer_in_words_ends_without_a_picture(mini_mllm, mini_processor, stop):
    said = told(mini_mllm, mini_processor, "a cat" + stop)
    assert (said.text, said.wants_image, said.is_complete) == ("a cat", False, True)


def test_an_answer_cut_by_its_length_says_so(mini_mllm, mini_processor):
    said = told(mini_mllm, mini_processor, "a cat on a mat<|im_end|>", max_new_tokens=2)
    assert not said.is_complete
    assert not said.wants_image


def test_a_vocabulary_without_the_picture_token_never_wants_a_picture(mllm, processor):
    model = copy.deepcopy(mllm)
    assert processor.token_id("<|img|>") is None
    said = told(model, processor, "<|img|> there<|im_end|>")
    assert (said.text, said.wants_image) == ("<|img|> there", False)


def test_streamed_pieces_join_to_the_answer_and_never_split_a_character(mini_mllm, mini_processor):
    pieces: list[str] = []
    said = told(mini_mllm, mini_processor, "caf\u00e9 \U0001f600 na\u00efve<|img|>", on_token=pieces.append)
    assert "".join(pieces).strip() == said.text == "caf\u00e9 \U0001f600 na\u00efve"
    assert len(pieces) > 2
    assert not any("\ufffd" in piece for piece in pieces)


def test_raising_from_the_callback_stops_the_answer(mini_mllm, mini_processor):
    pieces: list[str] = []

    def stop_after_two(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 2:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        told(mini_mllm, mini_processor, "a b c d e f", on_token=stop_after_two)
    assert len(pieces) == 2


def test_sampled_answers_depend_on_their_seed_alone(mini_mllm, mini_processor):
    state = torch.get_rng_state()
    draw = lambda seed: answer(  # noqa: E731
        mini_mllm, mini_processor, "hi", PICTURES, max_new_tokens=12, sampling=Sampling(1.0, 0.95, seed)
    )
    answers = [draw(seed).text for seed in (1, 1, 2, 3)]
    assert answers[0] == answers[1]
    assert len(set(answers)) == 3
    assert torch.equal(torch.get_rng_state(), state)


def test_sampling_follows_the_models_probabilities(mini_mllm, mini_processor):
    class Coin(torch.nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            logits = torch.full((*hidden.shape[:-1], 512), -100.0)
            logits[..., [10, 11]] = torch.tensor([0.75, 0.25]).log()
            return logits

    mini_mllm.lm_head = Coin()
    said = answer(mini_mllm, mini_processor, "hi", max_new_tokens=300, sampling=Sampling(1.0, 1.0, 0))
    first = said.text.count(mini_processor.tokenizer.decode([10]))
    assert abs(first / 300 - 0.75) < 0.08


@pytest.mark.parametrize(
    "sampling", [Sampling(-1.0), Sampling(1.0, 0.0), Sampling(1.0, 1.5), Sampling(float("nan"))]
)
def test_sampling_settings_out_of_range_are_refused(mini_mllm, mini_processor, sampling):
    with pytest.raises(RequestError, match="temperature"):
        answer(mini_mllm, mini_processor, "hi", sampling=sampling)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"max_new_tokens": 2.5}, "max_new_tokens=2.5"),
        ({"sampling": Sampling(1.0, 1.0, -1)}, "seed=-1"),
        ({"sampling": Sampling(1.0, 1.0, 2**64)}, "seed=18446744073709551616"),
    ],
)
def test_an_answer_that_cannot_be_is_refused(mini_mllm, mini_processor, options, part):
    with pytest.raises(RequestError, match=part):
        answer(mini_mllm, mini_processor, "hi", **options)


def test_a_prompt_that_is_too_long_is_refused_with_its_length_and_the_limit(mllm, processor):
    length = len(tokenize(processor, render_prompt("a cat")))
    assert encode_prompt(mllm, processor, "a cat", max_sequence_length=length).shape[0] == length
    with pytest.raises(RequestError, match=rf"{length} tokens.*limit is {length - 1}"):
        encode_prompt(mllm, processor, "a cat", max_sequence_length=length - 1)


def test_a_conversation_longer_than_the_model_allows_is_refused(mini_mllm, mini_processor):
    with pytest.raises(RequestError, match="limit is 512"):
        answer(mini_mllm, mini_processor, "word " * 600)
    with pytest.raises(RequestError, match="limit is 512"):
        encode_prompt(mini_mllm, mini_processor, "word " * 600, max_sequence_length=4096)


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|video_pad|>"])
def test_picture_control_tokens_in_a_chat_text_are_refused(mini_mllm, mini_processor, token):
    with pytest.raises(RequestError, match="control token"):
        encode_chat(mini_mllm, mini_processor, f"hi {token}", PICTURES)


def test_text_that_is_no_valid_text_is_refused(processor):
    with pytest.raises(RequestError, match="not valid text"):
        tokenize(processor, "a \ud800 b")


def test_a_picture_too_elongated_for_the_language_model_is_refused(mini_mllm, mini_processor):
    with pytest.raises(ImageError, match="language model"):
        encode_chat(mini_mllm, mini_processor, "hi", [Image.new("RGB", (16, 4000))])


def test_history_with_more_pictures_than_given_is_refused(mini_mllm, mini_processor):
    with pytest.raises(RequestError, match="more pictures"):
        answer(mini_mllm, mini_processor, "hi", PICTURES, history=[Turn("a", "b", num_images=3)])


def test_a_processor_of_another_model_is_refused(mini_mllm, mini_processor, processor):
    with pytest.raises(CheckpointError, match="patches of 14 px"):
        encode_chat(mini_mllm, Processor(mini_processor.tokenizer, processor.image_processor), "hi", PICTURES)
    mini_mllm.config.image_token_id = 3
    with pytest.raises(CheckpointError, match="expects 3"):
        encode_chat(mini_mllm, mini_processor, "hi", PICTURES)


def test_published_picture_settings_are_read_and_a_written_processor_reads_back(
    tmp_path, processor, mini_processor
):
    assert processor.image_processor.patch_size == 14
    assert mini_processor.image_processor.size["longest_edge"] == 65536
    mini_processor.save_pretrained(tmp_path)
    again = load_processor(tmp_path)
    assert again.image_processor.to_dict() == mini_processor.image_processor.to_dict()
    assert tokenize(again, render_chat("Hi <|img|>!", 1)) == tokenize(
        mini_processor, render_chat("Hi <|img|>!", 1)
    )


@pytest.mark.parametrize(
    "limits",
    [
        {"min_pixels": 1024, "max_pixels": 8192},
        {"min_pixels": 1024, "max_pixels": 8192, "size": {"min_pixels": 1, "max_pixels": 2}},
        {"size": {"shortest_edge": 1024, "longest_edge": 8192}, "min_pixels": None},
        {"size": {"min_pixels": 1024, "max_pixels": 8192}},
    ],
)
def test_pixel_limits_are_understood_in_every_form_they_were_written_in(limits):
    made = make_image_processor(
        {"patch_size": 8, "image_processor_type": "Qwen2_5_VLImageProcessor", **limits}
    )
    assert (made.size["shortest_edge"], made.size["longest_edge"]) == (1024, 8192)
    grid = made(images=[Image.new("RGB", (200, 200))], return_tensors="pt")["image_grid_thw"][0]
    assert grid.tolist() == [1, 10, 10]


def test_a_tokenizer_in_its_older_two_files_is_read_too(tmp_path, processor):
    for name in (
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
        "added_tokens.json",
        "special_tokens_map.json",
    ):
        (tmp_path / name).write_bytes((RECORDED / name).read_bytes())
    text = render_chat("a caf\u00e9, 3 dogs", 1)
    assert tokenize(load_processor(tmp_path), text) == tokenize(processor, text)


def test_a_processor_folder_without_tokenizer_files_says_what_it_holds(tmp_path):
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json.*holds: merges\.txt"):
        load_processor(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_processor(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        load_processor(tmp_path / "gone")


@pytest.mark.parametrize("offload", ["none", "sequential", "group"])
def test_answers_and_features_are_the_same_under_offload(mini_mllm, mini_processor, offload):
    expected = encode_chat(mini_mllm, mini_processor, "describe it", PICTURES)
    words = answer(mini_mllm, mini_processor, "describe it", PICTURES, max_new_tokens=5)
    if offload == "sequential":
        cpu_offload(mini_mllm, torch.device("cpu"), offload_buffers=True)
        assert mini_mllm.device.type == "meta"
    elif offload == "group":
        apply_group_offloading(mini_mllm, torch.device("cpu"), offload_type="leaf_level")
    torch.testing.assert_close(encode_chat(mini_mllm, mini_processor, "describe it", PICTURES), expected)
    assert answer(mini_mllm, mini_processor, "describe it", PICTURES, max_new_tokens=5) == words
