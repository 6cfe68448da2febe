"""Open the sealed images for a release: score the accepted bundle on them, and write down that they were looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.atomic import read_json
from kinglet.data.splits import SEALED
from kinglet.errors import KingletError
from kinglet.evidence.gate import is_accepted
from kinglet.runtime import bundles
from kinglet.runtime.processors import available_processors
from kinglet.runtime.sessions import gather_logits
from tasks.artifacts import BUNDLE, FINETUNE, SPLIT, model_folders, packed_clips, packed_images, read_card
from tasks.bundle_answers import Part, answers_of, read_part
from tasks.champion import bundle_digest
from tasks.clip_answers import open_clip_network
from tasks.gate import comparison_checks, read_challenger, read_reference
from tasks.opened_models import open_model
from tasks.parameters import Parameters
from tasks.sealed_looks import look_for, read_looks, sealed_digest, write_look


def open_sealed(parameters: Parameters) -> tuple[dict[str, Any], bool]:
    """Return what the sealed images say about the bundle, and whether they were looked at for it: (look, is new).

    A bundle that was scored on the same sealed images beside the same reference before is not scored again: nothing
    new would be seen. A new look is written to data/sealed_looks.json before it is returned.
    Raises KingletError if no images are sealed.
    """
    part = read_part(SEALED)
    if not parameters.split.sealed or not len(part.rows):
        raise KingletError(
            "No images are sealed.",
            "Set split.sealed in params.yaml to a share, 0.1 for example, and run `dvc repro`.",
        )
    classes, challenger = read_json(SPLIT / "classes.json"), read_challenger(parameters)
    reference = read_reference(challenger, part, classes, parameters, teacher_answers)
    bundle, (sealed, n_images) = bundle_digest(BUNDLE), sealed_digest()
    earlier = look_for(bundle, reference.digest, sealed, read_looks())
    if earlier:
        return earlier, False
    predicted = answers_of(challenger.bundle, part, classes, parameters.data)
    checks = comparison_checks(predicted, part, reference, classes, parameters)
    look = {
        "source": parameters.data.source,
        "sealed": sealed,
        "images": n_images,
        "bundle": bundle,
        "model": challenger.name,
        "reference": reference.word,
        "reference_digest": reference.digest,
        "passed": is_accepted(checks),
        "checks": [check.to_dict() for check in checks],
    }
    write_look(look)
    return look, True


def teacher_answers(part: Part) -> NDArray[np.int64]:
    """Return the classes that the teacher answers to these images, as their numbers, shape (n_images,)."""
    (folder,) = model_folders(FINETUNE)
    card = read_card(folder)
    if card.problem == bundles.VIDEO:
        clips = np.load(packed_clips(card.input_size), mmap_mode="r")
        return open_clip_network(folder).predicted(clips, part.rows)
    model = open_model(folder, card, threads=1)
    packed = np.load(packed_images(model.preprocessing.input_size), mmap_mode="r")
    logits = gather_logits(
        model.engine.run,
        len(model.classes),
        packed,
        part.rows,
        model.preprocessing,
        workers=available_processors(),
    )
    return np.asarray(logits.argmax(axis=1), np.int64)
