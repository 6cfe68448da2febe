"""One fold of the cross-validation where videos have classes: what it trains, and its answers to its clips."""

from __future__ import annotations

from typing import Any

from kinglet.models.registry import normalization
from kinglet.runtime.bundles import MODEL, RECURRENT
from kinglet.runtime.engines.onnxruntime import engine_of
from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.recurrence import ClipNetwork, open_recurrence
from kinglet.runtime.sessions import FEATURES_NAME, open_session, softmax
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.schedules import EpochBudget
from tasks.artifacts import FOLDS, packed_clips, read_input_sizes
from tasks.clip_answers import gather_clip_logits
from tasks.clip_training import clip_recipe, fine_tuned_clips
from tasks.fold_run import HELD_OUT, TRAINING, VALIDATION, FoldRun, images_of_parts, write_predictions
from tasks.models import channels_of, exported, image_set, open_checkpoint, read_classes
from tasks.progress import progress
from tasks.settings_section import AUTO

# A third of the teacher's.
BUDGET = EpochBudget(pixels=80e6, fewest=0.3, most=30)


def answer_clips(given: FoldRun) -> None:
    """Train a clip classifier without the fold, and write its probabilities for the fold's clips."""
    parameters, size, n_classes = given.parameters, read_input_sizes().teacher, len(read_classes())
    clips = images_of_parts(given.repeat, given.fold)
    held_out, training, validation = (
        image_set(clips, part, [size], packed_clips) for part in (HELD_OUT, TRAINING, VALIDATION)
    )
    settings = given.settings
    if settings.epochs == AUTO and parameters.finetune.epochs == 0:
        # The backbone that the teacher leaves as it is stays in the folds as well.
        settings = parameters.finetune
    recipe = clip_recipe(settings, parameters.recurrent, training, size, given.seed, BUDGET)
    facts = {"finetune": settings.model_dump(), "recipe": recipe.facts, "threads": given.threads}

    def checkpoint(part: str, further: dict[str, Any]) -> Checkpoint:
        files = [packed_clips(size), FOLDS]
        return open_checkpoint(f"crossvalidate-{given.name}-{part}", {**facts, **further}, files)

    with progress(given.title) as report:
        network, history, checkpoints = fine_tuned_clips(
            settings, training, validation, n_classes, size, recipe, checkpoint, report
        )
        channels = channels_of(training)
        mean, std = normalization(channels)
        preprocessing = Preprocessing(size, channels, parameters.data.fit, tuple(mean), tuple(std))
        models = exported(network, size, channels, {"preprocessing": preprocessing.to_dict()}, "video")
        frame_part = open_session(models[MODEL].SerializeToString(), threads=1, outputs=(FEATURES_NAME,))
        recurrence = open_recurrence(models[RECURRENT].SerializeToString(), threads=1)
        logits = gather_clip_logits(
            ClipNetwork(engine_of(frame_part), recurrence),
            held_out.packed[size],
            held_out.rows,
            preprocessing,
            given.threads,
            lambda done, total: report(done, total, "answers"),
        )
    write_predictions(given.folder / "predictions.parquet", held_out, softmax(logits[:, -1]))
    given.keep_facts(
        n=len(held_out.rows),
        n_training=len(training.rows),
        n_validation=len(validation.rows),
        recipe=recipe.whole or recipe.behind,
        history=history,
    )
    for done in checkpoints:
        done.clear()
