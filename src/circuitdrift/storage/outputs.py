"""What DVC keeps of the study: the outputs that dvc.lock records, and the objects they are made of.

An object is a file in a cache or a remote, named by the MD5 of its content. A directory is one
object more, named by its MD5 and ``.dir``: the list of its files.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dvc.output import Output as DvcOutput
from dvc.repo import Repo
from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree


@dataclass(frozen=True)
class Output:
    """A file or directory that DVC keeps.

    Attributes:
        stage: the stage that makes it ("finetune@mapped-0").
        path: as dvc.yaml writes it.
        size: bytes; None where dvc.lock does not say.
        oid: the object that it is; None where dvc.lock does not know the stage.
        out: DVC's own.
    """

    stage: str
    path: str
    size: int | None
    oid: str | None
    out: DvcOutput = field(repr=False, compare=False)

    def put_in_place(self, *, force: bool) -> None:
        """Make the workspace's file or directory what the cache holds.

        Raises:
            DvcException: if a file that no cache holds would be replaced, without ``force``, or
                the file system refuses.
        """
        self.out.checkout(force=force)

    @property
    def place(self) -> str:
        """Where DVC locks it: no other command writes there meanwhile, a stage that runs least."""
        return str(self.out.fs_path)


def kept_outputs(repo: Repo) -> list[Output]:
    """Every output that DVC keeps, in dvc.yaml's order, as dvc.lock records it."""
    return [
        Output(
            stage=stage.addressing,
            path=out.def_path,
            size=out.meta.size if out.meta else None,
            oid=out.hash_info.value if out.hash_info else None,
            out=out,
        )
        for stage in repo.index.stages
        for out in stage.outs
        if out.use_cache
    ]


def is_directory(oid: str) -> bool:
    return oid.endswith(".dir")


def files_of(oid: str, cache: HashFileDB) -> list[str]:
    """The objects of a directory's files; none for a file, which has no others.

    Raises:
        FileNotFoundError: if ``cache`` does not hold the directory's own object.
    """
    if not is_directory(oid):
        return []
    tree = Tree.load(cache, HashInfo(cache.hash_name, oid))
    return [hash_info.value for _, _, hash_info in tree]
