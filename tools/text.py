"""The built-in model's tokenizer and T5 text encoder, with a small vocabulary that can spell any word."""

from __future__ import annotations

import io
import json
import string
import tarfile
from pathlib import Path

from tokenizers import SentencePieceUnigramTokenizer
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from emoji_data import BACKGROUNDS, STYLES, caption, fetch, names

VOCABULARY = 2000
WIDTH = 128


def train_tokenizer(folder: Path) -> T5Tokenizer:
    """A T5 tokenizer with one piece per word of a caption; the other pieces come from all emoji names and tags."""
    with tarfile.open(fetch(folder)["names"]) as tar:
        data = tar.extractfile("package/en/data.json")
        assert data is not None
        entries = json.load(io.BytesIO(data.read()))
    others = [" ".join([entry["label"], *entry.get("tags", [])]) for entry in entries]
    spelling = list(string.ascii_letters + string.digits + string.punctuation) * 3
    trainer = SentencePieceUnigramTokenizer()
    trainer.train_from_iterator(
        others + spelling,
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        initial_alphabet=list(string.ascii_letters + string.digits + string.punctuation),
        show_progress=False,
    )
    pieces = json.loads(trainer.to_str())["model"]["vocab"]
    captions = (caption(n, s, b) for n in names() for s in STYLES for b in BACKGROUNDS)
    words = sorted({f"\u2581{word}" for text in captions for word in text.split()})
    # A score of -1 beats any way to spell the word from smaller pieces, whose scores are log-probabilities.
    others_first = [(piece, score) for piece, score in pieces if piece not in set(words)]
    return T5Tokenizer(vocab=others_first + [(word, -1.0) for word in words], extra_ids=0)


def new_text_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    """A two-layer T5 encoder of width 128 with random weights."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return T5EncoderModel(config)
