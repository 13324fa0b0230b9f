"""Weights from where a run has come to, as a checkpoint that is served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipeline.omni import Omni
from training.finetune import main

from .runs import run, weights, words, write_varied
from .tiny import user

STEPS = {"max_steps": 2, "save_steps": 1, "learning_rate": 1e-2}


@pytest.mark.parametrize(
    "options",
    [{}, {"use_lora": True, "lora_r": 4}, {"ema_decay": 0.9}, {"max_slice_nums": 2}],
    ids=["whole", "adapters", "an average", "pictures cut otherwise"],
)
def test_a_checkpoint_on_the_way_is_exported(options: dict[str, float], tiny_path: Path, tmp_path: Path) -> None:
    """That of the last step is what the run wrote; that of the first isn't."""
    varied, output = write_varied(tmp_path, 6), tmp_path / "output"
    run(tiny_path, varied, output, **STEPS, **options)
    written = weights(output)
    line = {"checkpoint": tiny_path, "train_files": tmp_path / "gone.jsonl", "output_dir": output, **STEPS, **options}
    for step in (1, 2):
        main(words(export=f"checkpoint-{step}", **line))
    exported = weights(output / "exported-2")
    assert exported.keys() == written.keys()
    assert all(torch.equal(exported[name], tensor) for name, tensor in written.items())
    assert any(not torch.equal(weights(output / "exported-1")[name], tensor) for name, tensor in written.items())
    for file in output.glob("*.json*"):
        assert (output / "exported-2" / file.name).read_bytes() == file.read_bytes()
    assert (output / "exported-2" / "adapter").is_dir() == bool(options.get("use_lora"))
    assert all(torch.equal(weights(output)[name], tensor) for name, tensor in written.items())
    assert isinstance(Omni.from_pretrained(output / "exported-1").chat([user("hi")], max_tokens=2), str)


def test_a_run_goes_on_beside_what_was_exported(tiny_path: Path, tmp_path: Path) -> None:
    varied, output = write_varied(tmp_path, 6), tmp_path / "output"
    run(tiny_path, varied, output, **STEPS, save_total_limit=1)
    main(words(checkpoint=tiny_path, output_dir=output, export="checkpoint-2"))
    before = weights(output / "exported-2")
    assert len(run(tiny_path, varied, output, **STEPS | {"max_steps": 4}, save_total_limit=1)) == 4
    assert sorted(path.name for path in output.iterdir() if path.is_dir()) == ["checkpoint-4", "exported-2"]
    assert all(torch.equal(weights(output / "exported-2")[name], tensor) for name, tensor in before.items())


def test_what_cannot_be_exported_is_told(tiny_path: Path, tmp_path: Path) -> None:
    varied, output = write_varied(tmp_path, 6), tmp_path / "output"
    run(tiny_path, varied, output, **STEPS)
    (output / "checkpoint-3").mkdir()  # still being written
    (output / "checkpoint-3" / "model.safetensors").write_bytes(b"half of it")
    there = "checkpoint-1, checkpoint-2"
    for wrong, said in (
        ({"export": "checkpoint-9"}, "checkpoint-9 is no checkpoint that can be exported; there are: " + there),
        ({"export": "checkpoint-3"}, "checkpoint-3 is no checkpoint that can be exported; there are: " + there),
        ({"export": "../output"}, "is no checkpoint that can be exported"),
        ({"export": "checkpoint-1", "output_dir": tmp_path / "none"}, "there are: none"),
        ({"export": "checkpoint-1", "use_lora": True, "max_slice_nums": 2}, "(max_slice_nums, use_lora): give those"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(words(**{"checkpoint": tiny_path, "output_dir": output} | wrong))
        assert said in str(caught.value)
    (output / "settings.yaml").unlink()  # the weights tell, too
    with pytest.raises(SystemExit, match="checkpoint-1 was trained from another checkpoint, or with other use of LoRA"):
        main(words(checkpoint=tiny_path, output_dir=output, export="checkpoint-1", use_lora=True))
    assert not list(output.glob("exported-*"))


def test_code_of_the_checkpoint_comes_along(tiny_path: Path, tmp_path: Path) -> None:
    """Which other programs load it by; it isn't run here."""
    varied, output = write_varied(tmp_path, 6), tmp_path / "output"
    source = Path(str(tmp_path / "source"))
    source.mkdir()
    for file in tiny_path.iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    (source / "modeling_megrezo.py").write_text("raise RuntimeError")
    config = json.loads((source / "config.json").read_text()) | {"auto_map": {"AutoModel": "modeling_megrezo.MegrezO"}}
    (source / "config.json").write_text(json.dumps(config))
    run(source, varied, output, max_steps=1)
    assert (output / "modeling_megrezo.py").read_text() == "raise RuntimeError"
