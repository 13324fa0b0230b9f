"""What smaller weights change: logits and greedy tokens, against the same model with float32 weights."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.engine.engine import Engine, EngineConfig
from pipeline.engine.memory import CacheBudget
from pipeline.model.decoder_stage import load_decoder
from pipeline.types import Prompt, SamplingParams, WeightStorage

from .tables import Row

TABLE = "Smaller weights, against float32"
TOKENS = 100  # an answer

QUESTIONS = (
    "What is the capital of France?",
    "Explain why the sky is blue.",
    "Write a short poem about the sea.",
    "How do I boil an egg?",
    "What is photosynthesis?",
    "Tell me a story about a dragon who is afraid of fire.",
    "Give three tips for learning a language.",
    "What is the difference between a virus and a bacterium?",
    "Describe a sunset over the mountains.",
    "How does a bicycle stay upright?",
    "What were the causes of the First World War?",
    "Write a letter to a friend about a holiday in Spain.",
    "What is a prime number?",
    "How can I save money on groceries?",
    "Summarise the plot of Romeo and Juliet.",
    "What makes bread rise?",
    "Name five animals that live in the desert, and how they survive.",
    "What should I wear for a job interview?",
    "How do vaccines work?",
    "Write a recipe for vegetable soup.",
)


def compare(weights: Path, tokenizer: Path, storages: tuple[WeightStorage, ...], threads: int) -> list[Row]:
    """Answers of 2,000 tokens together by the float32 model, each of them followed by the others token by token."""
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(tokenizer)
    prompts = [
        words.apply_chat_template([{"role": "user", "content": q}], add_generation_prompt=True, return_dict=False)
        for q in QUESTIONS
    ]
    exact = _engine(weights, "float32", threads)
    answers = _answers(exact, prompts)
    wanted = [_logits(exact, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    rows = []
    for storage in storages:
        engine = _engine(weights, storage, threads)
        errors, same = [], 0
        for prompt, answer, right in zip(prompts, answers, wanted, strict=True):
            found = _logits(engine, prompt, answer)
            errors.append((found - right).norm(dim=-1) / right.norm(dim=-1))
            same += int((found.argmax(-1) == torch.tensor(answer)).sum())
        every = torch.cat(errors)
        name = f"megrez {storage}"
        rows += [
            Row(TABLE, f"relative error of logits, mean of {len(every):,} tokens", name, float(every.mean()), ""),
            Row(TABLE, "the largest", name, float(every.max()), ""),
            Row(TABLE, "greedy tokens that are the same", name, 100 * same / len(every), "%"),
        ]
    return rows


def _engine(weights: Path, storage: WeightStorage, threads: int) -> Engine:
    model = load_decoder(weights, device="cpu", dtype="float32", attention="auto", weights=storage)[1]
    model.set_threads(threads)
    return Engine(model, EngineConfig(kv_cache=CacheBudget(tokens=8192)), [])


def _answers(engine: Engine, prompts: list[list[int]]) -> list[list[int]]:
    rules = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
    answers: dict[int, list[int]] = {engine.add(Prompt(prompt), [], rules): [] for prompt in prompts}
    while not engine.idle:
        for output in engine.step():
            assert output.token_id is not None, output.error
            answers[output.sequence_id].append(output.token_id)
    return list(answers.values())


def _logits(engine: Engine, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """What is said of each token of the answer: float32 [TOKENS, vocab]."""
    return engine.logits(Prompt(prompt + answer), [])[len(prompt) - 1 : -1].clone()
