"""Fine-tunes Megrez-Omni on conversations in the authors' format.

    python -m training.finetune --config training/configs/finetune.yaml [--option value …]
    torchrun --nproc_per_node 2 -m training.finetune --config …

Trains the modules that `pipeline` serves; what it writes is served as it is.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback
from transformers.integrations import is_deepspeed_zero3_enabled

from pipeline.errors import MegrezError

from .arguments import DataArguments, FinetuneArguments, parse
from .average import ExponentialAverage
from .collator import collate
from .dataset import Mixture, RecordDataset, prepare
from .export import checkpoint_of, export, image_processor, save
from .features import Featuriser
from .model import OmniForTraining, attention_for
from .muon import MuonAdamW
from .records import SHOWN, DataError, read_records
from .resuming import refuse_other_run, resume_from
from .trainer import OmniTrainer
from .tuning import TuningArguments, apply_tuning, gather_encoders_whole

log = logging.getLogger(__name__)


def finetune(data: DataArguments, tuning: TuningArguments, training: FinetuneArguments) -> dict[str, float]:
    """Reads and checks the records, trains, writes `output_dir`. Returns the trainer's metrics.

    Raises DataError, CheckpointError, MegrezError before any training has begun.
    """
    featurise = Featuriser.from_pretrained(checkpoint_of(data), image_processor(data), data.max_pixels)
    if not data.train_files:
        raise MegrezError("train_files names no file to train on")
    refuse_other_run(data, tuning, training)
    weights = data.train_weights or [1.0] * len(data.train_files)
    files = _records([*data.train_files, *data.eval_files], data, training, featurise)
    train = Mixture(files[: len(data.train_files)], weights, training.seed)
    held: Dataset | None = None
    if data.eval_files:
        held = Mixture(files[len(data.train_files) :], [1.0] * len(data.eval_files), training.seed)
    elif data.eval_share:
        train, held = train.split(data.eval_share, training.seed)
    log.info("%d examples to train on, %d tokens", len(train), sum(train.lengths))
    return train_on(train, held, data, tuning, training)


def train_on(
    train: Dataset,
    held: Dataset | None,
    data: DataArguments,
    tuning: TuningArguments,
    training: FinetuneArguments,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, float]:
    """Trains on any datasets of Features, and saves."""
    model = OmniForTraining.from_pretrained(checkpoint_of(data), attention_for(training, data.attention))
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
        callbacks=[*callbacks, *([average] if average else [])],
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
    state = gathered(trainer, model)
    if training.should_save:
        save(model, state, data, tuning, Path(training.output_dir))
    return metrics


def gathered(trainer: OmniTrainer, model: OmniForTraining) -> Mapping[str, torch.Tensor]:
    """The model's tensors; with DeepSpeed each process holds pieces of them."""
    if trainer.is_deepspeed_enabled:
        whole: Mapping[str, torch.Tensor] = trainer.accelerator.get_state_dict(trainer.deepspeed)
        return whole
    return model.state_dict()


def _records(
    files: Sequence[str], data: DataArguments, training: FinetuneArguments, featurise: Featuriser
) -> list[RecordDataset]:
    """Raises DataError with what is wrong in any of them. Lists that are too long to be shown are written."""
    limit = featurise.config.decoder.max_position_embeddings
    length = min(data.model_max_length or limit, limit)
    found: list[RecordDataset] = []
    problems: list[str] = []
    for name in files:
        try:
            records = read_records(Path(name), Path(data.media_root) if data.media_root else None)
            found.append(prepare(records, featurise, model_max_length=length, speech_text=data.speech_text))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems, _listed("problems.txt", problems, training))
    left_out = [line for part in found for line in part.left_out]
    if file := _listed("left_out.txt", left_out, training):
        log.warning("all %d that are left out are named in %s", len(left_out), file)
    return found


def _listed(name: str, lines: Sequence[str], training: FinetuneArguments) -> Path | None:
    """Where they are written, one a line, if they are many."""
    file = Path(training.output_dir) / name
    if training.should_save:
        file.unlink(missing_ok=True)  # an earlier attempt's
    if len(lines) <= SHOWN:
        return None
    if training.should_save:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def main(argv: Sequence[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        data, tuning, training = parse(argv)
        if data.export:
            if training.should_save:
                export(data, tuning, training)
        else:
            finetune(data, tuning, training)
    except MegrezError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
