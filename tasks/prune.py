"""Remove blocks and channels from trained models and train them back from the teacher; refuse cuts that gain no time.

Every pruned model gets a rival that it has to beat: a dense network that takes no longer (`tasks/rivals.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from kinglet.atomic import write_json
from kinglet.compression.depth import Removal, damage, log_answers, removable_blocks, remove_slow_blocks
from kinglet.compression.latency import Latency, is_faster
from kinglet.compression.pruning import prune_channels, reestimate_batch_norms
from kinglet.compression.width_steps import PROBE_WIDTHS, probe, width_step
from kinglet.errors import KingletError
from kinglet.models.registry import architecture_of
from kinglet.training.loop import ImageSet
from tasks.artifacts import (
    DISTILL,
    FINETUNE,
    PRUNE,
    REFUSED_CUTS,
    UNRIVALLED,
    model_folders,
    refuse_unknown_models,
)
from tasks.compression_settings import Prune
from tasks.distillation import train_from_teacher
from tasks.image_networks import Images
from tasks.image_prune import read_whole_network, refuse_rival, train_network_back
from tasks.models import prepare_training
from tasks.parameters import Parameters
from tasks.rivals import has_none, read_whole, recovery, refuse_impossible_rival, train_rival
from tasks.settings_section import AUTO
from tasks.stage import run_stage
from tasks.untrained_latency import fastest, untrained_latencies
from tasks.whole_model import Whole


@dataclass(frozen=True)
class Cut:
    """What is left of a network, its statistics renewed.

    removals: the blocks that left, in order. round_to: channels that stay are a multiple of it.
    """

    network: nn.Module
    removals: list[Removal]
    round_to: int

    def notes(self, settings: Prune) -> dict[str, Any]:
        """Return what became of the network, JSON-ready."""
        notes: dict[str, Any] = {"channel_share": settings.channel_share, "importance": settings.importance}
        if settings.blocks:
            notes["removed_blocks"] = [asdict(removal) for removal in self.removals]
        return notes


def run(parameters: Parameters) -> None:
    """Prune every model that the settings name; note the cuts that were refused and those without a rival."""
    settings = parameters.prune
    prepare_training(parameters.seed)
    folders = {folder.name: folder for folder in model_folders(FINETUNE, DISTILL)}
    refuse_unknown_models("prune.models", settings.models, folders)
    wholes = [WAYS[parameters.network].read(folders[name], parameters) for name in settings.models]
    for whole in wholes:
        refuse_impossible_cut(whole, settings)
        WAYS[parameters.network].refuse_impossible_rival(whole, settings)
    PRUNE.mkdir(parents=True, exist_ok=True)
    refused: dict[str, str] = {}
    unrivalled: dict[str, str] = {}
    for whole in wholes:
        prune_model(whole, WAYS[parameters.network], parameters, refused, unrivalled)
    write_json(REFUSED_CUTS, refused)
    write_json(UNRIVALLED, unrivalled)


def prune_model(
    whole: Whole[Any], way: Way, parameters: Parameters, refused: dict[str, str], unrivalled: dict[str, str]
) -> None:
    """Prune a model; write a sentence into `refused` or `unrivalled` if the cut gains no time or there is no rival."""
    name, settings = whole.card.name, parameters.prune
    pruned = cut(whole, parameters)
    before, after = latencies_of([whole.network, pruned.network], whole, parameters)
    if not is_faster(fastest(after), fastest(before)):
        refused[name] = (
            f"Without {losses(pruned, settings)} {name} would be no faster: "
            f"{fastest(after).value:.3g} ms instead of {fastest(before).value:.3g} ms."
        )
        print(f"warning: {refused[name]} It is not pruned.", file=sys.stderr)
        return
    # The rival first: what it has to be as fast as is the network as it was cut, which training changes in place.
    missing = way.train_rival(pruned.network, whole, parameters)
    if missing:
        unrivalled[name] = missing
        print(f"warning: {missing}", file=sys.stderr)
    way.train_back(pruned, whole, parameters)


def refuse_impossible_cut(whole: Whole[Any], settings: Prune) -> None:
    """Raise KingletError if a network cannot be cut at all, or has fewer removable blocks than are to go."""
    name = whole.card.name
    if whole.card.architecture["family"] == "zoo":
        raise KingletError(
            f"params.yaml: prune.models names {name}, whose network of another model zoo cannot be cut.",
            "Take it out of prune.models, or fine-tune one of Kinglet's own backbones.",
        )
    n_removable = len(removable_blocks(whole.network))
    if settings.blocks > n_removable:
        raise KingletError(
            f"params.yaml: prune.blocks is {settings.blocks}, but only {n_removable} blocks of {name} can go.",
            "A block can go if it has an identity around it; lower prune.blocks.",
        )


def cut(whole: Whole[Any], parameters: Parameters) -> Cut:
    """Return the network without its worst blocks and its least important channels, its statistics renewed."""
    settings = parameters.prune
    network, removals = whole.network, list[Removal]()
    inputs = [images for images, _ in whole.batches]
    if settings.blocks:
        network, removals = without_slow_blocks(whole, parameters)
    if removals:
        reestimate_batch_norms(network, inputs)
    round_to = measured_step(whole, parameters) if settings.round_to == AUTO else settings.round_to
    if settings.channel_share:
        network = prune_channels(
            network,
            whole.batches[0][0][:2],
            settings.channel_share,
            settings.importance,
            round_to,
            whole.batches,
            settings.scope,
            settings.steps,
            whole.loss,
            WAYS[parameters.network].rounding,
        )
        reestimate_batch_norms(network, inputs)
    return Cut(network, removals, round_to)


def without_slow_blocks(whole: Whole[Any], parameters: Parameters) -> tuple[nn.Module, list[Removal]]:
    """Return the network without the blocks that do least damage for the time they take, and what that cost.

    The damage is measured on training images that neither renewed the statistics nor chose the channels.
    """
    answers = log_answers(whole.network, whole.held_out)
    first = whole.batches[0][0]

    def damage_of(smaller: nn.Module) -> float:
        reestimate_batch_norms(smaller, [first])
        return damage(smaller, whole.held_out, answers)

    def fastest_of(networks: Sequence[nn.Module]) -> list[Latency]:
        return [fastest(latencies) for latencies in latencies_of(networks, whole, parameters)]

    network, removals = remove_slow_blocks(whole.network, parameters.prune.blocks, damage_of, fastest_of)
    for removal in removals:
        print(
            f"note: {whole.card.name} loses block {removal.index}: {1000 * removal.saved_ms:.1f} us saved for "
            f"{removal.damage:.4f} nats",
            file=sys.stderr,
        )
    if len(removals) < parameters.prune.blocks:
        print(
            f"warning: {len(removals)} of {parameters.prune.blocks} blocks leave {whole.card.name}: without any "
            "other it would be no faster.",
            file=sys.stderr,
        )
    return network, removals


def measured_step(whole: Whole[Any], parameters: Parameters) -> int:
    """Return the step of the width that pays in every precision here, from the table where this machine knows it."""
    probes = [probe(whole.network, width, parameters.seed) for width in PROBE_WIDTHS]
    latencies = latencies_of(probes, whole, parameters)
    # A cut is judged by its faster file, but both are shipped: one that only int8 likes makes the float file no faster.
    step = max(
        width_step({width: of[precision] for width, of in zip(PROBE_WIDTHS, latencies, strict=True)})
        for precision in latencies[0]
    )
    print(f"note: the runtime takes channels in steps of {step} here (prune.round_to)", file=sys.stderr)
    return step


def losses(pruned: Cut, settings: Prune) -> str:
    """Return what a network lost, in words."""
    parts = []
    if settings.blocks:
        parts.append(f"{len(pruned.removals)} of its blocks")
    if settings.channel_share:
        parts.append(f"{settings.channel_share:.0%} of its channels")
    return " and ".join(parts)


def latencies_of(networks: Sequence[nn.Module], whole: Whole[Any], parameters: Parameters) -> list[dict[str, Latency]]:
    """Return how long networks take for one of the model's inputs, {precision: latency} of each."""
    return untrained_latencies(
        [(network, whole.inputs) for network in networks], parameters.benchmark.threads, parameters.seed
    )


def train_pruned(pruned: Cut, whole: Whole[ImageSet], parameters: Parameters) -> None:
    """Train a pruned network back and save it beside the others."""
    settings, name = parameters.prune, whole.card.name
    train_from_teacher(
        pruned.network,
        PRUNE / f"{name}-pruned",
        whole.card,
        (whole.training, whole.validation),
        recovery(whole, parameters),
        parameters.distill,
        parent=name,
        facts=facts_of(pruned, settings),
        files=[whole.folder / "model.pt"],
        notes=pruned.notes(settings),
    )


def train_pruned_network(pruned: Cut, whole: Whole[Images], parameters: Parameters) -> None:
    """Train a pruned detector or segmenter back and save it beside the others."""
    settings = parameters.prune
    train_network_back(pruned.network, whole, parameters, facts_of(pruned, settings), pruned.notes(settings))


def facts_of(pruned: Cut, settings: Prune) -> dict[str, Any]:
    """Return what decides the training of a pruned network besides its recipe and its images."""
    return {
        "prune": settings.model_dump(exclude={"models", "baseline"}),
        # What is left depends on the clock as well.
        "architecture": architecture_of(pruned.network),
    }


@dataclass(frozen=True)
class Way:
    """How the models of a problem are read before a cut, what they are held against, and how they are trained back.

    rounding: of the channels that stay, as in `prune_channels`.
    """

    read: Callable[[Path, Parameters], Whole[Any]]
    refuse_impossible_rival: Callable[[Whole[Any], Prune], None]
    train_rival: Callable[[nn.Module, Whole[Any], Parameters], str]
    train_back: Callable[[Cut, Whole[Any], Parameters], None]
    rounding: str = "down"


# Integer kernels like steps of 16 channels, and the backbones begin with 16, 24 and 40.
IMAGES = Way(read_whole_network, refuse_rival, has_none, train_pruned_network, "nearest")
# By the problem that networks are made for; of those that are not here, nothing is cut.
WAYS = {
    "classification": Way(read_whole, refuse_impossible_rival, train_rival, train_pruned),
    "detection": IMAGES,
    "segmentation": IMAGES,
}


if __name__ == "__main__":
    run_stage(run)
