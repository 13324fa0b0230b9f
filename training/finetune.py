"""Fine-tunes Megrez-Omni on conversations in the authors' format.

    python -m training.finetune --config training/configs/finetune.yaml [--option value …]
    torchrun --nproc_per_node 2 -m training.finetune --config …

Trains the modules that `pipeline` serves; what it writes is served as it is.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from transformers.integrations import is_deepspeed_zero3_enabled

from pipeline.config import ImageProcessorConfig, ModelConfig
from pipeline.errors import MegrezError
from pipeline.model.weights import torch_dtype, unused_tensors

from .arguments import DataArguments, FinetuneArguments, parse
from .average import ExponentialAverage
from .collator import collate
from .dataset import Mixture, RecordDataset, prepare
from .features import Featuriser
from .model import OmniForTraining, attention_for
from .muon import MuonAdamW
from .records import DataError, read_records
from .resuming import refuse_other_run, resume_from
from .saving import save_released
from .trainer import OmniTrainer
from .tuning import TuningArguments, apply_tuning, gather_encoders_whole, released_tensors, save_adapters

log = logging.getLogger(__name__)


def finetune(data: DataArguments, tuning: TuningArguments, training: FinetuneArguments) -> dict[str, float]:
    """Reads and checks the records, trains, writes `output_dir`. Returns the trainer's metrics.

    Raises DataError, CheckpointError, MegrezError before any training has begun.
    """
    featurise = Featuriser.from_pretrained(_checkpoint(data), image_processor(data))
    if not data.train_files:
        raise MegrezError("train_files names no file to train on")
    refuse_other_run(data, tuning, training)
    weights = data.train_weights or [1.0] * len(data.train_files)
    files = _records([*data.train_files, *data.eval_files], data, featurise)
    train = Mixture(files[: len(data.train_files)], weights, training.seed)
    held: Dataset | None = None
    if data.eval_files:
        held = Mixture(files[len(data.train_files) :], [1.0] * len(data.eval_files), training.seed)
    elif data.eval_share:
        train, held = train.split(data.eval_share, training.seed)
    log.info("%d examples to train on, %d tokens", len(train), sum(train.lengths))
    return train_on(train, held, data, tuning, training)


def train_on(
    train: Dataset, held: Dataset | None, data: DataArguments, tuning: TuningArguments, training: FinetuneArguments
) -> dict[str, float]:
    """Trains on any datasets of Features, and saves."""
    model = OmniForTraining.from_pretrained(_checkpoint(data), attention_for(training, data.attention))
    apply_tuning(model, tuning)
    last = resume_from(data, tuning, training)
    if held is not None and training.eval_strategy == "no":
        with_checkpoints = training.save_strategy if training.save_strategy != "best" else "steps"
        training.eval_strategy = "steps" if training.eval_steps else with_checkpoints
        training.eval_steps = training.eval_steps or training.save_steps
    if is_deepspeed_zero3_enabled():
        gather_encoders_whole(model)
    average = ExponentialAverage(data.ema_decay) if data.ema_decay else None
    optimizer = None
    if data.muon:
        optimizer = MuonAdamW(
            model.named_parameters(),
            lr=training.learning_rate,
            encoder_share=data.encoder_share,
            weight_decay=training.weight_decay,
        )
    trainer = OmniTrainer(
        model,
        training,
        data_collator=collate,
        train_dataset=train,
        eval_dataset=held,
        callbacks=[average] if average else None,
        optimizers=(optimizer, None),
    )
    trainer.average = average
    if last:
        log.info("going on from %s", last)
    metrics = dict(trainer.train(resume_from_checkpoint=str(last) if last else None).metrics)
    if average:
        average.apply(model)
    if held is not None:
        metrics |= trainer.evaluate()
    save(trainer, model, data, tuning)
    return metrics


def save(trainer: OmniTrainer, model: OmniForTraining, data: DataArguments, tuning: TuningArguments) -> None:
    """The final checkpoint, by the first process, in the released layout; adapters beside it."""
    output = Path(trainer.args.output_dir)
    state = model.state_dict()
    if trainer.is_deepspeed_enabled:  # each process holds pieces of the tensors
        state = trainer.accelerator.get_state_dict(trainer.deepspeed)
    if trainer.args.should_save:
        chosen = image_processor(data)
        preprocessor = {"max_slice_nums": chosen.max_slice_nums, "scale_resolution": chosen.scale_resolution}
        dtype = torch_dtype(data.save_dtype)
        tensors = released_tensors(model, state)
        for stage in (model.llm, model.vision, model.audio):
            tensors |= unused_tensors(stage, _checkpoint(data))
        save_released(_checkpoint(data), output, tensors, dtype=dtype, preprocessor=preprocessor)
        if tuning.use_lora:
            save_adapters(model, state, tuning, _checkpoint(data), output / "adapter")
        log.info("wrote %s", output)


def image_processor(data: DataArguments) -> ImageProcessorConfig:
    """How pictures are cut: the checkpoint's way, with what the arguments change."""
    changes: dict[str, Any] = {
        name: value for name in ("max_slice_nums", "scale_resolution") if (value := getattr(data, name)) is not None
    }
    return replace(ModelConfig.from_pretrained(_checkpoint(data)).image_processor, **changes)


def _checkpoint(data: DataArguments) -> Path:
    if not data.checkpoint:
        raise MegrezError("checkpoint names no directory to start from")
    return Path(data.checkpoint)


def _records(files: Sequence[str], data: DataArguments, featurise: Featuriser) -> list[RecordDataset]:
    """Raises DataError with what is wrong in any of them."""
    limit = featurise.config.decoder.max_position_embeddings
    length = min(data.model_max_length or limit, limit)
    found: list[RecordDataset] = []
    problems: list[str] = []
    for file in files:
        try:
            records = read_records(Path(file), Path(data.media_root) if data.media_root else None)
            found.append(prepare(records, featurise, model_max_length=length, speech_text=data.speech_text))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        finetune(*parse(argv))
    except MegrezError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
