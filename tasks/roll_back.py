"""One step back: the container of this machine and the champion of the store, together where there are both."""

from __future__ import annotations

from dataclasses import dataclass

from kinglet.errors import KingletError
from kinglet.publishing.pointer import read_pointer
from kinglet.publishing.store import Store, place_of
from tasks.deployment_state import only_deployment, read_deployed
from tasks.publish import rollback as roll_back_store


@dataclass(frozen=True)
class RolledBack:
    """What is in production again. container: version that this machine's container serves; champion: version that the
    store's pointer names; place: of the store. Each is empty where there was nothing to do.
    """

    container: str = ""
    champion: str = ""
    place: str = ""


def roll_back_both(address: str, here: bool = True) -> RolledBack:
    """Go back to the version before.

    address: of the store, empty for none. here: whether the container of this machine goes back, if there is one.
    Raises KingletError if there is nothing to go back to, or if container and champion would become two versions; then
    nothing is changed. The store moves while the container is on trial: if it refuses, the container does not.
    """
    if not here or read_deployed().current is None:
        if not address:
            raise KingletError(
                "Nothing is deployed on this machine, and no store is named.",
                "Name the store with --store, or set KINGLET_STORE.",
            )
        outcome = roll_back_store(address)
        return RolledBack(champion=outcome.champion, place=outcome.place)
    # The container engine's library takes a moment, which who has no containers is spared.
    from tasks.deploy_settings import load_deploy_settings
    from tasks.deployment import refuse_nothing_before, roll_back

    with only_deployment():
        deployed = read_deployed()
        target = refuse_nothing_before(deployed)
        follow = bool(address) and store_moves(
            address, deployed.current.version if deployed.current else "", target.version
        )
        settings = load_deploy_settings()
        roll_back(settings, (lambda: roll_back_store(address)) if follow else None)
        if not follow:
            return RolledBack(container=target.version)
        return RolledBack(target.version, target.version, str(place_of(address)))


def store_moves(address: str, current: str, target: str) -> bool:
    """Return whether the store's pointer has to go back with the container; False if it is there already.

    Raises KingletError if it could not be made to name the same version by one step back.
    """
    store = Store(place_of(address))
    pointer = read_pointer(store).pointer
    if pointer is not None and pointer.champion.version == target:
        return False
    before = pointer.previous[-1].version if pointer is not None and pointer.previous else "none"
    if pointer is None or pointer.champion.version != current or before != target:
        champion = pointer.champion.version if pointer is not None else "none"
        raise KingletError(
            f"This machine would go from {current} back to {target}, {store.place} from {champion} back to {before}: "
            "they would name two versions.",
            "Go back with one of them alone: leave --store and KINGLET_STORE out, or use --not-here.",
        )
    return True
