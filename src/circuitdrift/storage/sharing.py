"""One experiment and its artifacts, put where colleagues can fetch them."""

from __future__ import annotations

from pathlib import Path

from dulwich.errors import GitProtocolError
from dvc.repo import Repo
from dvc.repo.experiments.refs import ExpRefInfo
from dvc.repo.experiments.utils import exp_refs, resolve_name
from scmrepo.exceptions import InvalidRemote, SCMError

from circuitdrift.errors import InputError, Problem
from circuitdrift.storage.outputs import kept_outputs
from circuitdrift.storage.remote import opened, reaching
from circuitdrift.storage.synchronising import Outcome, stored


def share(root: Path, name: str, git_remote: str, remote: str | None) -> Outcome:
    """Store the artifacts of experiment ``name`` in a remote, and its commit in ``git_remote``.

    The artifacts go first: a commit that stands there has them. Where one is lacking, the commit
    stays here.

    Raises:
        InputError: if there is no such experiment or git remote, one of the two remotes cannot be
            reached, or ``git_remote`` has another experiment of this name.
        DvcException: as :func:`circuitdrift.storage.synchronising.pull`.
    """
    with opened(root) as repo:
        _refuse_unknown_git_remote(repo, git_remote)
        experiment = _experiment(repo, name)
        commit = repo.scm.get_ref(str(experiment))
        with reaching(repo, remote) as place, repo.switch(commit):
            outputs = kept_outputs(repo)
            lacking = stored(outputs, repo.cache.local, place.objects)
        if not lacking:
            _push_commit(repo, experiment, git_remote)
    return Outcome(outputs, lacking)


def _refuse_unknown_git_remote(repo: Repo, git_remote: str) -> None:
    try:
        repo.scm.validate_git_remote(git_remote)
    except InvalidRemote:
        raise InputError(
            Problem(
                "git remote",
                git_remote,
                "an experiment is shared through a git remote of this clone",
                f"git remote add {git_remote} URL; `git remote` lists those that there are",
            )
        ) from None


def _experiment(repo: Repo, name: str) -> ExpRefInfo:
    found = resolve_name(repo.scm, [name])[name] if name else None
    if found is None:
        names = sorted({ref.name for ref in exp_refs(repo.scm)})
        raise InputError(
            Problem(
                "experiment",
                name,
                f"one of {', '.join(names)}" if names else "there are no experiments here",
                "make share NAME=..., with one of these; `dvc exp run --name NAME` makes one",
            )
        )
    return found


def _push_commit(repo: Repo, experiment: ExpRefInfo, git_remote: str) -> None:
    try:
        result = repo.experiments.push(git_remote, [str(experiment)], push_cache=False)
    except (SCMError, GitProtocolError, OSError) as error:
        raise InputError(
            Problem(
                f"git remote {git_remote}",
                str(error) or type(error).__name__,
                "it answers, and lets this user push",
                f"look at its address and the credentials: git ls-remote {git_remote}",
            )
        ) from error
    if result.get("diverged"):
        raise InputError(
            Problem(
                f"git remote {git_remote}",
                f"another experiment named {experiment.name}",
                "a name stands for one experiment",
                f"dvc exp rename {experiment.name} OTHER, then share that one",
            )
        )
